//! A redis-server of one test.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, RedisResult, Value};
use tempfile::TempDir;

use crate::server::Certs;
#[cfg(target_os = "linux")]
use crate::server::Clock;
use crate::server::process::{self, Process};

/// The time that a server may take to start, and to answer one command.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// The options with which a [`Redis`] is started. Without options: no password, no persistence, 127.0.0.1 on a free
/// port.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    port: Option<u16>,
    fsync: Option<String>,
    password: Option<String>,
    args: Vec<String>,
    tls: bool,
    unix: bool,
    clock: bool,
}

impl RedisOptions {
    /// Returns the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Makes the server keep a log of all changes. `fsync` is `always`, `everysec` or `no`.
    pub fn appendonly(mut self, fsync: &str) -> Self {
        self.fsync = Some(fsync.to_owned());
        self
    }

    /// Makes the server ask for this password.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Makes the server listen with TLS as well, see [`Redis::tls`]. It checks a client's certificate if the client has
    /// one.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Makes the server listen on a socket file as well, see [`Redis::unix_path`].
    pub fn unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// Gives the server a wall clock of its own, see [`Redis::step_clock`]. Linux only.
    pub fn clock(mut self) -> Self {
        self.clock = true;
        self
    }

    /// Adds arguments of redis-server, which override all others.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }
}

