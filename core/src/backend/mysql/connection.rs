//! Connections, which mysql_async makes and speaks over. Each belongs to one session.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{ClientIdentity, Error as DriverError, OptsBuilder, Row, SslOpts};

use super::error::{self, SERVICE};
use crate::config::{Config, join_host};
use crate::error::{Error, Result};
use crate::net::address::Address;
use crate::net::failure::{Failure, connect_timeout, of_io};
use crate::net::request::{Limits, answer_within};
use crate::net::tls;

pub(super) const PORT: u16 = 3306;

/// The largest answer: the rows of many contenders.
const LARGEST: usize = 16 << 20;

/// The server of a client, and how it is reached.
pub(super) struct Server {
    config: Config,
    address: Address,
    /// The path of a Unix socket, which is used instead of the address.
    socket: Option<String>,
    name: String,
}

/// A connection to the server.
pub(super) struct Conn {
    driver: mysql_async::Conn,
    /// The session's id at the server.
    pub(super) id: u64,
    pub(super) is_mariadb: bool,
    /// True if the server is a node of a Galera cluster.
    pub(super) is_galera: bool,
    /// True if something between us and the server has a session of its own there.
    pub(super) is_pooled: bool,
    name: Arc<str>,
}

/// The rows of one statement.
pub(super) type Rows = Vec<Row>;

impl Server {
    /// Reads the configuration. No I/O, but for the files of TLS.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let values = config.values();
        let host = values.text("host").unwrap_or("localhost");
        let port = match values.count("port") {
            None => PORT,
            Some(port) => u16::try_from(port)
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| Error::invalid(format!("port {port} is no port: give 1 to 65535")))?,
        };
        let address = Address::new(&join_host(host, Some(port)), PORT, config)?;
        let socket = values.text("socket").map(str::to_owned);
        if socket.is_some() && address.has_tls() {
            return Err(Error::invalid("a Unix socket has no TLS: leave out tls, or socket"));
        }
        let name = socket.clone().unwrap_or_else(|| address.to_string());
        Ok(Self { config: config.clone(), address, socket, name })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the limits of a request.
    pub(super) fn limits(&self, patience: Duration) -> Limits {
        Limits { patience, budget: self.config.connect_timeout() }
    }

    /// Returns the error of a server that is silent.
    pub(super) fn silence(&self, what: &str) -> Error {
        Error::unavailable(format!(
            "{SERVICE} at {}: {what}; is it overloaded or stopped, or the network cut{}?",
            self.name,
            self.address.hint()
        ))
    }

    /// Connects, within the time of a connection.
    pub(super) async fn connect(&self) -> Result<Conn> {
        let limit = self.config.connect_timeout();
        let timeout = || Err(connect_timeout(SERVICE, &self.address, limit, "connect_timeout"));
        let conn = answer_within(limit, self.connected()).await.unwrap_or_else(timeout)?;
        self.address.was_reached();
        Ok(conn)
    }

    async fn connected(&self) -> Result<Conn> {
        let options = self.options().await?;
        let made = match &self.socket {
            Some(path) => mysql_async::Conn::new(options.socket(Some(path))).await,
            None => {
                let connect = |to: SocketAddr| {
                    mysql_async::Conn::new(options.clone().resolved_ips(Some(vec![to.ip()])).tcp_port(to.port()))
                };
                self.address.connect_by(connect).await
            }
        };
        let conn = Conn {
            driver: made.map_err(|error| self.refusal(&error))?,
            id: 0,
            is_mariadb: false,
            is_galera: false,
            is_pooled: false,
            name: self.name.as_str().into(),
        };
        conn.known().await.map_err(|failure| failure.error)
    }

    /// Returns the driver's options but for the address to connect to.
    async fn options(&self) -> Result<OptsBuilder> {
        let values = self.config.values();
        let text = |option| values.text(option).map(str::to_owned);
        let mut options = OptsBuilder::default()
            .ip_or_hostname(self.address.host())
            .user(text("username"))
            .pass(text("password"))
            .prefer_socket(false)
            // The table of leases names its database in each statement: it may not be there yet.
            .db_name(None::<String>)
            .stmt_cache_size(0)
            // Without these two the driver asks for them.
            .max_allowed_packet(Some(LARGEST))
            .wait_timeout(Some(28_800))
            .tcp_keepalive(Some(Duration::from_secs(10)))
            // A password in clear is for a connection that nobody reads.
            .enable_cleartext_plugin(self.address.has_tls() || self.socket.is_some());
        if self.address.has_tls() {
            tls::use_ring();
            // The driver's errors don't name the file.
            self.address.read_files().await.map_err(|why| of_io(SERVICE, &why, &self.address))?;
            let roots = match text("ca") {
                Some(path) => vec![PathBuf::from(path).into()],
                None => {
                    let all = tls::system_certificates().await.map_err(|why| of_io(SERVICE, &why, &self.address))?;
                    all.into_iter().map(|one| one.to_vec().into()).collect()
                }
            };
            let path = |path: String| PathBuf::from(path);
            let identity = text("cert").zip(text("key"));
            let identity = identity.map(|(cert, key)| ClientIdentity::new(path(cert).into(), path(key).into()));
            let mut ssl = SslOpts::default()
                .with_disable_built_in_roots(true)
                .with_root_certs(roots)
                .with_client_identity(identity);
            if let Some(name) = text("sni") {
                ssl = ssl.with_danger_tls_hostname_override(Some(name));
            }
            options = options.ssl_opts(ssl);
        }
        Ok(options)
    }

    /// Returns the error of a connection that could not be made.
    fn refusal(&self, error: &DriverError) -> Error {
        use mysql_async::{DriverError as Of, IoError};
        match error {
            DriverError::Io(IoError::Io(why)) => of_io(SERVICE, why, &self.address),
            DriverError::Io(IoError::Tls(why)) => {
                of_io(SERVICE, &std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_string()), &self.address)
            }
            DriverError::Driver(Of::NoClientSslFlagFromServer) => Error::refused(format!(
                "{SERVICE} at {} has no TLS: switch it on there, or use mysql://",
                self.name
            )),
            DriverError::Driver(Of::CleartextPluginDisabled) => Error::refused(format!(
                "{SERVICE} at {} asks for the password in clear: use mysqls://, or a Unix socket",
                self.name
            )),
            DriverError::Driver(Of::UnknownAuthPlugin { name }) => Error::refused(format!(
                "{SERVICE} at {} asks for a login by {name}, which dlock doesn't know: use another plugin for this user",
                self.name
            )),
            error => error::of(error, &self.name).error,
        }
    }
}

