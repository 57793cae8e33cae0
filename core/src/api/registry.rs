//! Services by name, and the default client that `lock("k")` uses.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use arc_swap::ArcSwap;

use crate::api::client::Client;
use crate::config::Settings;
use crate::error::{Error, Result, show};
use crate::observe::event;

type Clients = BTreeMap<String, Client>;

/// By service name; the default client under the empty name. Read and changed without a lock, so that a fork at any
/// moment leaves it usable in the child.
static CLIENTS: LazyLock<ArcSwap<Clients>> = LazyLock::new(ArcSwap::default);

/// Names a client, so that `lock(key, service = name)` finds it anywhere in the process. A name that is taken already
/// is given to the new client.
///
/// # Errors
/// `Invalid` for an empty name.
pub fn register(name: &str, client: &Client) -> Result<()> {
    if name.is_empty() {
        return Err(nameless());
    }
    insert(name, client);
    Ok(())
}

/// A handle of one's own on the client of this name: a registered one, or what environment and YAML say; with no name the
/// default. To close it ends the leases of no other.
///
/// # Errors
/// `Invalid` for an empty name, a configuration that can't be used, a name that is not enabled, or several services and no
/// default.
pub fn client(service: Option<&str>) -> Result<Client> {
    let client = shared(service)?;
    if mutant!("client-default-is-shared") { Ok(client) } else { client.another() }
}

/// The client by which everybody locks who names none, or only a service. Whoever closes it, closes it for all. One
/// that was closed is replaced by a new one of the configuration.
///
/// # Errors
/// As [`client`].
pub fn shared(service: Option<&str>) -> Result<Client> {
    if service == Some("") {
        return Err(nameless());
    }
    let known = CLIENTS.load().get(service.unwrap_or_default()).cloned();
    if let Some(client) = known.as_ref().filter(|client| !client.is_closed()) {
        return Ok(client.clone());
    }
    let settings = settings(None)?;
    let config = match (service.map(|name| settings.service(name)), known) {
        (Some(Ok(config)), _) => config,
        // Registered, and closed since: its use says so.
        (Some(Err(_)), Some(closed)) => return Ok(closed),
        (Some(Err(error)), None) => return Err(with_registered(&error)),
        (None, _) => settings.default_service()?.1,
    };
    let client = Client::open(config)?;
    insert(service.unwrap_or_default(), &client);
    Ok(client)
}

/// The client that a YAML file, read strictly, and the environment say.
///
/// # Errors
/// `Invalid`, naming file and line.
pub fn from_file(path: &Path) -> Result<Client> {
    Client::open(settings(Some(path))?.default_service()?.1)
}

fn settings(path: Option<&Path>) -> Result<Settings> {
    let settings = Settings::of_process(path)?;
    settings.notes().iter().for_each(|note| event::ignored(note));
    Ok(settings)
}

fn insert(name: &str, client: &Client) {
    CLIENTS.rcu(|clients| {
        let mut clients = Clients::clone(clients);
        clients.insert(name.to_owned(), client.clone());
        clients
    });
}

fn nameless() -> Error {
    Error::invalid("a service needs a name of at least one character")
}

fn with_registered(error: &Error) -> Error {
    let clients = CLIENTS.load();
    let names: Vec<_> = clients.keys().filter(|name| !name.is_empty()).map(|name| show(name)).collect();
    if names.is_empty() {
        return error.clone();
    }
    Error::invalid(format!("{}; registered: {}", error.message(), names.join(", ")))
}
