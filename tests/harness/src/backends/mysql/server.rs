//! A server of its own, and a connection that looks into it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use dlock::Lease;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, OptsBuilder, Row, Value};
use tempfile::TempDir;

use crate::backends::{Setup, TestServer};
use crate::server::process::{self, Process};
use crate::server::{Certs, Clock};

/// The time that a server may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The variable that names a folder in which a MySQL was unpacked, to be used instead of the machine's MariaDB.
const MYSQL: &str = "MYSQL_DIR";

/// The words of the log of a server whose port is in use.
const TAKEN: &str = "Address already in use";

/// The memory and the files of a server that holds next to nothing.
const SMALL: [&str; 2] = ["--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=1"];

/// A running server. When it is dropped, its process and its folder are removed.
#[derive(Debug)]
pub struct MySql {
    pub(super) port: u16,
    setup: Setup,
    /// More options of the server's command line.
    options: Vec<String>,
    pub(super) certs: Option<Certs>,
    clock: Option<Clock>,
    // The order of these fields is the order in which they are dropped.
    pub(super) process: Option<Process>,
    folder: TempDir,
}

/// The program, and what it needs to be started.
struct Program {
    command: fn() -> Command,
    /// A folder with the data of a new server.
    template: TempDir,
    is_mariadb: bool,
}

fn mariadb() -> Command {
    let mut command = Command::new("mariadbd");
    command.args(["--no-defaults", "--user=root", "--innodb-log-file-size=8M", "--plugin-load-add=metadata_lock_info"]);
    command
}

fn mysql() -> Command {
    let root = std::env::var(MYSQL).unwrap_or_default();
    let libraries = format!("{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu");
    let mut command = Command::new(format!("{root}/usr/lib64/ld-linux-x86-64.so.2"));
    command.args(["--library-path", &libraries, &format!("{root}/usr/sbin/mysqld")]);
    command.args(["--no-defaults", "--user=root", "--secure-file-priv=", "--mysqlx=OFF"]);
    command.arg(format!("--lc-messages-dir={root}/usr/share/mysql"));
    command
}

/// Returns the program, after it has made the data of a new server.
fn program() -> Result<&'static Program, String> {
    static PROGRAM: OnceLock<Result<Program, String>> = OnceLock::new();
    let made = PROGRAM.get_or_init(|| {
        let template = process::folder().map_err(|error| error.to_string())?;
        let data = template.path().join("data");
        let is_mariadb = std::env::var_os(MYSQL).is_none();
        let mut install = if is_mariadb { Command::new("mariadb-install-db") } else { mysql() };
        if is_mariadb {
            install.args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal"]);
            install.args(["--skip-test-db", "--innodb-log-file-size=8M"]);
        } else {
            install.arg("--initialize-insecure");
        }
        // The files of several programs in one folder would be in each other's way.
        install.args([format!("--datadir={}", data.display()), format!("--tmpdir={}", template.path().display())]);
        let done = install.stdin(Stdio::null()).output().map_err(|error| format!("mariadb-install-db: {error}"))?;
        if !done.status.success() {
            return Err(format!("no data for a server: {}", String::from_utf8_lossy(&done.stderr)));
        }
        Ok(Program { command: if is_mariadb { mariadb } else { mysql }, template, is_mariadb })
    });
    made.as_ref().map_err(Clone::clone)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            let _ = std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Connects by a server's Unix socket, as the user who may do everything.
async fn connect(socket: &Path) -> Result<Conn, Error> {
    let options = OptsBuilder::default().user(Some("root")).socket(socket.to_str()).prefer_socket(false);
    Conn::new(options.max_allowed_packet(Some(1 << 24)).wait_timeout(Some(28_800))).await
}

/// A session of another client.
#[derive(Debug)]
pub struct Other(Mutex<(tokio::runtime::Runtime, Conn)>);

impl Other {
    /// Runs statements, and returns the first column of the last one's rows. NULL is left out.
    ///
    /// # Errors
    /// Those of the server.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<String>, Error> {
        let (runtime, conn) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runtime.block_on(async {
            let mut result = conn.query_iter(sql).await?;
            let mut rows: Vec<Row> = result.collect().await?;
            while !result.is_empty() {
                rows = result.collect().await?;
            }
            Ok(rows.into_iter().filter_map(text).collect())
        })
    }

    /// Runs statements as [`try_rows`](Self::try_rows).
    ///
    /// # Panics
    /// If the server refuses them.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        self.try_rows(sql).expect("the server answers")
    }
}

/// Runs something with a runtime of its own.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

/// Returns the only value of a row as a text.
fn text(row: Row) -> Option<String> {
    match row.unwrap().into_iter().next()? {
        Value::NULL => None,
        value => Some(mysql_async::from_value(value)),
    }
}

impl MySql {
    /// Starts a server and waits until it serves.
    ///
    /// # Errors
    /// If the server can't be started or doesn't serve in time, with the end of its log.
    pub fn start(setup: Setup) -> Result<Self, String> {
        Self::with_options(setup, &[])
    }