/// A running server. When it is dropped, its process and its folder are removed.
pub struct Redis {
    options: RedisOptions,
    port: u16,
    tls: Option<(u16, Certs)>,
    #[cfg(target_os = "linux")]
    clock: Option<Clock>,
    connection: Mutex<Option<Connection>>,
    // The order of these fields is the order in which they are dropped.
    pub(super) process: Option<Process>,
    folder: TempDir,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("port", &self.port).field("process", &self.process).finish_non_exhaustive()
    }
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// If the server can't be started or doesn't answer in time, with the end of its log.
    pub fn start(options: &RedisOptions) -> Result<Self, String> {
        let mut tries = 5;
        loop {
            tries -= 1;
            match Self::start_once(options) {
                // Two tests may find the same port free.
                Err(error) if options.port.is_none() && tries > 0 && error.contains("Address already in use") => {}
                other => return other,
            }
        }
    }

    fn start_once(options: &RedisOptions) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let folder = process::folder().map_err(text)?;
        let port = options.port.map_or_else(process::port, Ok).map_err(text)?;
        let mut redis = Self {
            options: options.clone(),
            port,
            tls: None,
            #[cfg(target_os = "linux")]
            clock: options.clock.then(Clock::new).transpose()?,
            connection: Mutex::new(None),
            process: None,
            folder,
        };
        if options.tls {
            redis.tls = Some((process::port().map_err(text)?, Certs::make(redis.folder.path())?));
        }
        redis.restart().map(|()| redis)
    }

    /// Starts the server again with the same port, folder and clock, after killing it if it runs.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        let mut server = Process::start(self.line()).map_err(|error| format!("redis-server: {error}"))?;
        let end = Instant::now() + PATIENCE;
        // Another program's server on the same port would answer too.
        let ours = format!("process_id:{}\r\n", server.id());
        let ping = |redis: &Self| {
            redis.try_command::<Value>(&["PING"]).and_then(|_| redis.try_command::<String>(&["INFO", "server"]))
        };
        loop {
            let why = match ping(self) {
                Ok(info) if info.contains(&ours) => break,
                Ok(_) => "another server has its port".to_owned(),
                Err(error) => error.to_string(),
            };
            if let Some(status) = server.ended() {
                return Err(format!("redis-server ended with {status}: {}", self.log()));
            }
            if Instant::now() >= end {
                return Err(format!("redis-server doesn't answer ({why}): {}", self.log()));
            }
            std::thread::sleep(PAUSE);
        }
        self.process = Some(server);
        Ok(())
    }

    fn line(&self) -> Command {
        let mut line = Command::new("redis-server");
        line.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let port = self.port.to_string();
        line.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]);
        line.arg("--dir").arg(self.folder.path()).arg("--logfile").arg(self.log_path());
        if let Some(fsync) = &self.options.fsync {
            line.args(["--appendonly", "yes", "--appendfsync", fsync]);
        }
        if let Some(password) = &self.options.password {
            line.args(["--requirepass", password]);
        }
        if self.options.unix {
            line.arg("--unixsocket").arg(self.unix_path());
        }
        if let Some((port, certs)) = &self.tls {
            line.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "optional"]);
            line.arg("--tls-ca-cert-file").arg(&certs.ca);
            line.arg("--tls-cert-file").arg(&certs.server_cert).arg("--tls-key-file").arg(&certs.server_key);
        }
        line.args(&self.options.args);
        #[cfg(target_os = "linux")]
        if let Some(clock) = &self.clock {
            clock.put(&mut line);
        }
        line
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Returns the end of the log.
    pub fn log(&self) -> String {
        let text = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Returns the URL with the password.
    pub fn url(&self) -> String {
        format!("redis://{}{}", self.user(), self.addr())
    }

    fn user(&self) -> String {
        self.options.password.as_ref().map_or(String::new(), |password| format!(":{password}@"))
    }

    /// Returns the port for TLS, if the server was started with TLS.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls.as_ref().map(|(port, _)| *port)
    }

    /// Returns the port for TLS, the URL for TLS and the certificates.
    ///
    /// # Panics
    /// If the server was started without [`RedisOptions::tls`].
    pub fn tls(&self) -> (u16, String, &Certs) {
        let (port, certs) = self.tls.as_ref().expect("it was started with TLS");
        (*port, format!("rediss://{}localhost:{port}", self.user()), certs)
    }

    /// Returns the path of the socket file. It exists if the server was started with [`RedisOptions::unix`].
    pub fn unix_path(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Returns the server's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the id of the process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Runs a command and returns the reply.
    ///
    /// # Panics
    /// If there is an error, also one from the server.
    pub fn command(&self, words: &[&str]) -> Value {
        self.get(words)
    }

    /// Runs a command and returns the reply as text, a number or a list of them.
    ///
    /// # Panics
    /// If there is an error, also one from the server.
    pub fn get<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).unwrap_or_else(|error| panic!("{}: {error}", words.join(" ")))
    }

    /// Runs a command on a connection that is kept. A lost connection is replaced, and then the command may run twice.
    ///
    /// # Errors
    /// The errors of the server and of the connection.
    pub fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let mut kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = kept.as_mut() {
            match command.query(connection) {
                Err(error) if error.is_io_error() && !error.is_timeout() => *kept = None,
                other => return other,
            }
        }
        let connection = redis::Client::open(self.url())?.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        command.query(kept.insert(connection))
    }

    /// Returns the keys that match, in order.
    ///
    /// # Panics
    /// As for [`command`](Self::command).
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.get(&["KEYS", pattern]);
        keys.sort();
        keys
    }

    /// Returns a field of INFO.
    ///
    /// # Panics
    /// As for [`command`](Self::command).
    pub fn info(&self, section: &str, field: &str) -> Option<String> {
        let info: String = self.get(&["INFO", section]);
        info.lines().find_map(|line| Some(line.split_once(':').filter(|(name, _)| *name == field)?.1.to_owned()))
    }

    /// Kills the server with SIGKILL, if it runs. Its folder stays.
    pub fn kill(&mut self) {
        *self.connection.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        self.process = None;
    }

    /// Steps the server's wall clock at once. The change lasts as long as this value.
    ///
    /// # Panics
    /// If the server was started without [`RedisOptions::clock`], or no clock can have this time.
    #[cfg(target_os = "linux")]
    pub fn step_clock(&self, by: Duration, forwards: bool) {
        let clock = self.clock.as_ref().expect("it was started with a clock of its own");
        clock.step(by, forwards).expect("the clock's file can be written");
    }
}
