//! A made-up schema for the unit tests: several hosts, user, secret, list, modes, TLS.

use super::{OptionSpec, Schema, Scheme, UrlParts, Value, ValueKind, Values, encode, host_port, write_hosts};
use crate::error::{Error, Result};

use super::schema::Schemas;

const fn opt(name: &'static str, kind: ValueKind, url: bool) -> OptionSpec {
    OptionSpec { name, kind, secret: false, env: true, yaml: true, url }
}

/// One service with everything, and one that is only there to be chosen from.
pub(super) static DEPOT: Schema = Schema {
    name: "depot",
    schemes: &[
        Scheme { name: "depot", tls: false, mode: Some("single") },
        Scheme { name: "depots", tls: true, mode: Some("single") },
        Scheme { name: "depot+many", tls: false, mode: Some("many") },
    ],
    options: &[
        opt("addrs", ValueKind::List, false),
        opt("username", ValueKind::Text, false),
        OptionSpec { secret: true, ..opt("password", ValueKind::Text, false) },
        opt("db", ValueKind::Count, false),
        opt("dial_timeout", ValueKind::Time, true),
        opt("tls", ValueKind::Flag, true),
        opt("mode", ValueKind::Choice(&["single", "many"]), false),
    ],
    service: true,
    parts,
    authority,
};

pub(super) static SHELF: Schema = Schema {
    name: "shelf",
    schemes: &[Scheme { name: "shelf", tls: false, mode: None }],
    options: &[opt("mode", ValueKind::Choice(&["plain", "table"]), true)],
    service: true,
    parts: |_, _| Ok(()),
    authority: |_| "h".to_owned(),
};

/// The made-up schemas beside the real ones.
pub(super) fn schemas() -> Schemas {
    let all: Vec<&'static Schema> =
        [&DEPOT, &SHELF].into_iter().chain(crate::drivers::SCHEMAS.iter().copied()).collect();
    Box::leak(all.into_boxed_slice())
}

fn parts(parts: &UrlParts, values: &mut Values) -> Result<()> {
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
