//! A server of its own, alone or a member of an ensemble, and another client that looks into it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zookeeper_client::{Acls, Client, CreateMode, Error, Stat};

use super::LOCKS;
use crate::backends::{Login, Setup, TestServer};
use crate::server::process::{self, Process};
use crate::server::{Certs, Clock};

/// The time that a server may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The server's unit of time, unless a test needs another one: that of the configuration which comes with ZooKeeper.
pub(super) const TICK: Duration = Duration::from_secs(2);

/// The number of ticks after which members of an ensemble give one another up.
const SYNC_LIMIT: u32 = 5;
/// The variable that names a folder with the files of another version.
const JARS: &str = "ZOOKEEPER_JARS";
/// The words of the log of a server whose port is in use.
pub(super) const TAKEN: &str = "Address already in use";

/// A running server. When it is dropped, its process and its folder are removed.
#[derive(Debug)]
pub struct ZooKeeper {
    pub(super) port: u16,
    /// The port without TLS, at which the tests look into the server.
    plain: u16,
    tick: Duration,
    /// The lines of the configuration that only a member of an ensemble has.
    members: String,
    pub(super) certs: Option<Certs>,
    clock: Option<Clock>,
    // The order of these fields is the order in which they are dropped.
    pub(super) process: Option<Process>,
    folder: TempDir,
}

/// A node of a contender.
#[derive(Debug)]
pub struct Contender {
    pub path: String,
    pub data: String,
    pub stat: Stat,
}

impl ZooKeeper {
    /// Starts a server and waits until it serves.
    ///
    /// # Errors
    /// If the server can't be started or doesn't serve in time, with the end of its log.
    pub fn start(setup: Setup) -> Result<Self, String> {
        Self::ticking(setup, TICK)
    }

    /// Starts a server with a wall clock of its own, see [`step_clock`](Self::step_clock). Linux only.
    ///
    /// # Errors
    /// As for [`start`](Self::start), and if the clock can't be made.
    pub fn with_clock() -> Result<Self, String> {
        let mut server = Self::new(Setup::default(), TICK)?;
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

    /// Starts a server with this unit of time, and waits until it serves.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn ticking(setup: Setup, tick: Duration) -> Result<Self, String> {
        let mut tries = 5;
        loop {
            tries -= 1;
            let mut server = Self::new(setup, tick)?;
            match server.launch().and_then(|()| server.served()) {
                // Another program may have taken the port.
                Err(error) if tries > 0 && error.contains(TAKEN) => {}
                served => return served.map(|()| server),
            }
        }
    }

