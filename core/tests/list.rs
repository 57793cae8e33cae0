//! The keys that are held or waited for, and what a backend says of itself.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use dlock::{Client, Kind, Lease};

fn listed(client: &Client, prefix: &str) -> Vec<String> {
    client.list(prefix).wait().unwrap()
}

fn hold(client: &Client, key: &str) -> Lease {
    client.lock(key).acquire().wait().unwrap()
}

fn clients(folder: &tempfile::TempDir) -> Vec<Client> {
    let file = format!("file://{}?prefix=app%2F", folder.path().display());
    ["memory://list?prefix=app%2F", &file].map(|url| Client::connect(url).unwrap()).into()
}

#[test]
fn what_is_held_is_listed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    for client in clients(&folder) {
        let backend = client.backend();
        assert_eq!(listed(&client, ""), [""; 0], "{backend}");
        let (a, b) = (hold(&client, "b:é%"), hold(&client, "a"));
        let long = "x".repeat(300);
        let c = hold(&client, &long);
        assert_eq!(listed(&client, "b:"), ["b:é%"], "{backend}");
        let all = listed(&client, "");
        // A file's name has no room for the whole of a long key.
        assert!(all.len() == 3 && all[..2] == ["a", "b:é%"] && all[2].starts_with(&long[..80]), "{backend}: {all:?}");
        a.release().wait().unwrap();
        assert_eq!(listed(&client, "b"), [""; 0], "{backend}: released");
        drop((b, c));
    }
}

#[test]
fn another_prefix_is_not_listed() {
    let client = Client::connect("memory://list-2?prefix=one%2F").unwrap();
    let other = Client::connect("memory://list-2?prefix=two%2F").unwrap();
    let _held = (hold(&client, "k"), hold(&other, "k2"));
    assert_eq!((listed(&client, ""), listed(&other, "")), (vec!["k".to_owned()], vec!["k2".to_owned()]));
}

#[test]
fn a_healthy_backend_has_no_findings_and_a_closed_client_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for client in clients(&folder) {
        assert_eq!(client.diagnose().wait().unwrap(), [""; 0], "{}", client.backend());
        client.close(Duration::from_secs(1)).wait().unwrap();
        for error in [client.diagnose().wait().unwrap_err(), client.list("").wait().unwrap_err()] {
            assert_eq!(error.kind(), Kind::Invalid, "{}: {error}", client.backend());
        }
    }
}