    /// Returns true if the servers are MariaDB's.
    pub fn is_mariadb() -> bool {
        program().is_ok_and(|program| program.is_mariadb)
    }

    /// Starts a server with more options on its command line.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn with_options(setup: Setup, options: &[&str]) -> Result<Self, String> {
        let mut tries = 5;
        loop {
            tries -= 1;
            let mut server = Self::new(setup, options)?;
            match server.launch().and_then(|()| server.served()) {
                // Another program may have taken the port.
                Err(error) if tries > 0 && error.contains(TAKEN) => {}
                served => return served.map(|()| server),
            }
        }
    }

    /// Starts a server with a wall clock of its own, see [`step_clock`](Self::step_clock). Linux only.
    ///
    /// # Errors
    /// As for [`start`](Self::start), and if the clock can't be made.
    pub fn with_clock() -> Result<Self, String> {
        let mut server = Self::new(Setup::default(), &[])?;
        server.clock = Some(Clock::new()?);
        server.launch()?;
        server.served().map(|()| server)
    }

    /// Steps the server's wall clock at once. The change lasts as long as this value.
    ///
    /// # Panics
    /// If the server was started without a clock, or no clock can have this time.
    pub fn step_clock(&self, by: Duration, forwards: bool) {
        self.clock.as_ref().expect("it has a clock").step(by, forwards).expect("a time");
    }

    fn new(setup: Setup, options: &[&str]) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let folder = process::folder().map_err(text)?;
        let certs = setup.tls.then(|| Certs::make(folder.path())).transpose()?;
        copy(&program()?.template.path().join("data"), &folder.path().join("data")).map_err(text)?;
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Ok(Self { port: process::port().map_err(text)?, setup, options, certs, clock: None, process: None, folder })
    }

    fn launch(&mut self) -> Result<(), String> {
        let folder = self.folder.path();
        let path = |name: &str| folder.join(name).display().to_string();
        let mut users = String::new();
        if self.setup.login {
            // A server that asks for a login, and the user of the tests.
            users +=
                "CREATE USER IF NOT EXISTS 'app'@'%' IDENTIFIED BY 'swordfish-4711';\nGRANT ALL ON *.* TO 'app'@'%';\n";
        } else {
            users += "CREATE USER IF NOT EXISTS ''@'%';\nGRANT ALL ON *.* TO ''@'%';\n";
        }
        std::fs::write(path("init.sql"), users).map_err(|error| error.to_string())?;
        let program = program()?;
        let log = std::fs::File::create(self.log_path()).map_err(|error| error.to_string())?;
        let mut line = (program.command)();
        line.args([
            format!("--datadir={}", path("data")),
            format!("--socket={}", path("socket")),
            format!("--tmpdir={}", folder.display()),
        ]);
        line.args([format!("--port={}", self.port), format!("--init-file={}", path("init.sql"))]);
        line.args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--max-connections=1000"]).args(SMALL);
        line.args(&self.options);
        if let Some(certs) = &self.certs {
            for (option, path) in [("ca", &certs.ca), ("cert", &certs.server_cert), ("key", &certs.server_key)] {
                line.arg(format!("--ssl-{option}={}", path.display()));
            }
        }
        if self.setup.tls {
            line.arg("--require-secure-transport=ON");
        }
        if program.is_mariadb {
            line.arg("--skip-log-bin");
        }
        line.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(clock) = &self.clock {
            clock.put(&mut line);
        }
        self.process = Some(Process::start(line).map_err(|error| format!("mariadbd: {error}"))?);
        Ok(())
    }

    fn served(&mut self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.as_mut().and_then(Process::ended) {
                return Err(format!("the server ended with {status}: {}", self.log()));
            }
            if TcpStream::connect(self.addr()).is_ok() && self.try_rows("SELECT 1").is_ok() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!("the server doesn't serve: {}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Returns the end of the log.
    pub fn log(&self) -> String {
        let text = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }

    /// Returns the path of the server's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Returns a new connection of another client, through the server's Unix socket.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn other_client(&self) -> Result<Conn, Error> {
        connect(&self.socket()).await
    }

    /// Returns a session of another client, which runs one statement after another.
    ///
    /// # Panics
    /// If the server refuses it.
    pub fn session(&self) -> Other {
        self.try_session().expect("the server answers")
    }

    /// Returns a session of another client as [`session`](Self::session).
    ///
    /// # Errors
    /// Those of the server.
    pub fn try_session(&self) -> Result<Other, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let conn = runtime.block_on(self.other_client())?;
        Ok(Other(Mutex::new((runtime, conn))))
    }

    /// Runs statements on a session of their own, as [`Other::try_rows`].
    ///
    /// # Errors
    /// Those of the server.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<String>, Error> {
        self.try_session()?.try_rows(sql)
    }

    /// Runs statements as [`try_rows`](Self::try_rows).
    ///
    /// # Panics
    /// If the server refuses them.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        self.try_rows(sql).expect("the server answers")
    }

    /// Returns the id of the session that holds a lock.
    pub fn holder(&self, name: &str) -> Option<String> {
        self.rows(&format!("SELECT IS_USED_LOCK('{name}')")).pop()
    }

    /// Returns the statement for the ids of the sessions that wait for a lock.
    pub fn waiting(name: &str) -> String {
        format!(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE ID<>CONNECTION_ID() AND STATE='User lock' AND INFO LIKE \
             '%GET_LOCK(''{name}'',%' ORDER BY TIME DESC, ID"
        )
    }

    /// Returns the ids of the sessions that wait for a lock.
    pub fn waiters(&self, name: &str) -> Vec<String> {
        self.rows(&Self::waiting(name))
    }

    /// Returns the ids of all sessions of clients.
    pub fn clients(&self) -> Vec<String> {
        self.rows(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE ID<>CONNECTION_ID() AND USER NOT IN ('system user', \
             'event_scheduler')",
        )
    }

    /// Ends sessions. One that has ended already is none.
    pub fn kill_sessions(&self, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            let _ = self.try_rows(&format!("KILL {id}"));
        }
    }

    /// Returns the names of all locks of GET_LOCK that are held.
    pub fn held(&self) -> Vec<String> {
        let mariadb = "SELECT TABLE_SCHEMA FROM information_schema.METADATA_LOCK_INFO WHERE LOCK_TYPE='User lock'";
        let mysql = "SELECT OBJECT_NAME FROM performance_schema.metadata_locks WHERE OBJECT_TYPE='USER LEVEL LOCK' AND \
                     LOCK_STATUS='GRANTED'";
        self.rows(if Self::is_mariadb() { mariadb } else { mysql })
    }

    /// Lets another client hold a lock for this time. Returns when it has the lock.
    ///
    /// # Errors
    /// If the lock is busy.
    pub fn hold(&self, name: &str, time: Duration) -> Result<(), String> {
        let (name, socket) = (name.to_owned(), self.socket());
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            run(async move {
                let mut conn = connect(&socket).await.map_err(|error| error.to_string())?;
                let got: Option<Option<u8>> = conn
                    .query_first(format!("SELECT GET_LOCK('{name}', 5)"))
                    .await
                    .map_err(|error| error.to_string())?;
                let _ = tell.send(got == Some(Some(1)));
                tokio::time::sleep(time).await;
                conn.disconnect().await.map_err(|error| error.to_string())
            })
        });
        if told.recv() == Ok(true) { Ok(()) } else { Err("the lock is busy".to_owned()) }
    }
}

