//! What a server has counted.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::Outcome;
use crate::raw::Raw;

/// Asks a server for its counts.
pub(crate) enum Calls {
    Redis(Raw),
    Etcd(String),
}

/// Since the server's start.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Scripts of Redis; of etcd all requests, those within streams too.
    pub(crate) requests: f64,
    /// What it has told without being asked.
    pub(crate) messages: f64,
    /// Seconds of its processor's time.
    pub(crate) cpu: f64,
}

/// Whether this backend has a server.
pub(crate) fn is_remote(url: &str) -> bool {
    is_etcd(url) || url.starts_with("redis:")
}

pub(crate) fn is_etcd(url: &str) -> bool {
    url.starts_with("etcd:")
}

impl Calls {
    /// `None`: there is no server.
    pub(crate) fn of(url: &str) -> Outcome<Option<Self>> {
        Ok(match url.strip_prefix("etcd://") {
            Some(place) => Some(Self::Etcd(place.to_owned())),
            None if is_remote(url) => Some(Self::Redis(Raw::connect(url)?)),
            None => None,
        })
    }

    pub(crate) fn read(&mut self) -> Outcome<Counts> {
        match self {
            Self::Redis(raw) => {
                let commands = raw.ask(&["INFO", "commandstats"])?.text().to_owned();
                let calls = |name: &str| sum(&commands, &format!("cmdstat_{name}:calls="));
                let cpu = raw.ask(&["INFO", "cpu"])?;
                let cpu = sum(cpu.text(), "used_cpu_sys:") + sum(cpu.text(), "used_cpu_user:");
                Ok(Counts { requests: calls("evalsha") + calls("eval"), messages: calls("publish"), cpu })
            }
            Self::Etcd(place) => {
                let mut stream = TcpStream::connect(&*place)?;
                write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
                let mut all = String::new();
                stream.read_to_string(&mut all)?;
                let cpu = sum(&all, "process_cpu_seconds_total ");
                let messages = sum(&all, "grpc_server_msg_sent_total{grpc_method=\"Watch\"");
                Ok(Counts { requests: sum(&all, "grpc_server_msg_received_total{"), messages, cpu })
            }
        }
    }
}

/// The sum of the first number of each line that begins so.
fn sum(text: &str, begin: &str) -> f64 {
    let rests = text.lines().filter_map(|line| line.strip_prefix(begin));
    rests.filter_map(|rest| rest.rsplit(' ').next()?.split(',').next()?.parse::<f64>().ok()).sum()
}