    /// Returns a server that isn't running.
    pub(super) fn new(setup: Setup, tick: Duration) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let folder = process::folder().map_err(text)?;
        let certs = setup.tls.then(|| Certs::make(folder.path())).transpose()?;
        let port = process::port().map_err(text)?;
        let plain = if setup.tls { process::port().map_err(text)? } else { port };
        Ok(Self { port, plain, tick, members: String::new(), certs, clock: None, process: None, folder })
    }

    /// Makes the server a member of an ensemble. `members` has a line for each member, with the addresses at which this
    /// one finds it.
    pub(super) fn join(&mut self, id: u64, members: &str) -> Result<(), String> {
        self.members = format!("initLimit=10\nsyncLimit={SYNC_LIMIT}\n{members}");
        let data = self.folder.path().join("data");
        let written = std::fs::create_dir(&data).and_then(|()| std::fs::write(data.join("myid"), id.to_string()));
        written.map_err(|error| error.to_string())
    }

    /// Starts the server's process.
    pub(super) fn launch(&mut self) -> Result<(), String> {
        let folder = self.folder.path().display();
        let mut lines = format!(
            "tickTime={}\ndataDir={folder}/data\nclientPort={}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n\
             maxClientCnxns=0\npreAllocSize=1024\n4lw.commands.whitelist=*\nextendedTypesEnabled=true\nenforceQuota=true\n\
             {}",
            self.tick.as_millis(),
            self.plain,
            self.members
        );
        if let Some(certs) = &self.certs {
            // The server wants key and certificate in one file.
            let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.to_string());
            let both = format!("{folder}/both.pem");
            let text = read(&certs.server_key)? + &read(&certs.server_cert)?;
            std::fs::write(&both, text).map_err(|error| error.to_string())?;
            lines += &format!(
                "secureClientPort={}\nsecureClientPortAddress=127.0.0.1\n\
                 serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
                 ssl.keyStore.location={both}\nssl.keyStore.type=PEM\nssl.trustStore.location={}\nssl.trustStore.type=PEM\nssl.clientAuth=none\n",
                self.port,
                certs.ca.display()
            );
        }
        std::fs::write(self.folder.path().join("zoo.cfg"), lines).map_err(|error| error.to_string())?;
        let log = std::fs::File::create(self.log_path()).map_err(|error| error.to_string())?;
        let mut line = Command::new("java");
        line.args(["-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
        // The longest pause between two notes of a member that looks for a leader. Its default is a minute.
        line.arg("-Dzookeeper.fastleader.maxNotificationInterval=400");
        let jars = std::env::var(JARS).unwrap_or_else(|_| "/usr/share/java".to_owned());
        line.args(["-cp", &format!("{jars}/zookeeper.jar:{jars}/*")]);
        // Without members this is a server alone.
        line.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(self.folder.path().join("zoo.cfg"));
        line.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(clock) = &self.clock {
            clock.put(&mut line);
        }
        self.process = Some(Process::start(line).map_err(|error| format!("java: {error}"))?);
        Ok(())
    }

    /// Waits until the server serves.
    pub(super) fn served(&mut self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.as_mut().and_then(Process::ended) {
                return Err(format!("ZooKeeper ended with {status}: {}", self.log()));
            }
            if self.mode().is_some() && TcpStream::connect(self.addr()).is_ok() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!("ZooKeeper doesn't serve: {}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the address without TLS.
    fn plain(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.plain).into()
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.folder.path().join("log")
    }

    /// Returns the end of the log.
    pub fn log(&self) -> String {
        let text = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }

    /// Returns the answer to one of the server's four-letter words.
    ///
    /// # Errors
    /// If the server doesn't answer.
    pub fn word(&self, word: &str) -> std::io::Result<String> {
        self.word_within(word, PATIENCE)
    }

    /// Lets only this user have locks from now on: the parent of all locks is the user's.
    ///
    /// # Errors
    /// Those of the server.
    pub(super) fn ask_for_login(&self, login: &Login) -> Result<(), Error> {
        self.raw(async |client| {
            client.auth("digest", login.right.as_bytes()).await?;
            let options = CreateMode::Persistent.with_acls(Acls::creator_all());
            client.create(LOCKS, b"", &options).await.map(drop)
        })
    }

    /// Limits the size of all locks together.
    ///
    /// # Errors
    /// Those of the server.
    pub(super) fn limit_size(&self, bytes: usize) -> Result<(), Error> {
        self.raw(async |client| {
            let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
            client.create(LOCKS, b"", &options).await?;
            let quota = format!("/zookeeper/quota{LOCKS}");
            client.mkdir(&quota, &options).await?;
            let limits = format!("count=-1,bytes=-1;byteHardLimit={bytes};countHardLimit=-1");
            client.create(&format!("{quota}/zookeeper_limits"), limits.as_bytes(), &options).await?;
            client.create(&format!("{quota}/zookeeper_stats"), b"count=0,bytes=0", &options).await.map(drop)
        })
    }

    /// Makes sure that a node exists.
    ///
    /// # Errors
    /// Those of the server.
    pub(super) fn make(&self, path: &str) -> Result<(), Error> {
        self.raw(async |client| client.mkdir(path, &CreateMode::Persistent.with_acls(Acls::anyone_all())).await)
    }

    /// Creates a node of this size below a directory.
    ///
    /// # Errors
    /// Those of the server.
    pub(super) fn put(&self, directory: &str, bytes: usize) -> Result<(), Error> {
        self.raw(async |client| {
            let options = CreateMode::PersistentSequential.with_acls(Acls::anyone_all());
            let parent = CreateMode::Persistent.with_acls(Acls::anyone_all());
            client.mkdir(directory, &parent).await?;
            client.create(&format!("{directory}/x"), &vec![b'x'; bytes], &options).await.map(drop)
        })
    }

    /// Has another client create a node with a number, and keep it for this time. Returns when it exists.
    ///
    /// # Errors
    /// Those of the server.
    pub(super) fn hold(&self, path: String, time: Duration) -> Result<(), String> {
        let (tell, told) = std::sync::mpsc::channel();
        let address = self.plain();
        std::thread::spawn(move || {
            let failed = tell.clone();
            let held = asked(address, async move |client| {
                let options = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
                client.create(&path, b"", &options).await?;
                let _ = tell.send(Ok(()));
                tokio::time::sleep(time).await;
                Ok(())
            });
            // Nobody listens any more if it was created.
            let _ = held.map_err(|error| failed.send(Err(error.to_string())));
        });
        told.recv().map_err(|error| error.to_string())?
    }

    fn word_within(&self, word: &str, limit: Duration) -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.plain(), limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(word.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Returns the part that the server has: `standalone`, `leader` or `follower`. `None`: it doesn't serve now.
    pub fn mode(&self) -> Option<String> {
        let answer = self.word_within("srvr", Duration::from_secs(1)).ok()?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(|mode| mode.trim().to_owned())
    }

    /// Asks the server by another client.
    ///
    /// # Panics
    /// If no runtime can be made.
    pub fn raw<T>(&self, work: impl AsyncFnOnce(Client) -> Result<T, Error>) -> Result<T, Error> {
        asked(self.plain(), work)
    }

    /// Returns the paths of all nodes below a path, the deepest first.
    pub(super) fn below(&self, path: &str) -> Result<Vec<String>, Error> {
        self.raw(async |client| {
            let (mut open, mut found) = (vec![path.to_owned()], Vec::new());
            while let Some(at) = open.pop() {
                let names = match client.list_children(&at).await {
                    Err(Error::NoNode) => continue,
                    names => names?,
                };
                let paths = names.iter().map(|name| format!("{}/{name}", at.trim_end_matches('/')));
                for path in paths.filter(|path| path != "/zookeeper") {
                    found.push(path.clone());
                    open.push(path);
                }
            }
            found.reverse();
            Ok(found)
        })
    }

    pub(super) fn remove_below(&self, directory: &str) -> Result<(), String> {
        let paths = self.below(directory).map_err(|error| error.to_string())?;
        let deleted = self.raw(async |client| {
            for path in &paths {
                match client.delete(path, None).await {
                    Ok(()) | Err(Error::NoNode) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        deleted.map_err(|error| error.to_string())
    }

    /// Returns the contenders of a lock, in the order in which their nodes were created.
    ///
    /// # Panics
    /// If the server doesn't answer.
    pub fn contenders_of(&self, directory: &str) -> Vec<Contender> {
        self.try_contenders_of(directory).expect("the server answers")
    }

    /// Returns the same.
    ///
    /// # Errors
    /// If the server doesn't answer.
    pub fn try_contenders_of(&self, directory: &str) -> Result<Vec<Contender>, Error> {
        self.raw(async |client| {
            let names = match client.list_children(directory).await {
                Err(Error::NoNode) => Vec::new(),
                names => names?,
            };
            let mut found = Vec::new();
            for name in names {
                let path = format!("{directory}/{name}");
                match client.get_data(&path).await {
                    Ok((data, stat)) if stat.ephemeral_owner != 0 => {
                        let data = String::from_utf8_lossy(&data).into_owned();
                        found.push(Contender { path, data, stat });
                    }
                    Ok(_) | Err(Error::NoNode) => {}
                    Err(error) => return Err(error),
                }
            }
            found.sort_by_key(|one| one.stat.czxid);
            Ok(found)
        })
    }

    pub(super) fn figure(&self, name: &str) -> u64 {
        let figures = self.word("mntr").expect("the server answers");
        let line = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        line.and_then(|figure| figure.trim().parse().ok()).unwrap_or_default()
    }
}

/// Asks a server by another client, whose session has ended then.
fn asked<T>(server: SocketAddr, work: impl AsyncFnOnce(Client) -> Result<T, Error>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(&server.to_string()).await?;
        let mut states = client.state_watcher();
        let done = work(client).await;
        let ended = async {
            while !states.state().is_terminated() {
                states.changed().await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, ended).await;
        done
    })
}
