//! The common parts of the URLs of all backends with servers: hosts, and before them a user and a password.

use super::schema::Values;
use super::to_url::{encode, write_hosts};
use super::url::{host_port, join_host};
use super::url_parts::UrlParts;
use super::value::Value;

const HOST: &str = "localhost";

/// Takes the hosts into the list of this name, with the port where they name none, and the login into `username` and
/// `password`. Without a host it is this one.
pub fn read_servers(parts: &UrlParts, values: &mut Values, option: &'static str, port: u16) {
    let one = |(host, given): &(String, Option<u16>)| join_host(host, Some(given.unwrap_or(port)));
    let hosts = match parts.hosts.as_slice() {
        [] => vec![join_host(HOST, Some(port))],
        hosts => hosts.iter().map(one).collect(),
    };
    values.set(option, Value::List(hosts));
    for (name, text) in [("username", &parts.user), ("password", &parts.password)] {
        if let Some(text) = text {
            values.set(name, Value::Text(text.clone()));
        }
    }
}

/// The reverse of [`read_servers`], without the password.
pub fn write_servers(values: &Values, option: &str, port: u16) -> String {
    let user = values.text("username").map(|user| format!("{}@", encode(user))).unwrap_or_default();
    let hosts = values.list(option).unwrap_or_default();
    let mut hosts: Vec<_> = hosts.iter().filter_map(|host| host_port(host).ok()).collect();
    if hosts.is_empty() {
        hosts.push((HOST.to_owned(), Some(port)));
    }
    format!("{user}{}", write_hosts(&hosts))
}
