//! The MySQL backend in its mode `table`: a server whose cases have a database each.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dlock::config::{Value, Values};
use dlock::contract::Capabilities;
use percent_encoding::percent_decode_str;

use super::deployed::of_server;
use super::mysql::MySql;
use super::server::Remote;
use super::{
    Cases, Deployed, Deployment, Fault, Login, Request, ServerFault, Setup, TestBackend, TestServer, driver, flat,
};
use crate::server::Certs;
use crate::server::process::Process;

/// The time of the server, in microseconds.
const NOW: &str = "CAST(UNIX_TIMESTAMP(NOW(6))*1000000 AS UNSIGNED)";

/// The database of a URL without one.
const DATABASE: &str = "dlock";

/// The MySQL backend in its mode `table`.
#[derive(Debug)]
pub struct Backend;

impl TestBackend for Backend {
    fn name(&self) -> &'static str {
        "mysql-table"
    }

    fn driver(&self) -> &'static str {
        "mysql"
    }

    fn option(&self) -> Option<&'static str> {
        Some("mode=table")
    }

    fn capabilities(&self) -> Capabilities {
        let driver = driver(self.driver());
        let mut values = Values::new(driver.schema);
        values.set("mode", Value::Text("table".to_owned()));
        (driver.capabilities)(&values)
    }

    fn outside(&self) -> &'static [&'static str] {
        &["outside", "longer", "breaks", "names"]
    }

    fn cases(&self, _: &Path) -> Result<Box<dyn Cases>, String> {
        Ok(Box::new(Databases(MySqlTable::start(Setup::default())?)))
    }

    fn deployments(&self) -> &'static [Deployment] {
        &[Deployment { word: "mysql-table", start: deploy }]
    }

    /// Returns the longest time for which the lock of a dead process stays. A request that it has sent may be executed a
    /// little later.
    fn outlives(&self, ttl: Duration) -> Duration {
        ttl + Duration::from_millis(500)
    }

    fn faults(&self) -> &'static [Fault] {
        &[Fault::Server, Fault::Deletion, Fault::Reconnect, Fault::Names]
    }

    fn remote(&self) -> Option<&'static dyn Remote> {
        Some(&Self)
    }
}

/// A server with a database for each case.
struct Databases(MySqlTable);

impl Cases for Databases {
    fn url(&self, case: &str) -> Result<String, String> {
        Ok(format!("mysql://{}/{}?mode=table", self.0.addr(), flat(case)))
    }

    fn act(&self, case: &str, words: &[&str]) -> Result<(), String> {
        let database = flat(case);
        let table = format!("`{database}`.dlock_locks");
        let sql = match words {
            ["remove", key] => format!("DELETE FROM {table} WHERE name={}", literal(key)),
            ["replace", key] => format!(
                "REPLACE INTO {table} SELECT {},1,{NOW}+300000,CONCAT('other x 1 ',{NOW}+300000,' ',{NOW},' - 1%20other%200%20\\n')",
                literal(key)
            ),
            ["wipe"] => format!("DELETE FROM {table}"),
            other => return Err(format!("MySQL can't do {other:?}")),
        };
        self.0.server.try_rows(&sql).map(drop).map_err(|error| error.to_string())
    }
}

fn literal(text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{hex}'")
}

/// A server whose clients have their locks in a table.
#[derive(Debug)]
pub struct MySqlTable {
    server: MySql,
}

/// A claim, as the table has it.
#[derive(Debug)]
struct Place {
    key: String,
    fence: u64,
    left: Duration,
    token: String,
}

impl Place {
    fn read(key: &str, now: u64, line: &str) -> Option<Self> {
        let [id, _, fence, expires, _, _, record] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
        let record = percent_decode_str(record).decode_utf8_lossy().into_owned();
        let (length, rest) = record.strip_prefix("1 ")?.split_once(' ')?.1.split_once(' ')?;
        let token = &rest[..length.parse().ok()?];
        let token = if token.is_empty() { id } else { token }.to_owned();
        let left = Duration::from_micros(expires.parse::<u64>().ok()?.saturating_sub(now));
        Some(Self { key: key.to_owned(), fence: fence.parse().ok()?, left, token })
    }
}

impl MySqlTable {
    /// Starts a server.
    ///
    /// # Errors
    /// As for [`MySql::start`].
    pub fn start(setup: Setup) -> Result<Self, String> {
        Ok(Self { server: MySql::start(setup)? })
    }

    /// Returns the server.
    pub fn server(&self) -> &MySql {
        &self.server
    }

