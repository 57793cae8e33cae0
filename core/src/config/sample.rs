//! A made-up driver for the unit tests: several hosts, user, secret, list, modes, TLS.

use super::{Opt, Parts, Scheme, Value, Values, Want, encode, host_port, write_hosts};
use crate::backend::{DRIVERS, Driver};
use crate::error::{Error, Result};

use super::option::Drivers;

const fn opt(name: &'static str, want: Want, url: bool) -> Opt {
    Opt { name, want, secret: false, env: true, yaml: true, url }
}

/// One service with everything, and one that is only there to be chosen from.
pub(super) static DEPOT: Driver = Driver {
    name: "depot",
    schemes: &[
        Scheme { name: "depot", tls: false, mode: Some("single") },
        Scheme { name: "depots", tls: true, mode: Some("single") },
        Scheme { name: "depot+many", tls: false, mode: Some("many") },
    ],
    options: &[
        opt("addrs", Want::List, false),
        opt("username", Want::Text, false),
        Opt { secret: true, ..opt("password", Want::Text, false) },
        opt("db", Want::Count, false),
        opt("dial_timeout", Want::Time, true),
        opt("tls", Want::Flag, true),
        opt("mode", Want::Choice(&["single", "many"]), false),
    ],
    service: true,
    parts,
    authority,
    capability: || unreachable!("not asked for by configuration"),
    connect: |_, _| unreachable!("configuration does no I/O"),
};

pub(super) static SHELF: Driver = Driver {
    name: "shelf",
    schemes: &[Scheme { name: "shelf", tls: false, mode: None }],
    options: &[opt("mode", Want::Choice(&["plain", "table"]), true)],
    service: true,
    parts: |_, _| Ok(()),
    authority: |_| "h".to_owned(),
    capability: || unreachable!("not asked for by configuration"),
    connect: |_, _| unreachable!("configuration does no I/O"),
};

/// The made-up drivers beside the real ones.
pub(super) fn drivers() -> Drivers {
    let all: Vec<&'static Driver> = [&DEPOT, &SHELF].into_iter().chain(DRIVERS.iter().copied()).collect();
    Box::leak(all.into_boxed_slice())
}

fn parts(parts: &Parts, values: &mut Values) -> Result<()> {
    if !parts.hosts.is_empty() {
        let hosts = parts.hosts.iter().map(|(host, port)| super::join_host(host, Some(port.unwrap_or(77)))).collect();
        values.set("addrs", Value::List(hosts));
    }
    let texts = [("username", &parts.user), ("password", &parts.password)];
    for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))) {
        values.set(name, Value::Text(text));
    }
    match parts.path.trim_start_matches('/') {
        "" => Ok(()),
        db => {
            let db = db.parse().map_err(|_| Error::invalid("the path of a depot URL is the number of its database"))?;
            values.set("db", Value::Count(db));
            Ok(())
        }
    }
}

fn authority(values: &Values) -> String {
    let user = values.text("username").map(|user| format!("{}@", encode(user))).unwrap_or_default();
    let hosts: Vec<_> =
        values.list("addrs").unwrap_or_default().iter().filter_map(|addr| host_port(addr).ok()).collect();
    let db = values.count("db").map(|db| format!("/{db}")).unwrap_or_default();
    format!("{user}{}{db}", write_hosts(&hosts))
}
