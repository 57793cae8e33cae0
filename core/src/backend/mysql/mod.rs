//! `mysql://`, `mysqls://`: one MySQL or MariaDB server.
//!
//! What each mode does, what it promises and what breaks it: README.md in this folder.

mod asks;
mod connection;
mod contender;
mod error;
mod get_lock;
mod grant;
mod keys;
mod session;
mod sessions;
mod shared;
mod statements;
mod table;
mod table_contender;
mod table_grant;
mod table_rows;
mod table_state;

use std::sync::Arc;
use std::time::Duration;

use self::shared::GetLock;
use self::table::Table;
use crate::config::{
    Config, OptionSpec, Schema, Scheme, UrlParts, Value, ValueKind, Values, encode, encode_path, write_hosts,
};
use crate::contract::{Backend, Capabilities, Context, Driver};
use crate::error::{Error, Result};

/// The backend's entry in the table of drivers.
pub static DRIVER: Driver = Driver { schema: &SCHEMA, capabilities, connect };

/// The names and options of the backend.
pub static SCHEMA: Schema = Schema {
    name: "mysql",
    schemes: &[Scheme { name: "mysql", tls: false, mode: None }, Scheme { name: "mysqls", tls: true, mode: None }],
    options: &[
        OptionSpec::of_service("host", ValueKind::Text),
        OptionSpec::of_service("port", ValueKind::Count),
        OptionSpec::of_service("username", ValueKind::Text),
        OptionSpec { secret: true, ..OptionSpec::of_service("password", ValueKind::Text) },
        OptionSpec::of_service("dbname", ValueKind::Text),
        OptionSpec { url: true, ..OptionSpec::of_service("mode", ValueKind::Choice(&["get_lock", "table"])) },
        OptionSpec { env: false, url: true, ..OptionSpec::of_service("socket", ValueKind::Text) },
        OptionSpec { env: false, url: true, ..OptionSpec::of_service("collateral", ValueKind::Flag) },
        OptionSpec { env: false, url: true, ..OptionSpec::of_service("tls", ValueKind::Flag) },
    ],
    service: true,
    parts,
    authority,
};

/// Returns true if the locks are rows of a table.
fn is_table(values: &Values) -> bool {
    values.text("mode") == Some("table")
}

fn capabilities(values: &Values) -> Capabilities {
    let is_table = is_table(values);
    Capabilities {
        fence: true,
        ttl: true,
        fifo: true,
        shared: is_table,
        permits: is_table,
        handoff: false,
        processes: true,
        fork: true,
        local: false,
        min_ttl: Duration::from_secs(1),
        guarantee: if is_table {
            "one server's data and wall clock"
        } else {
            "one server's memory, and its count of a silent session's time"
        },
    }
}

fn connect(config: &Config, context: Context) -> Result<Arc<dyn Backend>> {
    if is_table(config.values()) {
        return Ok(Arc::new(Table::new(config, context)?));
    }
    Ok(Arc::new(GetLock::new(config, context)?))
}

fn parts(parts: &UrlParts, values: &mut Values) -> Result<()> {
    match parts.hosts.as_slice() {
        [] => {}
        [(host, port)] => {
            values.set("host", Value::Text(host.clone()));
            if let Some(port) = port {
                values.set("port", Value::Count((*port).into()));
            }
        }
        several => {
            return Err(Error::invalid(format!(
                "{} addresses are given, but one MySQL has one: give the others to clients of their own",
                several.len()
            )));
        }
    }
    for (name, text) in [("username", &parts.user), ("password", &parts.password)] {
        if let Some(text) = text {
            values.set(name, Value::Text(text.clone()));
        }
    }
    match parts.path.trim_start_matches('/') {
        "" => {}
        dbname => values.set("dbname", Value::Text(dbname.to_owned())),
    }
    Ok(())
}

fn authority(values: &Values) -> String {
    let user = values.text("username").map(|user| format!("{}@", encode(user))).unwrap_or_default();
    let port = values.count("port").and_then(|port| u16::try_from(port).ok());
    let host = write_hosts(&[(values.text("host").unwrap_or("localhost").to_owned(), port)]);
    let dbname = values.text("dbname").map(|dbname| encode_path(&format!("/{dbname}"))).unwrap_or_default();
    format!("{user}{host}{dbname}")
}
