//! Requests to an etcd from outside: its metrics, its health, and etcdctl.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use etcd_client::{Client, ConnectOptions, GetOptions, KeyValue, SortOrder, SortTarget};

use super::server::{Etcd, PATIENCE, PAUSE};

/// A key and its data.
#[derive(Debug)]
pub struct Pair {
    pub key: String,
    pub value: String,
    /// The revision that created the key.
    pub created: i64,
    pub lease: i64,
}

/// The name of the metric that is 1 at a leader.
pub(super) const LEADS: &str = "etcd_server_is_leader";

impl Etcd {
    /// Returns the answer to a plain GET.
    pub(super) fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.figures))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Returns one metric, of those without labels.
    ///
    /// # Panics
    /// If the server doesn't answer or has no such metric.
    pub fn figure(&self, name: &str) -> f64 {
        self.try_figure(name).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns one metric, of those without labels.
    ///
    /// # Errors
    /// If the server doesn't answer, with the end of its log, or if it has no such metric.
    pub fn try_figure(&self, name: &str) -> Result<f64, String> {
        let all =
            self.get("/metrics").map_err(|error| format!("{} tells no figures: {error}: {}", self.name, self.log()))?;
        let line = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.trim().parse().ok()).ok_or_else(|| format!("there is no figure {name}"))
    }

    /// Runs etcdctl with these words and returns its output.
    ///
    /// # Panics
    /// On an error.
    pub fn ctl(&self, words: &[&str]) -> String {
        self.try_ctl(words).unwrap_or_else(|error| panic!("etcdctl {}: {error}", words.join(" ")))
    }

    /// Runs etcdctl with these words and returns its output.
    ///
    /// # Errors
    /// The errors of etcdctl.
    pub fn try_ctl(&self, words: &[&str]) -> Result<String, String> {
        let done = self.ctl_line(words).output().map_err(|error| format!("etcdctl: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    /// Returns the command that runs etcdctl with these words.
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

    /// Makes a lease of so many seconds and returns its id, as etcdctl writes it.
    ///
    /// # Panics
    /// As for [`ctl`](Self::ctl).
    pub fn lease(&self, seconds: u32) -> String {
        let said = self.ctl(&["lease", "grant", &seconds.to_string()]);
        said.split_whitespace().nth(1).expect("lease … granted").to_owned()
    }

    /// Runs `work` with a client of its own, without etcdctl.
    ///
    /// # Errors
    /// If the server doesn't answer.
    ///
    /// # Panics
    /// If no runtime can be made.
    pub fn raw<T>(
        &self,
        work: impl AsyncFnOnce(Client) -> Result<T, etcd_client::Error>,
    ) -> Result<T, etcd_client::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let options = ConnectOptions::new().with_connect_timeout(PATIENCE).with_timeout(PATIENCE);
            work(Client::connect([self.addr().to_string()], Some(options)).await?).await
        })
    }

    /// Returns the keys with this prefix, in the order in which they were created.
    ///
    /// # Panics
    /// If the server doesn't answer.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.pairs(prefix).into_iter().map(|pair| pair.key).collect()
    }

    /// Returns the keys with this prefix and their data, in the order in which they were created.
    ///
    /// # Panics
    /// If the server doesn't answer.
    pub fn pairs(&self, prefix: &str) -> Vec<Pair> {
        self.try_pairs(prefix).unwrap_or_else(|error| panic!("the keys of {prefix:?}: {error}"))
    }

    /// Returns the keys with this prefix and their data. Asks again while the cluster has no leader.
    ///
    /// # Errors
    /// If the server doesn't answer.
    pub fn try_pairs(&self, prefix: &str) -> Result<Vec<Pair>, String> {
        let options = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
        let end = Instant::now() + PATIENCE;
        let answer = loop {
            match self.raw(async |mut client| client.get(prefix, Some(options.clone())).await) {
                Ok(answer) => break answer,
                Err(error) if Instant::now() > end => return Err(error.to_string()),
                Err(_) => std::thread::sleep(PAUSE),
            }
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pair = |pair: &KeyValue| Pair {
            key: text(pair.key()),
            value: text(pair.value()),
            created: pair.create_revision(),
            lease: pair.lease(),
        };
        Ok(answer.kvs().iter().map(pair).collect())
    }

    /// Returns the number of calls of this method that the server has received.
    ///
    /// # Panics
    /// As for [`figure`](Self::figure).
    pub fn asked(&self, service: &str, method: &str) -> u64 {
        let kind = if service == "KV" || method == "LeaseGrant" { "unary" } else { "bidi_stream" };
        let name = format!(
            "grpc_server_started_total{{grpc_method=\"{method}\",grpc_service=\"etcdserverpb.{service}\",\
             grpc_type=\"{kind}\"}}"
        );
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = self.figure(&name) as u64;
        count
    }

    /// Removes the history of all keys.
    ///
    /// # Panics
    /// As for [`ctl`](Self::ctl).
    pub fn compact(&self) {
        self.ctl(&["compact", &self.figure("etcd_debugging_mvcc_current_revision").to_string()]);
    }

    /// Returns true if this member leads its cluster.
    ///
    /// # Panics
    /// As for [`figure`](Self::figure).
    pub fn leads(&self) -> bool {
        self.figure(LEADS) > 0.5
    }

    /// Returns the member's id in its cluster, as etcd writes it.
    ///
    /// # Panics
    /// As for [`ctl`](Self::ctl).
    pub fn id(&self) -> String {
        let said = self.ctl(&["member", "list"]);
        let mut all = said.lines().map(|line| line.split(", ").collect::<Vec<_>>());
        let own = all.find(|words| words.get(2) == Some(&self.name.as_str()));
        own.expect("it is a member of its own cluster")[0].to_owned()
    }

    /// Returns the version of the etcd program.
    ///
    /// # Panics
    /// If the server doesn't answer.
    pub fn version(&self) -> String {
        let all = self.get("/metrics").expect("it tells its figures");
        let mut lines = all.lines().filter_map(|line| line.strip_prefix("etcd_server_version{server_version=\""));
        lines.next().and_then(|line| line.split('"').next()).expect("it tells its version").to_owned()
    }
}
