//! An etcd of one test: a member alone, or several that form a cluster.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::Certs;
use super::process::{self, Process};

/// How long a server may take to start, and to answer one command.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(5);

/// How an [`Etcd`] is to be started.
#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    args: Vec<String>,
    tls: bool,
}

impl EtcdOptions {
    /// 127.0.0.1 on a free port, no login.
    pub fn new() -> Self {
        Self::default()
    }

    /// More arguments of etcd, which win over all others.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Serves clients by TLS only, see [`Etcd::certs`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }
}

/// A running member. Dropped, its process and its folder are gone.
#[derive(Debug)]
pub struct Etcd {
    options: EtcdOptions,
    name: String,
    port: u16,
    peer: u16,
    /// Where its figures and its health are, in clear.
    figures: u16,
    /// All members, as etcd wants them named.
    cluster: String,
    certs: Option<Certs>,
    // Dropped in this order.
    process: Option<Process>,
    folder: TempDir,
}

impl Etcd {
    /// Starts one, and waits until it serves.
    ///
    /// # Errors
    /// When it can't be started or doesn't serve in time, with the end of its log.
    pub fn start(options: &EtcdOptions) -> Result<Self, String> {
        let mut tries = 5;
        loop {
            tries -= 1;
            match Self::several(1, options) {
                Ok(mut members) => return members.pop().ok_or("no member".to_owned()),
                // Two tests may find the same port free.
                Err(error) if tries > 0 && error.contains("address already in use") => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts so many that form one cluster, and waits until it serves.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn several(count: usize, options: &EtcdOptions) -> Result<Vec<Self>, String> {
        let text = |error: std::io::Error| error.to_string();
        let mut members = Vec::new();
        for n in 0..count {
            let folder = process::folder().map_err(text)?;
            let [port, peer, figures] =
                [process::port(), process::port(), process::port()].map(|port| port.map_err(text));
            let certs = options.tls.then(|| Certs::make(folder.path())).transpose()?;
            let (options, name, cluster) = (options.clone(), format!("m{n}"), String::new());
            let (port, peer, figures) = (port?, peer?, figures?);
            members.push(Self { options, name, port, peer, figures, cluster, certs, process: None, folder });
        }
        let all: Vec<_> = members.iter().map(|one| format!("{}=http://127.0.0.1:{}", one.name, one.peer)).collect();
        for member in &mut members {
            member.cluster = all.join(",");
            member.launch()?;
        }
        for member in &mut members {
            member.served()?;
        }
        Ok(members)
    }

    /// Starts it again, after killing it if it runs: same ports, same folder.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        self.launch()?;
        self.served()
    }

    fn launch(&mut self) -> Result<(), String> {
        self.process = Some(Process::start(self.line()).map_err(|error| format!("etcd: {error}"))?);
        Ok(())
    }

    fn line(&self) -> Command {
        let mut line = Command::new("etcd");
        line.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let scheme = if self.certs.is_some() { "https" } else { "http" };
        let (client, peer) = (format!("{scheme}://127.0.0.1:{}", self.port), format!("http://127.0.0.1:{}", self.peer));
        line.args(["--name", &self.name, "--listen-client-urls", &client, "--advertise-client-urls", &client]);
        line.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
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

    /// What it answers to a plain GET.
    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.figures))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The end of what it has logged.
    pub fn log(&self) -> String {
        let text = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }

    /// Its address for clients.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        match &self.certs {
            Some(_) => format!("etcds://localhost:{}", self.port),
            None => format!("etcd://{}", self.addr()),
        }
    }

    /// Its certificates.
    ///
    /// # Panics
    /// Without [`EtcdOptions::tls`].
    pub fn certs(&self) -> &Certs {
        self.certs.as_ref().expect("it was started with TLS")
    }

    /// One of its figures, of those without labels.
    ///
    /// # Panics
    /// When it doesn't answer or has no such figure.
    pub fn figure(&self, name: &str) -> f64 {
        let all = self.get("/metrics").expect("it tells its figures");
        let line = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("there is no figure {name}"))
    }

    /// Does what etcdctl does with these words, and gives what it prints.
    ///
    /// # Panics
    /// On an error.
    pub fn ctl(&self, words: &[&str]) -> String {
        self.try_ctl(words).unwrap_or_else(|error| panic!("etcdctl {}: {error}", words.join(" ")))
    }

    /// The same.
    ///
    /// # Errors
    /// What etcdctl complains of.
    pub fn try_ctl(&self, words: &[&str]) -> Result<String, String> {
        let done = self.ctl_line(words).output().map_err(|error| format!("etcdctl: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    /// The command line of an etcdctl that does so.
    pub fn ctl_line(&self, words: &[&str]) -> Command {
        let mut line = Command::new("etcdctl");
        line.env("ETCDCTL_API", "3").stdin(Stdio::null());
        let address = self.addr().to_string();
        line.args(["--endpoints", &address, "--command-timeout", "10s"]);
        if let Some(certs) = &self.certs {
            line.arg("--cacert").arg(&certs.ca);
        }
        line.args(words);
        line
    }

    /// A lease of so many seconds, as etcdctl names it.
    ///
    /// # Panics
    /// As for [`ctl`](Self::ctl).
    pub fn lease(&self, seconds: u32) -> String {
        let said = self.ctl(&["lease", "grant", &seconds.to_string()]);
        said.split_whitespace().nth(1).expect("lease … granted").to_owned()
    }

    /// The keys that begin with this.
    ///
    /// # Panics
    /// As for [`ctl`](Self::ctl).
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let said = self.ctl(&["get", prefix, "--prefix", "--keys-only", "--sort-by", "CREATE"]);
        said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Stops it as a whole; connections stay, and nothing answers.
    ///
    /// # Panics
    /// If it isn't running.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// If it isn't running.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the server runs");
        process.signal(signal).expect("a process of ours takes signals");
    }

    /// Kills it with SIGKILL, if it runs. Its folder stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Whether it leads its cluster.
    ///
    /// # Panics
    /// As for [`figure`](Self::figure).
    pub fn leads(&self) -> bool {
        self.figure("etcd_server_is_leader") > 0.5
    }
}
