//! The certificates of one test: an authority, a server on this host and a client, as PEM files.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, Error, IsCa, KeyPair, KeyUsagePurpose};

/// The paths of the certificates.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Certs {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The server's certificate for `localhost`, `127.0.0.1` and `::1`.
    pub server_cert: PathBuf,
    pub server_key: PathBuf,
    pub client_cert: PathBuf,
    pub client_key: PathBuf,
}

impl Certs {
    /// Makes new certificates in this folder.
    ///
    /// # Errors
    /// If they can't be made or written.
    pub fn make(folder: &Path) -> Result<Self, String> {
        let path = |name: &str| folder.join(name);
        let certs = Self {
            ca: path("ca.crt"),
            server_cert: path("server.crt"),
            server_key: path("server.key"),
            client_cert: path("client.crt"),
            client_key: path("client.key"),
        };
        let (ca, server, client) = sign().map_err(|error| error.to_string())?;
        let files = [
            (&certs.ca, ca),
            (&certs.server_cert, server.0),
            (&certs.server_key, server.1),
            (&certs.client_cert, client.0),
            (&certs.client_key, client.1),
        ];
        for (path, text) in files {
            std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(certs)
    }
}

type Pair = (String, String);

fn sign() -> Result<(String, Pair, Pair), Error> {
    let mut params = named("dlock test authority", &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let pair = |name, hosts: &[&str]| {
        let key = KeyPair::generate()?;
        Ok((named(name, hosts)?.signed_by(&key, &ca)?.pem(), key.serialize_pem()))
    };
    Ok((ca.pem(), pair("server", &["localhost", "127.0.0.1", "::1"])?, pair("client", &["client"])?))
}

fn named(name: &str, hosts: &[&str]) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    Ok(params)
}
