//! Servers for tests: started for one, and ended with it.
//!
//! ```text
//! let mut server = Redis::start(&RedisOptions::new().appendonly("always").password("secret").clock())?;
//! server.url(); server.addr(); server.tls(); server.unix_path(); server.pid(); server.log();
//! server.command(&["SET", "k", "1"]); let n: i64 = server.get(&["INCR", "k"]); server.try_command::<i64>(&["GET", "k"])?;
//! server.keys("*"); server.info("server", "redis_version");
//! server.pause(); server.resume(); server.kill(); server.restart()?; server.step_clock(by, forwards);
//! let etcd = Etcd::start(&EtcdOptions::new())?; etcd.ctl(&["get", "k/", "--prefix"]); etcd.lease(2); etcd.keys("k/");
//! let members = Etcd::several(3, &EtcdOptions::new())?; members[0].leads(); members[0].figure("etcd_debugging_mvcc_watcher_total");
//! let mut cluster = Cluster::start(3, &EtcdOptions::new())?; cluster.isolate(cluster.leader()?); cluster.members[0].kill();
//! let canned = Canned::start(server.addr(), |words| (words[0] == b"EVALSHA").then(|| b"-OOM no\r\n".to_vec()))?;
//! ```

mod canned;
mod certs;
#[cfg(target_os = "linux")]
mod clock;
mod cluster;
mod etcd;
mod etcdctl;
#[cfg(target_os = "linux")]
mod names;
mod options;
#[cfg(target_os = "linux")]
mod preload;
mod process;
mod redis;

pub use self::canned::Canned;
pub use self::certs::Certs;
#[cfg(target_os = "linux")]
pub use self::clock::Clock;
pub use self::cluster::Cluster;
pub use self::etcd::Etcd;
#[cfg(target_os = "linux")]
pub use self::names::Name;
pub use self::options::{EtcdOptions, RedisOptions};
pub use self::redis::Redis;