impl TestServer for MySql {
    fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn url(&self) -> String {
        match &self.certs {
            Some(_) => format!("mysqls://localhost:{}", self.port),
            None => format!("mysql://{}", self.addr()),
        }
    }

    fn certs(&self) -> Certs {
        self.certs.clone().expect("the server has TLS")
    }

    fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    fn kill(&mut self) {
        self.process = None;
    }

    fn restart(&mut self) -> Result<(), String> {
        self.kill();
        self.launch()?;
        self.served()
    }

    fn connections(&self) -> Option<usize> {
        Some(self.clients().len())
    }

    fn queue(&self, key: &str) -> Vec<String> {
        self.holder(key).into_iter().chain(self.waiters(key)).collect()
    }

    /// Returns the id of the session: the server knows no token.
    fn owner(&self, key: &str) -> Option<String> {
        self.holder(key)
    }

    fn fence(&self, _: &str) -> Option<u64> {
        None
    }

    fn is_held_by(&self, key: &str, lease: &Lease) -> bool {
        // The holder has no name, so at least nobody else can have the lock.
        self.holder(key).is_some() && lease.is_held()
    }

    fn time_left(&self, key: &str) -> Duration {
        let milliseconds = if Self::is_mariadb() { "TIME_MS" } else { "TIME*1000" };
        let sql = format!("SELECT {milliseconds} FROM information_schema.PROCESSLIST WHERE ID=IS_USED_LOCK('{key}')");
        let silent: f64 = self.rows(&sql).pop().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        // The tests that ask use the shortest ttl.
        Duration::from_secs(1).saturating_sub(Duration::from_secs_f64(silent / 1000.0))
    }

    fn left_over(&self) -> Vec<String> {
        let waiting = "SELECT INFO FROM information_schema.PROCESSLIST WHERE STATE='User lock'";
        self.held().into_iter().chain(self.rows(waiting)).collect()
    }

    fn requests(&self) -> u64 {
        let schema = if Self::is_mariadb() { "information_schema" } else { "performance_schema" };
        let sql = format!("SELECT VARIABLE_VALUE FROM {schema}.global_status WHERE VARIABLE_NAME='Questions'");
        self.rows(&sql).pop().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn remove(&self, key: &str) {
        self.kill_sessions(self.queue(key));
    }

    fn fill(&self) {
        unreachable!("GET_LOCK keeps nothing that could fill a server");
    }

    fn make_room(&self) {
        unreachable!("GET_LOCK keeps nothing that could fill a server");
    }
}
