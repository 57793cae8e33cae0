//! What an etcd is asked from outside: its figures, its health, and etcdctl on it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};

use super::etcd::{Etcd, PATIENCE};

/// The figure that is 1 at a leader.
pub(super) const LEADS: &str = "etcd_server_is_leader";

impl Etcd {
    /// What it answers to a plain GET.
    pub(super) fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.figures))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// One of its figures, of those without labels.
    ///
    /// # Panics
    /// When it doesn't answer or has no such figure.
    pub fn figure(&self, name: &str) -> f64 {
        self.try_figure(name).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same.
    ///
    /// # Errors
    /// When it doesn't answer or has no such figure, with the end of its log.
    pub fn try_figure(&self, name: &str) -> Result<f64, String> {
        let all =
            self.get("/metrics").map_err(|error| format!("{} tells no figures: {error}: {}", self.name, self.log()))?;
        let line = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.trim().parse().ok()).ok_or_else(|| format!("there is no figure {name}"))
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
        let mut line = self.program("etcdctl");
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

    /// Forgets the past of all keys.
    ///
    /// # Panics
    /// As for [`ctl`](Self::ctl).
    pub fn compact(&self) {
        self.ctl(&["compact", &self.figure("etcd_debugging_mvcc_current_revision").to_string()]);
    }

    /// Whether it leads its cluster.
    ///
    /// # Panics
    /// As for [`figure`](Self::figure).
    pub fn leads(&self) -> bool {
        self.figure(LEADS) > 0.5
    }

    /// Its number in its cluster, as etcd writes it.
    ///
    /// # Panics
    /// As for [`ctl`](Self::ctl).
    pub fn id(&self) -> String {
        let said = self.ctl(&["member", "list"]);
        let mut all = said.lines().map(|line| line.split(", ").collect::<Vec<_>>());
        let own = all.find(|words| words.get(2) == Some(&self.name.as_str()));
        own.expect("it is a member of its own cluster")[0].to_owned()
    }

    /// The version of its program.
    ///
    /// # Panics
    /// When it doesn't answer.
    pub fn version(&self) -> String {
        let all = self.get("/metrics").expect("it tells its figures");
        let mut lines = all.lines().filter_map(|line| line.strip_prefix("etcd_server_version{server_version=\""));
        lines.next().and_then(|line| line.split('"').next()).expect("it tells its version").to_owned()
    }
}
