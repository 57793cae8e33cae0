//! An etcd of one test: a single member, or several that form a cluster.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::server::Certs;
use crate::server::process::{self, Process};

/// The variable with the folder of etcd and etcdctl. Without it they are found by PATH.
const BIN: &str = "ETCD_BIN";
/// The time that a server may take to start, and to answer one command.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// The options with which an [`Etcd`] is started.
#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    args: Vec<String>,
    tls: bool,
}

impl EtcdOptions {
    /// Returns the default options: 127.0.0.1 on a free port, no login.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds arguments of etcd, which override all others.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Makes etcd serve clients by TLS only, see [`Etcd::certs`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }
}

/// A running member. When it is dropped, its process and its folder are removed.
#[derive(Debug)]
pub struct Etcd {
    options: EtcdOptions,
    /// The folder of the programs. If it is empty, they are found by PATH.
    bin: PathBuf,
    pub(super) name: String,
    port: u16,
    peer: u16,
    /// The address at which the other members find this one.
    advertised: SocketAddr,
    /// The port of the metrics and the health check, without TLS.
    pub(super) figures: u16,
    /// The list of all members, in etcd's format.
    cluster: String,
    pub(super) certs: Option<Certs>,
    // The order of these fields is the order in which they are dropped.
    pub(super) process: Option<Process>,
    folder: TempDir,
}

impl Etcd {
    /// Checks that etcd's programs are where they should be.
    ///
    /// # Errors
    /// If the folder that `ETCD_BIN` names lacks a program.
    pub fn found() -> Result<(), String> {
        bin(std::env::var_os(BIN)).map(drop)
    }

    /// Starts a member and waits until it serves.
    ///
    /// # Errors
    /// If the member can't be started or doesn't serve in time, with the end of its log.
    pub fn start(options: &EtcdOptions) -> Result<Self, String> {
        Self::several(1, options)?.pop().ok_or("no member".to_owned())
    }

