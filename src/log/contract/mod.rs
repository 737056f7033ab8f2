//! What every implementation of the log owes, as cases that run against any of them.
//!
//! [`CASES`] is run on `memory` by this module's test, and on a real broker by `tests/kafka_log.rs`. A case makes topics
//! and groups of its own under the prefix that it is given. Waiting is polling with a deadline, since a broker takes its
//! time; a case that needs faults is `memory`'s own test instead.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test suite, though not a test target")]

mod group;
mod reading;
mod records;
mod scene;
mod topics;

use crate::log::SharedLog;

/// One duty. The prefix is unique for each run of the case: topics, groups and ids begin with it.
pub type Case = fn(SharedLog, &str);

pub const CASES: &[(&str, Case)] = &[
    ("a_record_keeps_its_key_value_headers_and_timestamp", records::a_record_keeps_its_parts),
    ("records_of_a_partition_come_in_offset_order", records::records_come_in_order),
    (
        "a_topic_with_times_of_its_own_takes_records_of_any_time",
        records::a_topic_with_times_of_its_own_takes_records_of_any_time,
    ),
    ("a_commit_shows_records_and_offsets_together", records::a_commit_shows_records_and_offsets),
    ("an_aborted_transaction_is_never_seen", records::an_aborted_transaction_is_never_seen),
    ("readers_stop_at_an_open_transaction", records::readers_stop_at_an_open_transaction),
    ("the_end_lies_beyond_control_records_and_is_told_again", records::the_end_lies_beyond_control_records),
    ("a_commit_returns_the_acknowledged_ends", records::a_commit_returns_the_acknowledged_ends),
    ("init_fences_the_older_producer_and_aborts_its_transaction", records::init_fences_the_older_producer),
    ("a_stale_generation_is_refused", records::a_stale_generation_is_refused),
    ("a_stranger_to_the_group_is_refused", records::a_stranger_to_the_group_is_refused),
    ("a_producer_without_transactions_commits_through_the_group", records::a_plain_producer_commits_through_the_group),
    ("offsets_are_committed_outside_of_transactions_too", group::offsets_are_committed_outside_of_transactions),
    ("an_unknown_group_has_no_offsets_and_no_members", group::an_unknown_group_has_nothing),
    ("a_member_owns_everything_and_is_described", group::a_member_owns_everything_and_is_described),
    ("a_second_member_gets_what_the_first_has_given_up", group::a_second_member_gets_what_the_first_has_given_up),
    ("a_member_that_gets_nothing_is_told_so", group::a_member_that_gets_nothing_is_told_so),
    ("a_member_that_leaves_passes_its_partitions_on", group::a_member_that_leaves_passes_its_partitions_on),
    ("a_static_member_returns_to_its_partitions", group::a_static_member_returns_to_its_partitions),
    ("a_second_process_with_the_instance_id_fences_the_first", group::a_second_process_fences_the_first),
    ("an_empty_group_is_deleted_with_its_offsets", group::an_empty_group_is_deleted),
    ("the_offsets_of_an_empty_group_are_set_and_of_no_other", group::the_offsets_of_an_empty_group_are_set),
    ("an_offset_out_of_range_fails_its_slot_alone", reading::an_offset_out_of_range_fails_its_slot_alone),
    ("a_slot_that_is_put_right_at_once_is_read", reading::a_slot_that_is_put_right_at_once_is_read),
    ("a_missing_topic_is_named", reading::a_missing_topic_is_named),
    ("offsets_are_found_by_time", reading::offsets_are_found_by_time),
    ("a_record_too_large_for_its_topic_is_refused", records::a_record_too_large_is_refused),
    ("an_assigned_slot_is_repositioned", reading::an_assigned_slot_is_repositioned),
    ("a_paused_slot_hands_out_nothing", reading::a_paused_slot_hands_out_nothing),
    ("a_fetch_keeps_its_limit", reading::a_fetch_keeps_its_limit),
    ("topics_are_described_as_they_were_made", topics::topics_are_described),
    ("a_wrong_topic_does_not_keep_others_from_being_made", topics::a_wrong_topic_does_not_keep_others_from_being_made),
    ("a_topic_made_again_has_another_id", topics::a_topic_made_again_has_another_id),
    ("deleted_records_are_out_of_range", topics::deleted_records_are_out_of_range),
];

#[cfg(test)]
mod tests {
    use super::CASES;
    use crate::clock::SystemClock;
    use crate::log::memory::MemoryLog;

    #[test]
    fn the_in_process_log_keeps_the_contract() {
        for (name, case) in CASES {
            println!("{name}");
            case(MemoryLog::new(SystemClock::shared()).shared(), name);
        }
    }
}
