//! The backends, one folder each. A new one adds its line here and in `drivers.rs`.

#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(all(feature = "file", unix))]
pub mod file;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;