    /// Starts so many members of one cluster and waits until it serves.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn several(count: usize, options: &EtcdOptions) -> Result<Vec<Self>, String> {
        Self::behind(count, options, |_, peer| peer)
    }

    /// Starts so many members of one cluster. The n-th tells its peers the address that `before` returns for n and the
    /// real address.
    pub(super) fn behind(
        count: usize,
        options: &EtcdOptions,
        before: impl Fn(usize, SocketAddr) -> SocketAddr,
    ) -> Result<Vec<Self>, String> {
        let mut tries = 5;
        loop {
            tries -= 1;
            match Self::form(count, options, &before) {
                // Two tests may find the same port free.
                Err(error) if tries > 0 && error.contains("address already in use") => {}
                formed => return formed,
            }
        }
    }

    fn form(
        count: usize,
        options: &EtcdOptions,
        before: impl Fn(usize, SocketAddr) -> SocketAddr,
    ) -> Result<Vec<Self>, String> {
        let text = |error: std::io::Error| error.to_string();
        let bin = bin(std::env::var_os(BIN))?;
        let mut members = Vec::new();
        for n in 0..count {
            let folder = process::folder().map_err(text)?;
            let [port, peer, figures] =
                [process::port(), process::port(), process::port()].map(|port| port.map_err(text));
            let certs = options.tls.then(|| Certs::make(folder.path())).transpose()?;
            let (port, peer, figures) = (port?, peer?, figures?);
            members.push(Self {
                options: options.clone(),
                bin: bin.clone(),
                name: format!("m{n}"),
                port,
                peer,
                advertised: before(n, (Ipv4Addr::LOCALHOST, peer).into()),
                figures,
                cluster: String::new(),
                certs,
                process: None,
                folder,
            });
        }
        let all: Vec<_> = members.iter().map(|one| format!("{}=http://{}", one.name, one.advertised)).collect();
        for member in &mut members {
            member.cluster = all.join(",");
            member.launch()?;
        }
        for member in &mut members {
            member.served()?;
        }
        Ok(members)
    }

    /// Starts the member again with the same ports and the same folder, after killing it if it runs.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        self.launch()?;
        self.served()
    }

    /// Starts the member again without data, like one that was restored from a backup of its beginning.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn restart_empty(&mut self) -> Result<(), String> {
        self.kill();
        std::fs::remove_dir_all(self.folder.path().join("data")).map_err(|error| error.to_string())?;
        self.restart()
    }

    fn launch(&mut self) -> Result<(), String> {
        self.process = Some(Process::start(self.line()).map_err(|error| format!("etcd: {error}"))?);
        Ok(())
    }

    fn line(&self) -> Command {
        let mut line = self.program("etcd");
        line.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let scheme = if self.certs.is_some() { "https" } else { "http" };
        let (client, peer) = (format!("{scheme}://127.0.0.1:{}", self.port), format!("http://127.0.0.1:{}", self.peer));
        let advertised = format!("http://{}", self.advertised);
        line.args(["--name", &self.name, "--listen-client-urls", &client, "--advertise-client-urls", &client]);
        line.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &advertised]);
        line.args(["--initial-cluster", &self.cluster, "--initial-cluster-token", &self.cluster]);
        line.args(["--listen-metrics-urls", &format!("http://127.0.0.1:{}", self.figures)]);
        line.args(["--logger", "zap", "--log-level", "error", "--log-outputs"]).arg(self.folder.path().join("log"));
        line.arg("--data-dir").arg(self.folder.path().join("data"));
        if let Some(certs) = &self.certs {
            line.arg("--cert-file").arg(&certs.server_cert).arg("--key-file").arg(&certs.server_key);
        }
        line.args(&self.options.args);
        line
    }

    /// Returns the command of one of etcd's programs.
    pub(super) fn program(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }

    fn served(&mut self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.as_mut().and_then(Process::ended) {
                return Err(format!("etcd ended with {status}: {}", self.log()));
            }
            if self.get("/health").is_ok_and(|health| health.contains("\"true\"")) {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!("etcd doesn't serve: {}", self.log()));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Returns the end of the log.
    pub fn log(&self) -> String {
        let text = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }

    /// Returns the address for clients.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Returns the URL.
    pub fn url(&self) -> String {
        match &self.certs {
            Some(_) => format!("etcds://localhost:{}", self.port),
            None => format!("etcd://{}", self.addr()),
        }
    }

    /// Returns the certificates.
    ///
    /// # Panics
    /// If the member was started without [`EtcdOptions::tls`].
    pub fn certs(&self) -> &Certs {
        self.certs.as_ref().expect("it was started with TLS")
    }

    /// Kills the member with SIGKILL, if it runs. Its folder stays.
    pub fn kill(&mut self) {
        self.process = None;
    }
}

/// Returns the given folder, which has to contain both programs.
fn bin(given: Option<OsString>) -> Result<PathBuf, String> {
    let Some(given) = given.filter(|given| !given.is_empty()) else { return Ok(PathBuf::new()) };
    let folder = std::path::absolute(Path::new(&given)).map_err(|error| format!("{BIN}: {error}"))?;
    match ["etcd", "etcdctl"].into_iter().find(|name| !folder.join(name).is_file()) {
        Some(missing) => Err(format!("{BIN}: there is no {missing} in {}", folder.display())),
        None => Ok(folder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_both_programs_is_named() {
        assert_eq!(bin(None), Ok(PathBuf::new()));
        assert_eq!(bin(Some("".into())), Ok(PathBuf::new()));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("etcd"), "").unwrap();
        let said = bin(Some(folder.path().into())).unwrap_err();
        assert_eq!(said, format!("ETCD_BIN: there is no etcdctl in {}", folder.path().display()));
        std::fs::write(folder.path().join("etcdctl"), "").unwrap();
        assert_eq!(bin(Some(folder.path().into())), Ok(folder.path().to_owned()));
    }
}
