//! The bare calls of many tasks over one connection, of the redis crate or of that for another server.

use std::time::Instant;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::runtime::{Builder, Runtime};

use crate::Outcome;
use crate::base::Session as _;
use crate::calls::Service;
use crate::raw::DELETE;
use crate::tally::{Seen, tasks};
use crate::{etcd, mysql, zookeeper};

pub(crate) struct Multiplexed {
    runtime: Runtime,
    connection: Connection,
    workers: usize,
}

#[derive(Clone)]
enum Connection {
    Redis {
        connection: MultiplexedConnection,
        hash: String,
    },
    Etcd(Box<etcd::Session>),
    /// A connection for each task.
    MySql(mysql::Session),
    ZooKeeper(zookeeper::Session),
}

impl Multiplexed {
    pub(crate) fn new(service: Service, url: &str, workers: usize) -> Outcome<Self> {
        // One thread: it does more than two.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let connection = runtime.block_on(Connection::open(service, url))?;
        Ok(Self { runtime, connection, workers })
    }

    pub(crate) fn slice(&self) -> Outcome<Seen> {
        const SERVER: &str = "the server answers, and the key is ours alone";
        tasks(&self.runtime, self.workers, false, |worker, tally| {
            let (mut connection, key) = (self.connection.clone(), format!("raw-{worker}"));
            async move {
                let mut grants = 0;
                while !tally.over() {
                    let asked = Instant::now();
                    connection.take(&key).await.expect(SERVER);
                    tally.visit(worker, asked);
                    connection.give(&key).await.expect(SERVER);
                    grants += 1;
                }
                grants
            }
        })
    }
}

impl Connection {
    async fn open(service: Service, url: &str) -> Outcome<Self> {
        match service {
            Service::Redis => {}
            Service::Etcd => return Ok(Self::Etcd(Box::new(etcd::Session::open(url).await?))),
            Service::MySql => return Ok(Self::MySql(mysql::Session::open(url).await?)),
            Service::ZooKeeper => return Ok(Self::ZooKeeper(zookeeper::Session::open(url).await?)),
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let client = redis::Client::open(url)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let hash = redis::cmd("SCRIPT").arg("LOAD").arg(DELETE).query_async(&mut connection).await?;
        Ok(Self::Redis { connection, hash })
    }

    async fn take(&mut self, key: &str) -> Outcome<()> {
        match self {
            Self::Redis { connection, .. } => {
                let mut take = redis::cmd("SET");
                take.arg(key).arg("raw-token").arg("NX").arg("PX").arg(30_000);
                let taken: Option<String> = take.query_async(connection).await?;
                taken.map(drop).ok_or_else(|| "the key was taken".into())
            }
            Self::Etcd(session) => session.take(key).await,
            Self::MySql(session) => session.take(key).await,
            Self::ZooKeeper(session) => session.take(key).await,
        }
    }

    async fn give(&mut self, key: &str) -> Outcome<()> {
        match self {
            Self::Redis { connection, hash } => {
                let mut give = redis::cmd("EVALSHA");
                give.arg(&*hash).arg(1).arg(key).arg("raw-token");
                match give.query_async(connection).await? {
                    1 => Ok(()),
                    other => Err(format!("{other} keys were ours").into()),
                }
            }
            Self::Etcd(session) => session.give(key).await,
            Self::MySql(session) => session.give(key).await,
            Self::ZooKeeper(session) => session.give(key).await,
        }
    }
}
