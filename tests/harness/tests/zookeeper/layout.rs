//! The nodes at the server, and other clients' nodes beside them.

use dlock::Kind;
use dlock_harness::backends::TestServer;
use zookeeper_client::{Acls, CreateMode};

use crate::common::{LONG, acquired, begin, client, client_with, lock, ms, released, server, until, until_contenders};

#[test]
fn each_dialect_has_its_names_and_honours_the_other() {
    let server = server();
    let addr = TestServer::addr(&server);
    let (kazoo, curator) = (client(addr), client_with(addr, "&dialect=curator"));
    let (one, other) = (acquired(&kazoo, "a/b"), acquired(&curator, "a/b"));
    let names = |directory: &str| {
        let found =
            server.contenders_of(directory).into_iter().map(|one| one.path.rsplit('/').next().unwrap().to_owned());
        found.collect::<Vec<_>>()
    };
    let (of_kazoo, of_curator) = (names("/locks/a/b"), names("/locks/a%2Fb"));
    assert!(of_kazoo.len() == 1 && of_kazoo[0].len() == 32 + "__lock__".len() + 10, "{of_kazoo:?}");
    let fits = of_curator[0].starts_with("_c_") && of_curator[0].contains("-lock-0000000000");
    assert!(of_curator.len() == 1 && fits, "{of_curator:?}");
    released(&one);
    released(&other);
    // On one path they are in one queue.
    let one = acquired(&kazoo, "k");
    let waiting = begin(&lock(&curator, "k", LONG));
    until_contenders(&server, "k", 2);
    assert_eq!(lock(&curator, "k", LONG).wait(ms(300)).acquire().wait().unwrap_err().kind(), Kind::Timeout);
    released(&one);
    released(&waiting.join().unwrap().unwrap());
}

#[test]
fn readers_of_others_keep_an_exclusive_claim_out_and_other_nodes_do_not() {
    let server = server();
    let client = client(TestServer::addr(&server));
    released(&acquired(&client, "k"));
    let create = |name: &str| {
        let created = server.raw(async |raw| {
            let options = CreateMode::PersistentSequential.with_acls(Acls::anyone_all());
            raw.create(&format!("/locks/k/{name}"), b"", &options).await
        });
        let (_, number) = created.unwrap();
        format!("/locks/k/{name}{number}")
    };
    create("notes-");
    released(&acquired(&client, "k"));
    for name in ["0a1b__rlock__", "_c_0a1b-__READ__", "_c_0a1b-__WRIT__", "_c_0a1b-lock-", "0a1b__lock__"] {
        let path = create(name);
        assert!(client.lock("k").try_acquire().wait().unwrap().is_none(), "{path}");
        let waiting = begin(&lock(&client, "k", LONG));
        until_contenders(&server, "k", 1);
        server.raw(async |raw| raw.delete(&path, None).await).unwrap();
        released(&waiting.join().unwrap().unwrap());
    }
}

#[test]
fn a_holder_whose_node_is_deleted_is_told_at_once() {
    let server = server();
    let client = client(TestServer::addr(&server));
    let lease = lock(&client, "k", ms(4000)).acquire().wait().unwrap();
    // The node is watched from the first renewal on.
    std::thread::sleep(ms(2000));
    server.remove("k");
    until("it is told", ms(500), || !lease.is_held());
}

#[test]
fn a_directory_that_is_deleted_again_and_again_is_made_again() {
    let server = server();
    let client = client(TestServer::addr(&server));
    let mut fence = 0;
    for _ in 0..20 {
        let lease = acquired(&client, "deep/er/est");
        // The numbers begin again with each directory, the fences don't.
        assert!(lease.fence().unwrap() > fence);
        fence = lease.fence().unwrap();
        released(&lease);
        let _ = server.raw(async |raw| {
            raw.delete("/locks/deep/er/est", None).await?;
            raw.delete("/locks/deep/er", None).await?;
            raw.delete("/locks/deep", None).await
        });
    }
}
