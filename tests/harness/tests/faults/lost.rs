//! Locks that are taken away or have ended: the holder learns of it, and changes nothing of another's.

use dlock::{Kind, ReleaseOutcome};

use crate::common::{LONG, On, SLACK, lock, ms, released};

scenarios! {
    a_deleted_key_is_a_loss_at_the_next_renewal needs Deletion;
    one_of_many_deleted_keys_is_found needs Deletion;
    a_lease_that_has_ended_changes_nothing_of_the_next;
}

fn a_deleted_key_is_a_loss_at_the_next_renewal(on: On) {
    let (server, ttl) = (on.server(), on.ttl(ms(900)));
    let client = on.client(server.addr());
    let [by_hand, by_itself, kept] = [("hand", LONG), ("self", ttl), ("kept", ttl)]
        .map(|(key, ttl)| lock(&client, key, ttl).acquire().wait().unwrap());
    server.remove("hand");
    server.remove("self");
    assert_eq!(by_hand.renew(None).wait().unwrap_err().kind(), Kind::Lost);
    assert_eq!(by_hand.check().unwrap_err().kind(), Kind::Lost);
    assert!(by_itself.lost_within(Some(ttl / 3 + SLACK)).wait().unwrap());
    assert!(by_itself.check().unwrap_err().message().contains("no longer ours"), "{}", by_itself.loss());
    assert_eq!(by_itself.release().wait().unwrap(), ReleaseOutcome::Lost);
    assert!(kept.is_held());
    released(&kept);
    released(&lock(&client, "self", LONG).acquire().wait().unwrap());
}

fn one_of_many_deleted_keys_is_found(on: On) {
    let server = on.server();
    let client = on.client(server.addr());
    let all: Vec<_> = (0..200).map(|n| lock(&client, &format!("k{n}"), ms(6000)).acquire().wait().unwrap()).collect();
    server.remove("k77");
    assert!(all[77].lost_within(Some(LONG)).wait().unwrap());
    assert_eq!(all.iter().filter(|lease| lease.is_held()).count(), 199);
    all.iter().for_each(drop);
}

fn a_lease_that_has_ended_changes_nothing_of_the_next(on: On) {
    let server = on.server();
    let (a, b) = (on.client(server.addr()), on.client(server.addr()));
    for word in ["release", "renew"] {
        let stale = lock(&a, word, on.ttl(ms(500))).auto_renew(false).acquire().wait().unwrap();
        let lease = lock(&b, word, ms(30_000)).acquire().wait().unwrap();
        assert!(!stale.is_held() && lease.fence() > stale.fence());
        if word == "release" {
            assert_eq!(stale.release().wait().unwrap(), ReleaseOutcome::Lost);
        } else {
            assert_eq!(stale.renew(None).wait().unwrap_err().kind(), Kind::Lost);
        }
        assert!(server.contenders(word) == 1 && server.is_held_by(word, &lease), "{word}");
        released(&lease);
    }
}
