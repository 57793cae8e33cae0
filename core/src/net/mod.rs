//! Connections to servers: addresses, sockets, TLS, and the link of a client to its servers.

pub(crate) mod address;
pub(crate) mod connection;
mod dial;
pub(crate) mod failure;
mod hedge;
pub(crate) mod in_doubt;
pub(crate) mod link;
pub(crate) mod request;
mod resolve;
pub(crate) mod socket;
pub(crate) mod tls;
pub(crate) mod ttl_classes;
