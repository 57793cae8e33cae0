//! TLS, and the certificates, which are read again for each connection: the files may have been replaced.

use std::io::Error as Other;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::Values;
use crate::error::{Error, Result};
use crate::runtime::{PerProcess, Pool, threads};

/// The TLS options `ca`, `cert`, `key` and `sni`; without `ca` the system's certificates count.
#[derive(Clone)]
pub(super) struct Tls {
    ca: Option<String>,
    /// The files of a certificate and its key.
    identity: Option<(String, String)>,
    name: ServerName<'static>,
    /// The protocol to ask for.
    alpn: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the options.
    ///
    /// # Errors
    /// `Invalid` for options that don't belong together, and for a file that can't be used now.
    pub(super) fn new(host: &str, values: &Values) -> Result<Self> {
        let text = |option| values.text(option).map(str::to_owned);
        let identity = match (text("cert"), text("key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(Error::invalid("cert and key belong together: give both, or neither")),
        };
        let name = values.text("sni").unwrap_or(host).to_owned();
        let name = ServerName::try_from(name.clone())
            .map_err(|_| Error::invalid(format!("{name} is no name that a certificate can be checked for")))?;
        let tls = Self { ca: text("ca"), identity, name, alpn: None };
        // The system's certificates are not checked here: they are many, and not the user's.
        if tls.ca.is_some() || tls.identity.is_some() {
            tls.read()?;
        }
        Ok(tls)
    }

    /// Returns the same options, with this protocol.
    pub(super) fn with_alpn(mut self, protocol: &[u8]) -> Self {
        self.alpn = Some(protocol.to_vec());
        self
    }

    /// Reads the files on a thread of its own.
    pub(super) async fn read_anew(self: Arc<Self>) -> std::io::Result<(TlsConnector, ServerName<'static>)> {
        let read = on_a_thread(move || self.read()).await?;
        read.map_err(|error| Other::other(error.message().to_owned()))
    }

    /// Reads the files.
    ///
    /// # Errors
    /// `Invalid` for a file that can't be used.
    pub(super) fn read(&self) -> Result<(TlsConnector, ServerName<'static>)> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for certificate in certificates("ca", path)? {
                    roots.add(certificate).map_err(|why| unusable("ca", path, &why))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| Error::invalid(format!("TLS can't be used: {why}")))?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            Some((cert, key)) => {
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| unusable("key", key, &why))?;
                let chain = certificates("cert", cert)?;
                config.with_client_auth_cert(chain, secret).map_err(|why| unusable("cert", cert, &why))?
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().cloned().collect();
        Ok((TlsConnector::from(Arc::new(config)), self.name.clone()))
    }
}

/// Reads files on a thread of its own, because their disk may be slow.
async fn on_a_thread<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    static READER: PerProcess<Pool> = PerProcess::new();
    let (tell, told) = oneshot::channel();
    let read = move || drop(tell.send(read()));
    READER
        .get(|| Pool::new("dlock-files"))
        .run(read)
        .map_err(|error| Other::other(threads::exhausted("no thread to read certificates can be started", &error)))?;
    told.await.map_err(Other::other)
}

/// Returns the certificates that the system trusts.
#[cfg(feature = "mysql")]
pub(crate) async fn system_certificates() -> std::io::Result<Vec<CertificateDer<'static>>> {
    on_a_thread(|| rustls_native_certs::load_native_certs().certs).await
}

/// Chooses a provider of cryptography for drivers that take the process's own, unless the program has chosen one.
#[cfg(feature = "mysql")]
pub(crate) fn use_ring() {
    use tokio_rustls::rustls::crypto::CryptoProvider;
    if CryptoProvider::get_default().is_none() {
        // Another thread may have been faster.
        let _ = ring::default_provider().install_default();
    }
}

fn certificates(option: &str, path: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<_> = read.map_err(|why| unusable(option, path, &why))?;
    if read.is_empty() { Err(unusable(option, path, &"no certificate in it")) } else { Ok(read) }
}

fn unusable(option: &str, path: &str, why: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("{option} {path}: {why}; name a readable PEM file"))
}
