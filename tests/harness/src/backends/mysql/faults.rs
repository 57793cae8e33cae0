//! The faults that the soak test injects into a MySQL, and into its sessions.

use std::net::SocketAddr;
use std::sync::Arc;

use super::MySql;
use crate::backends::deployed::of_server;
use crate::backends::{Deployed, ServerFault, Setup, TestServer};

pub(super) fn alone() -> Result<Arc<dyn Deployed>, String> {
    Ok(Arc::new(MySql::start(Setup::default())?))
}

impl Deployed for MySql {
    fn addrs(&self) -> Vec<SocketAddr> {
        vec![TestServer::addr(self)]
    }

    fn url(&self, addrs: &[SocketAddr]) -> String {
        format!("mysql://{}", addrs[0])
    }

    fn version(&self) -> Option<String> {
        self.try_rows("SELECT VERSION()").ok()?.pop()
    }

    fn outlives_connections(&self) -> bool {
        false
    }

    fn faults(self: Arc<Self>) -> Vec<Box<dyn ServerFault>> {
        of_server(&self, &[("statement-killed", kill_statement)])
    }
}

/// Ends the statement of a session that waits for a lock.
fn kill_statement(server: &MySql) -> Result<(), String> {
    let waiting = "SELECT ID FROM information_schema.PROCESSLIST WHERE STATE='User lock' ORDER BY RAND() LIMIT 1";
    for id in server.try_rows(waiting).map_err(|error| error.to_string())? {
        // It may have ended in the meantime.
        let _ = server.try_rows(&format!("KILL QUERY {id}"));
    }
    Ok(())
}
