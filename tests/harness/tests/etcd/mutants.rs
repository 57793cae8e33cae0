//! Each deliberate defect of the backend is caught by the scenario that is there for it.

use dlock::mutant::MUTANTS;
use dlock_harness::mutants::all_are_caught;

/// Which scenario fails under which defect.
const CAUGHT: &[(&str, &str)] = &[
    ("etcd-own-key-not-checked", "waiting::a_waiter_whose_key_was_deleted_is_not_granted_with_the_next"),
    ("etcd-ended-lease-kept", "lost_leases::a_longer_ttl_is_granted_though_its_lease_had_ended"),
    ("etcd-deletes-by-name", "late::a_late_release_deletes_nothing_of_the_next"),
    ("etcd-listens-after-reading", "waiting::a_release_between_reading_and_listening_is_heard"),
    ("etcd-unsettled-forgotten", "late::a_late_put_locks_nobody_out"),
    ("etcd-release-forgets-doubt", "late::a_release_whose_reply_is_lost_is_released"),
    ("hold-from-request", "request_counts::a_short_hold_is_granted_once_and_lasts"),
    ("etcd-one-lease-for-all", "many::more_locks_than_one_answer_can_list_are_kept"),
    ("etcd-longer-names-looked-through", "many::a_pair_beside_ten_thousand_numbers_costs_what_it_costs_alone"),
    ("client-exit-keeps-sessions", "exit::an_exit_leaves_nothing"),
    ("loss-ignored", "lost_leases::a_deleted_key_is_a_loss_at_the_next_renewal"),
];

#[test]
fn every_defect_is_caught() {
    all_are_caught(MUTANTS, "etcd-", CAUGHT);
}
