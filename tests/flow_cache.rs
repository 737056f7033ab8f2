//! State that is larger than its cache, over the embedded log.

#[path = "support/flow.rs"]
mod harness;

use std::collections::BTreeMap;

use harness::Flow;
use serde_json::{Value, json};
use sidestream::metric;
use sidestream::store::budget::{MemoryBudget, StateOnDisk};

const TOPOLOGY: &str = r"
version: 1
name: app
streams:
  payments:
    topic: payments
    key: {name: user, type: STRING}
    columns: {amount: BIGINT}
steps:
  large:
    from: payments
    where: amount > 0
    select: user, amount * 2 AS doubled
  totals:
    from: large
    group_by: user
    aggregate: {n: COUNT(*), total: SUM(doubled)}
    emit: changes
    to: out
";

/// Far more rows than the cache has room for, looked up at random: they are read many at a time before their records are
/// processed, and every total is right.
#[test]
fn rows_that_the_cache_has_no_room_for_are_read_ahead_of_their_records() {
    const USERS: u64 = 6_000;
    const RECORDS: u64 = 30_000;
    let row_cache_per_worker = 200_000;
    let budget = MemoryBudget { row_cache_per_worker, ..MemoryBudget::split(64 << 20, 1, StateOnDisk::None).unwrap() };
    let mut flow = Flow::with_budget(TOPOLOGY, budget);
    let mut random = fastrand::Rng::with_seed(7);
    let mut expected: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for number in 0..USERS + RECORDS {
        let user = format!("user-{:06}", if number < USERS { number } else { random.u64(..USERS) });
        let amount = random.i64(-1..10);
        flow.send("payments", &user, json!({"amount": amount}));
        if amount > 0 {
            let (n, total) = expected.entry(user).or_default();
            *n += 1;
            *total += 2 * amount;
        }
        if number % 5_000 == 0 {
            flow.settle();
        }
    }
    flow.settle();
    let last: BTreeMap<String, Value> = flow.read("out").into_iter().collect();
    assert_eq!(last.len(), expected.len());
    for (user, (n, total)) in expected {
        assert_eq!(last[&user], json!({"user": user, "n": n, "total": total}));
    }
    let [all, missed, ahead] =
        [metric::STATE_READS, metric::STATE_READS_MISSED, metric::STATE_READS_AHEAD].map(|metric| flow.count(&metric));
    assert!(missed > all / 4, "{missed} of {all} look-ups missed");
    assert!(ahead > RECORDS / 4, "{ahead} rows were read ahead, of {missed}");
}