impl Conn {
    /// Asks the server what it is.
    async fn known(mut self) -> Result<Self, Failure> {
        let text = "SELECT CONNECTION_ID(), VERSION(); SHOW GLOBAL VARIABLES LIKE 'wsrep_on'";
        let [about, wsrep] = &mut self.run(text).await?[..] else { return Err(self.unreadable()) };
        let Some((id, version)) = about.pop().and_then(|row| mysql_async::from_row_opt::<(u64, String)>(row).ok()) else {
            return Err(self.unreadable());
        };
        let wsrep = wsrep.pop().and_then(|row| mysql_async::from_row_opt::<(String, String)>(row).ok());
        self.is_galera = wsrep.is_some_and(|(_, on)| on.eq_ignore_ascii_case("on"));
        // The id of the greeting is that of whatever greets.
        self.is_pooled = u64::from(self.driver.id()) != id & u64::from(u32::MAX);
        self.is_mariadb = version.contains("MariaDB");
        self.id = id;
        Ok(self)
    }

    /// Runs statements, and returns the rows of each.
    pub(super) async fn try_run(&mut self, sql: &str) -> Result<Vec<Rows>, DriverError> {
        let mut result = self.driver.query_iter(sql).await?;
        let mut all = Vec::with_capacity(1);
        loop {
            all.push(result.collect().await?);
            if result.is_empty() {
                // The driver keeps the error of a later statement for whoever asks next.
                let _: Rows = result.collect().await?;
                return Ok(all);
            }
        }
    }

    /// Runs statements as [`try_run`](Self::try_run).
    pub(super) async fn run(&mut self, sql: &str) -> Result<Vec<Rows>, Failure> {
        let name = self.name.clone();
        self.try_run(sql).await.map_err(|error| error::of(&error, &name))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the failure of an answer that can't be read.
    pub(super) fn unreadable(&self) -> Failure {
        Failure::not_applied(Error::unavailable(format!("{SERVICE} at {} gave an answer of another form", self.name)))
    }

    /// Ends the session.
    pub(super) async fn quit(self) {
        let _ = self.driver.disconnect().await;
    }
}
