//! The address of a server, and the connection to it.

use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::socket::Stream;
use super::tls::Tls;
use super::{dial, resolve};
use crate::config::{Config, host_port, join_host};
use crate::error;

/// The address of one server, with its TLS options.
pub(crate) struct Address {
    host: String,
    port: u16,
    tls: Option<Arc<Tls>>,
    reached: AtomicBool,
}

impl Clone for Address {
    fn clone(&self) -> Self {
        let reached = AtomicBool::new(self.reached.load(Ordering::Relaxed));
        Self { host: self.host.clone(), port: self.port, tls: self.tls.clone(), reached }
    }
}

impl Address {
    /// Reads `host` or `host:port`, and the TLS options of the configuration.
    ///
    /// # Errors
    /// `Invalid` for an address or a certificate that can't be used.
    pub(crate) fn new(text: &str, default_port: u16, config: &Config) -> error::Result<Self> {
        let (host, port) = host_port(text)?;
        let values = config.values();
        let tls = if values.flag("tls") == Some(true) { Some(Arc::new(Tls::new(&host, values)?)) } else { None };
        Ok(Self { host, port: port.unwrap_or(default_port), tls, reached: AtomicBool::new(false) })
    }

    /// Returns the same address, with this protocol for TLS. Some servers serve only clients that name it.
    pub(crate) fn with_alpn(mut self, protocol: &[u8]) -> Self {
        self.tls = self.tls.map(|tls| Arc::new(Tls::clone(&tls).with_alpn(protocol)));
        self
    }

    /// Returns true if the server is reached by TLS.
    pub(crate) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns a hint for the error of a server that gives no answer.
    pub(crate) fn hint(&self) -> &'static str {
        if self.tls.is_some() { ", and has it TLS on this port" } else { "" }
    }

    /// Notes a connection that worked. A TLS error after it may be due to a rotation of certificates that is in
    /// progress.
    pub(crate) fn was_reached(&self) {
        self.reached.store(true, Ordering::Relaxed);
    }

    /// Returns true if a connection has worked once.
    pub(crate) fn reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// Connects by a driver that has sockets of its own: by this function, which gets one address of the host. Each
    /// connection resolves the name again. The caller limits the time.
    #[cfg(feature = "mysql")]
    pub(crate) async fn connect_by<T, E, F>(
        &self,
        connect: impl Fn(std::net::SocketAddr) -> F,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<std::io::Error> + Send + 'static,
        F: Future<Output = std::result::Result<T, E>> + Send + 'static,
    {
        dial::dial_by(resolve::resolve(&self.host, self.port).await?, connect).await
    }

    /// Reads the files of TLS, to find out whether they can be used.
    #[cfg(feature = "mysql")]
    pub(crate) async fn read_files(&self) -> Result<()> {
        match &self.tls {
            Some(tls) => tls.clone().read_anew().await.map(drop),
            None => Ok(()),
        }
    }

    /// Returns the host's name.
    #[cfg(feature = "mysql")]
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Connects. Each connection resolves the name and reads the certificates again. The caller limits the time.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>> {
        let addresses = resolve::resolve(&self.host, self.port).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(dial::dial(addresses).await?)) };
        let (tls, name) = tls.clone().read_anew().await?;
        Ok(Box::new(tls.connect(name, dial::dial(addresses).await?).await?))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&join_host(&self.host, Some(self.port)))
    }
}
