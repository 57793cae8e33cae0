//! The bare commands of many tasks over one connection of the redis crate.

use std::time::Instant;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::Outcome;
use crate::raw::DELETE;
use crate::tally::{Seen, summary, tasks};

pub(crate) struct Multiplexed {
    runtime: Runtime,
    connection: MultiplexedConnection,
    hash: String,
    workers: usize,
}

/// A slice of it, for who is measured in another process.
pub(crate) fn run(url: &str, workers: usize) -> Outcome<Value> {
    let raw = Multiplexed::new(url, workers)?;
    Ok(summary(&[raw.slice()?]))
}

impl Multiplexed {
    pub(crate) fn new(url: &str, workers: usize) -> Outcome<Self> {
        // One thread: it does more than two.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (connection, hash) = runtime.block_on(async {
            let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
            let client = redis::Client::open(url)?;
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            let hash = redis::cmd("SCRIPT").arg("LOAD").arg(DELETE).query_async(&mut connection).await?;
            Ok::<_, redis::RedisError>((connection, hash))
        })?;
        Ok(Self { runtime, connection, hash, workers })
    }

    pub(crate) fn slice(&self) -> Outcome<Seen> {
        const SERVER: &str = "the server answers";
        tasks(&self.runtime, self.workers, false, |worker, tally| {
            let (mut connection, hash, key) = (self.connection.clone(), self.hash.clone(), format!("raw-{worker}"));
            async move {
                let mut grants = 0;
                while !tally.over() {
                    let asked = Instant::now();
                    let mut take = redis::cmd("SET");
                    take.arg(&key).arg("raw-token").arg("NX").arg("PX").arg(30_000);
                    let taken: Option<String> = take.query_async(&mut connection).await.expect(SERVER);
                    assert!(taken.is_some(), "the key was free");
                    tally.visit(worker, asked);
                    let mut give = redis::cmd("EVALSHA");
                    give.arg(&hash).arg(1).arg(&key).arg("raw-token");
                    let given: i64 = give.query_async(&mut connection).await.expect(SERVER);
                    assert_eq!(given, 1, "the key was ours");
                    grants += 1;
                }
                grants
            }
        })
    }
}