    /// Returns the claims of all locks that have not expired, in their order.
    fn places(&self) -> Vec<Place> {
        let sql =
            format!("SELECT CONCAT(HEX(name),' ',{NOW},'\\n',claims) FROM `{DATABASE}`.dlock_locks ORDER BY name");
        // Without a table there is no lock.
        let rows = self.server.try_rows(&sql).unwrap_or_default();
        let of_row = |row: String| -> Vec<Place> {
            let (first, claims) = row.split_once('\n').expect("two parts");
            let (name, now) = first.split_once(' ').expect("a name and a time");
            let bytes = (0..name.len()).step_by(2).map(|at| u8::from_str_radix(&name[at..at + 2], 16).expect("hex"));
            let key = String::from_utf8(bytes.collect()).expect("a key");
            let now = now.parse().expect("a time");
            claims.lines().map(|line| Place::read(&key, now, line).expect("a claim")).collect()
        };
        rows.into_iter().flat_map(of_row).filter(|place| !place.left.is_zero()).collect()
    }

    fn holder(&self, key: &str) -> Option<Place> {
        self.places().into_iter().find(|place| place.key == key && place.fence > 0)
    }
}

impl TestServer for MySqlTable {
    fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    fn url(&self) -> String {
        format!("{}?mode=table", TestServer::url(&self.server))
    }

    fn certs(&self) -> Certs {
        self.server.certs()
    }

    fn process(&self) -> Option<&Process> {
        self.server.process()
    }

    fn kill(&mut self) {
        self.server.kill();
    }

    fn restart(&mut self) -> Result<(), String> {
        self.server.restart()
    }

    fn queue(&self, key: &str) -> Vec<String> {
        self.places().into_iter().filter(|place| place.key == key).map(|place| place.token).collect()
    }

    fn owner(&self, key: &str) -> Option<String> {
        self.holder(key).map(|place| place.token)
    }

    fn fence(&self, key: &str) -> Option<u64> {
        self.holder(key).map(|place| place.fence)
    }

    fn time_left(&self, key: &str) -> Duration {
        self.holder(key).map(|place| place.left).unwrap_or_default()
    }

    fn left_over(&self) -> Vec<String> {
        self.places().into_iter().map(|place| place.key).collect()
    }

    fn requests(&self) -> u64 {
        self.server.requests()
    }

    fn remove(&self, key: &str) {
        self.server.rows(&format!("DELETE FROM `{DATABASE}`.dlock_locks WHERE name={}", literal(key)));
    }

    fn fill(&self) {
        unreachable!("no server is small enough to be filled within a moment");
    }

    fn make_room(&self) {
        unreachable!("no server is small enough to be filled within a moment");
    }
}

impl Remote for Backend {
    fn start(&self, setup: Setup) -> Result<Box<dyn TestServer>, String> {
        Ok(Box::new(MySqlTable::start(setup)?))
    }

    fn pattern(&self, request: Request, key: &str) -> String {
        let (table, key) = (format!("`{DATABASE}`.dlock_locks"), literal(key));
        match request {
            Request::Acquire => format!("INSERT IGNORE INTO {table} (name, version, expires, claims) SELECT {key}"),
            Request::Release => format!("DELETE FROM {table} WHERE name={key}"),
        }
    }

    fn takes_back_within(&self) -> Duration {
        Duration::from_millis(1500)
    }

    fn login(&self) -> Login {
        super::mysql::Backend.login()
    }

    fn size_setting(&self) -> &'static str {
        "max_connections"
    }
}

fn deploy() -> Result<Arc<dyn Deployed>, String> {
    Ok(Arc::new(MySqlTable::start(Setup::default())?))
}

impl Deployed for MySqlTable {
    fn addrs(&self) -> Vec<SocketAddr> {
        vec![self.addr()]
    }

    fn url(&self, addrs: &[SocketAddr]) -> String {
        format!("mysql://{}?mode=table", addrs[0])
    }

    fn version(&self) -> Option<String> {
        self.server.try_rows("SELECT VERSION()").ok()?.pop()
    }

    fn faults(self: Arc<Self>) -> Vec<Box<dyn ServerFault>> {
        of_server(&self, &[("client-kill", kill_clients), ("statement-killed", kill_statements)])
    }
}

fn kill_clients(table: &MySqlTable) -> Result<(), String> {
    table.server.kill_sessions(table.server.clients());
    Ok(())
}

/// Ends whatever statement each session runs just now.
fn kill_statements(table: &MySqlTable) -> Result<(), String> {
    for id in table.server.clients() {
        // It may have ended in the meantime.
        let _ = table.server.try_rows(&format!("KILL QUERY {id}"));
    }
    Ok(())
}
