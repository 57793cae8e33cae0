//! What the scenarios share: a backend with its servers, clients that are contenders of their own, and bounds.

use std::net::SocketAddr;
use std::time::Duration;

use dlock::Client;
use dlock_harness::backends::server::Remote;
use dlock_harness::backends::{Request, Setup, TestBackend, TestServer, with_option};
use dlock_harness::proxy::Proxy;
pub(crate) use dlock_harness::scenario::{
    LATE, LONG, SLACK, acquired, begin, heal, lock, ms, released, until, until_clean, until_contenders,
};
use dlock_harness::scenario::{answered, next};

/// The backend that a scenario is played on.
#[derive(Clone, Copy)]
pub(crate) struct On {
    pub(crate) backend: &'static dyn TestBackend,
    pub(crate) remote: &'static dyn Remote,
}

impl On {
    pub(crate) fn new(backend: &'static dyn TestBackend) -> Self {
        Self { backend, remote: backend.remote().expect("it has a server") }
    }

    pub(crate) fn server(self) -> Box<dyn TestServer> {
        self.server_with(Setup::default())
    }

    pub(crate) fn server_with(self, setup: Setup) -> Box<dyn TestServer> {
        self.remote.start(setup).unwrap()
    }

    /// Returns a client that shares nothing with any other of this process, and has been answered once.
    pub(crate) fn client(self, addr: SocketAddr) -> Client {
        self.client_with(addr, ms(5000))
    }

    /// Returns the same with about this `connect_timeout`.
    pub(crate) fn client_with(self, addr: SocketAddr, timeout: Duration) -> Client {
        // Clients of equal configuration would be one contender.
        let timeout = (timeout + Duration::from_micros(next())).as_secs_f64();
        let url = with_option(&self.backend.url_of(&addr), &format!("connect_timeout={timeout:.6}"));
        answered(Client::connect(&url).unwrap())
    }

    /// Returns this ttl, or the shortest that the backend keeps.
    pub(crate) fn ttl(self, ttl: Duration) -> Duration {
        ttl.max(self.backend.min_ttl())
    }

    /// Returns how long after its last renewal the server has ended a lock of this ttl.
    pub(crate) fn end(self, ttl: Duration) -> Duration {
        ttl + self.remote.lag()
    }

    /// Returns the bytes that only a request of this kind has.
    pub(crate) fn pattern(self, request: Request, key: &str) -> String {
        self.remote.pattern(request, key)
    }
}

pub(crate) fn proxy(server: &dyn TestServer) -> Proxy {
    Proxy::new(server.addr()).unwrap()
}
