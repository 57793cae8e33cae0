//! Who is let in: logins, certificates, addresses that lead nowhere, and a server that takes nothing more.

use std::path::Path;

use dlock::{Client, Error, Kind};
use dlock_harness::backends::{Setup, with_option};
use dlock_harness::proxy::Proxy;
use dlock_harness::scenario::{self, says, works};
use dlock_harness::server::Certs;

use crate::common::{LONG, On, acquired, begin, lock, ms, proxy, released};

scenarios! {
    a_wrong_login_is_told_and_never_shown;
    tls_works_end_to_end_and_says_what_is_wrong;
    certificates_are_read_for_each_connection;
    addresses_that_lead_nowhere_are_told_in_time;
    a_full_server_says_so_and_still_releases needs Full;
}

/// Returns the error of a first contact, which comes in time.
fn refused(on: On, url: &str) -> Error {
    let error = scenario::refused(url, on.remote.login().secret);
    println!("{error:?}");
    error
}

/// A lock goes from one client to another.
fn is_handed_over(url: &str) {
    let [a, b] = ["connect_timeout=4s", "connect_timeout=3s"]
        .map(|timeout| Client::connect(&with_option(url, timeout)).unwrap());
    let lease = acquired(&a, "k");
    let waiter = begin(&lock(&b, "k", LONG * 6));
    std::thread::sleep(ms(200));
    released(&lease);
    released(&waiter.join().unwrap().unwrap());
}

/// Puts a login into a URL.
fn logged_in(url: &str, login: &str) -> String {
    url.replace("://", &format!("://{login}@"))
}

fn a_wrong_login_is_told_and_never_shown(on: On) {
    let (login, server) = (on.remote.login(), on.server_with(Setup { login: true, ..Setup::default() }));
    let url = |login: &str| logged_in(&server.url(), login);
    works(&url(login.right));
    says(&refused(on, &url(login.wrong)), false, login.of_wrong);
    says(&refused(on, &url(&format!("nobody:{}", login.secret))), false, login.of_unknown);
    says(&refused(on, &server.url()), false, login.of_none);
}

fn with(url: &str, options: &[(&str, &Path)]) -> String {
    let options: Vec<_> = options.iter().map(|(name, path)| format!("{name}={}", path.display())).collect();
    with_option(url, &options.join("&"))
}

fn tls_works_end_to_end_and_says_what_is_wrong(on: On) {
    let (login, server) = (on.remote.login(), on.server_with(Setup { login: true, tls: true, ..Setup::default() }));
    let (url, certs) = (logged_in(&server.url(), login.right), server.certs());
    works(&with(&url, &[("ca", &certs.ca)]));
    works(&with(&url, &[("ca", &certs.ca), ("cert", &certs.client_cert), ("key", &certs.client_key)]));
    is_handed_over(&with(&url, &[("ca", &certs.ca)]));
    let remedy = ["TLS", "ca", "cert", "sni"];
    // Of another authority; of none that the system knows; for another name.
    let folder = tempfile::TempDir::new().unwrap();
    let others = Certs::make(folder.path()).unwrap();
    says(&refused(on, &with(&url, &[("ca", &others.ca)])), false, &remedy);
    says(&refused(on, &url), false, &remedy);
    says(&refused(on, &with_option(&with(&url, &[("ca", &certs.ca)]), "sni=elsewhere.example")), false, &remedy);
    // A client that speaks no TLS to a port that does.
    let (_, place) = url.split_once("://").unwrap();
    let _ = refused(on, &format!("{}://{place}", on.backend.driver()));
}

fn certificates_are_read_for_each_connection(on: On) {
    let mut server = on.server_with(Setup { tls: true, ..Setup::default() });
    let (certs, url) = (server.certs(), server.url());
    let (place, _) = url.split_once('?').unwrap_or((&url, ""));
    let (_, port) = place.rsplit_once(':').unwrap();
    let proxy = Proxy::new(([127, 0, 0, 1], port.parse().unwrap()).into()).unwrap();
    let options = [("ca", &*certs.ca), ("cert", &*certs.client_cert), ("key", &*certs.client_key)];
    let (url, folder) = (with(&url.replace(port, &proxy.port().to_string()), &options), certs.ca.parent().unwrap());
    let client = Client::connect(&url).unwrap();
    released(&lock(&client, "k", LONG).acquire().wait().unwrap());
    // All of another authority, and the server begins with its own at once.
    Certs::make(folder).unwrap();
    server.restart().unwrap();
    released(&lock(&client, "k", LONG).acquire().wait().unwrap());
    released(&lock(&Client::connect(&url).unwrap(), "k", LONG).acquire().wait().unwrap());
    let another = Client::connect(&with_option(&url, "connect_timeout=4s")).unwrap();
    released(&lock(&another, "k", LONG).acquire().wait().unwrap());
    // In the middle of being written.
    for path in [&certs.ca, &certs.client_key] {
        let whole = std::fs::read(path).unwrap();
        std::fs::write(path, "").unwrap();
        assert!(proxy.cut() > 0, "the fault was not injected");
        // The first may still be asked on the connection that is being lost.
        let _ = client.ping().wait();
        let error = client.lock("other").try_acquire().wait().unwrap_err();
        assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
        assert!(error.message().contains(&path.display().to_string()), "{error}");
        let mut waiting = lock(&client, "k", LONG).acquire();
        assert!(waiting.wait_for(ms(50)).is_none(), "a file that is being replaced ends no wait");
        std::fs::write(path, whole).unwrap();
        released(&waiting.wait().unwrap());
    }
    // Another authority's, until its own files are there too: the server is first.
    let old = std::fs::read(&certs.ca).unwrap();
    Certs::make(folder).unwrap();
    let new = std::fs::read(&certs.ca).unwrap();
    server.restart().unwrap();
    std::fs::write(&certs.ca, old).unwrap();
    let mut waiting = lock(&client, "k", LONG).acquire();
    assert!(waiting.wait_for(ms(50)).is_none());
    std::fs::write(&certs.ca, new).unwrap();
    released(&waiting.wait().unwrap());
}

fn addresses_that_lead_nowhere_are_told_in_time(on: On) {
    let server = on.server();
    let proxy = proxy(&*server);
    let url = on.backend.url_of(&proxy.addr());
    proxy.refuse(true);
    says(&refused(on, &url), true, &["refuses the connection", "running"]);
    proxy.refuse(false);
    proxy.blackhole(true);
    says(&refused(on, &url), true, &["overloaded or stopped"]);
    says(&refused(on, &on.backend.url_of(&"no-such-host.invalid")), true, &["no-such-host.invalid"]);
    proxy.blackhole(false);
    proxy.cut();
    works(&with_option(&url, "connect_timeout=1400ms"));
}

fn a_full_server_says_so_and_still_releases(on: On) {
    let server = on.server_with(Setup { small: true, ..Setup::default() });
    let (a, b) = (on.client(server.addr()), on.client(server.addr()));
    let lease = lock(&a, "k", LONG).acquire().wait().unwrap();
    server.fill();
    for error in [
        lock(&b, "other", LONG).try_acquire().wait().unwrap_err(),
        lock(&b, "other", LONG).wait(ms(200)).acquire().wait().unwrap_err(),
    ] {
        println!("full: {error:?}");
        assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
        assert!(error.message().contains(on.remote.size_setting()), "{error}");
    }
    lease.renew(None).wait().unwrap();
    released(&lease);
    assert_eq!(server.owner("k"), None);
    server.make_room();
    released(&lock(&b, "other", LONG).acquire().wait().unwrap());
}
