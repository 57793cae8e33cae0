//! Each deliberate defect of the engine and the backend is caught by the scenario that is there for it.

use dlock::mutant::MUTANTS;
use dlock_harness::mutants::all_are_caught;

/// Which scenario fails under which defect.
const CAUGHT: &[(&str, &str)] = &[
    ("redis-handed-over-from-receipt", "handover::a_grant_that_comes_after_its_time_is_not_entered"),
    ("redis-handed-over-late-not-renewed", "handover::a_lock_handed_over_late_is_renewed_before_it_is_entered"),
    ("redis-unwanted-grant-kept", "late_requests::what_is_handed_to_a_claim_that_has_ended_goes_on_at_once"),
    ("redis-no-reaper", "late_requests::a_request_overtaken_by_its_repetition_locks_nobody_out"),
    ("redis-release-forgets-doubt", "replies::a_release_whose_reply_is_cut_off_is_released"),
    ("redis-take-overwrites", "handover::a_held_lock_is_busy"),
    ("redis-take-again-is-busy", "replies::an_acquire_whose_reply_is_cut_off_is_granted"),
    ("redis-take-barges", "handover::nobody_is_overtaken"),
    ("redis-late-take-accepted", "late_requests::a_request_is_refused_after_its_time"),
    ("redis-only-releases-promote", "process::a_lock_whose_holder_is_killed_goes_on_within_its_ttl"),
    ("redis-dead-contender-served", "handover::a_contender_that_was_not_heard_of_is_passed_over"),
    ("redis-release-without-owner-check", "stale_handles::a_stale_handle_changes_nothing_of_anothers"),
    ("redis-renew-without-owner-check", "stale_handles::a_stale_handle_changes_nothing_of_anothers"),
    ("redis-message-believed", "forged::a_message_that_was_made_up_grants_nothing"),
    ("redis-messages-replicated", "moved::what_reached_nobody_is_not_heard_of_at_a_replica"),
    ("redis-break-takes-any-owner", "breaking::a_break_without_an_answer_takes_one_lock"),
    ("redis-break-deletes-anything", "strange::what_is_no_lock_is_not_broken"),
    ("redis-renewals-forget-the-fence", "renewal::a_lease_keeps_what_is_kept_beside_its_key"),
    ("redis-polling-head-overtaken", "deaf::without_messages_they_come_in_the_order_in_which_they_asked"),
    ("redis-fence-not-floored", "outage::a_server_that_lost_its_data_is_noticed_and_fences_go_on"),
    ("validity-from-receipt", "renewal::a_lease_counts_from_when_its_request_was_sent"),
    ("hold-from-request", "handover::the_first_in_line_holds_for_its_time"),
    ("never-lost", "renewal::a_loss_is_told_before_the_lease_ends"),
    ("never-expires", "renewal::a_lease_ends_in_time_though_the_watchdog_is_kept"),
    ("no-withdrawal", "cancel::a_waiter_whose_time_is_up_leaves_the_queue"),
    ("renew-after-release", "renewal::nothing_is_renewed_that_is_being_given_back"),
    ("release-once", "replies::a_release_cut_before_the_server_is_repeated"),
    ("loss-ignored", "renewal::a_deleted_key_is_a_loss_at_the_next_renewal"),
    ("client-exit-passes-turns-on", "exit::an_exit_leaves_nothing"),
    ("drop-forgets", "cancel::a_lease_that_is_dropped_is_given_back"),
];

#[test]
fn every_defect_is_caught() {
    all_are_caught(MUTANTS, "redis-", CAUGHT);
}
