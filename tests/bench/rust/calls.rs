//! What a server has counted.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::Outcome;
use crate::raw::Raw;

/// Asks a server for its counts.
pub(crate) enum Calls {
    Redis(Raw),
    Etcd(String),
    MySql(String),
    ZooKeeper(String),
}

/// The backends with a server.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Service {
    Redis,
    Etcd,
    MySql,
    ZooKeeper,
}

impl Service {
    /// `None`: the backend has no server.
    pub(crate) fn of(url: &str) -> Option<Self> {
        match url.split_once("://")?.0 {
            "redis" => Some(Self::Redis),
            "etcd" => Some(Self::Etcd),
            "mysql" => Some(Self::MySql),
            "zookeeper" => Some(Self::ZooKeeper),
            _ => None,
        }
    }
}

/// Since the server's start.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Scripts of Redis; of etcd all requests, those within streams too; statements of MySQL; packets of ZooKeeper.
    pub(crate) requests: f64,
    /// What it has told without being asked.
    pub(crate) messages: f64,
    /// Seconds of its processor's time, if it tells them.
    pub(crate) cpu: Option<f64>,
}

impl Calls {
    /// `None`: there is no server.
    pub(crate) fn of(url: &str) -> Outcome<Option<Self>> {
        let place = || place(url).to_owned();
        Ok(match Service::of(url) {
            Some(Service::Redis) => Some(Self::Redis(Raw::connect(url)?)),
            Some(Service::Etcd) => Some(Self::Etcd(place())),
            Some(Service::MySql) => Some(Self::MySql(url.to_owned())),
            Some(Service::ZooKeeper) => Some(Self::ZooKeeper(place())),
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
                Ok(Counts { requests: calls("evalsha") + calls("eval"), messages: calls("publish"), cpu: Some(cpu) })
            }
            Self::Etcd(place) => {
                let all = answer(place, "GET /metrics HTTP/1.0\r\n\r\n")?;
                let cpu = Some(sum(&all, "process_cpu_seconds_total "));
                let messages = sum(&all, "grpc_server_msg_sent_total{grpc_method=\"Watch\"");
                Ok(Counts { requests: sum(&all, "grpc_server_msg_received_total{"), messages, cpu })
            }
            Self::MySql(url) => Ok(Counts { requests: crate::mysql::statements(url)?, ..Counts::default() }),
            Self::ZooKeeper(place) => {
                let all = answer(place, "mntr")?.replace('\t', " ");
                let requests = sum(&all, "zk_packets_received ");
                Ok(Counts { requests, messages: sum(&all, "zk_packets_sent ") - requests, cpu: None })
            }
        }
    }
}

/// The address in a URL.
pub(crate) fn place(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default()
}

/// All that a server says to this on a connection of its own.
fn answer(place: &str, question: &str) -> Outcome<String> {
    let mut stream = TcpStream::connect(place)?;
    stream.write_all(question.as_bytes())?;
    let mut all = String::new();
    stream.read_to_string(&mut all)?;
    Ok(all)
}

/// The sum of the first number of each line that begins so.
fn sum(text: &str, begin: &str) -> f64 {
    let rests = text.lines().filter_map(|line| line.strip_prefix(begin));
    rests.filter_map(|rest| rest.rsplit(' ').next()?.split(',').next()?.parse::<f64>().ok()).sum()
}
