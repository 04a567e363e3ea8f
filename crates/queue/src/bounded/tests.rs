//! The limits, and the answers at the limits.

use super::*;
use widgets_mailbox::Address;

/// A request of this many bytes, whose answer nobody awaits.
struct Bytes(usize);

impl Waits for Bytes {
    fn text_bytes(&self) -> usize {
        self.0
    }

    /// Tests that do not depend on the difference use operations.
    fn is_operation(&self) -> bool {
        self.0 != READS
    }

    fn refuse(self, _: Fault) {}
}

/// A request of this many bytes counts as a read.
const READS: usize = 1;

fn bytes(bytes: usize, arrived: Duration) -> Submission<Bytes> {
    Submission {
        request: Bytes(bytes),
        arrived,
        reply_to: Address::Task,
    }
}

fn bounded(operations_max: usize, bytes_max: usize) -> Bounded<Bytes, 2> {
    Bounded::new(Limits {
        operations_max,
        bytes_max,
    })
}

/// Returns the fault that a request of this many bytes meets.
fn fault(bounded: &mut Bounded<Bytes, 2>, lane: usize, of: usize) -> Option<Fault> {
    fault_at(bounded, lane, of, 0)
}

/// Returns the same at this second.
fn fault_at(bounded: &mut Bounded<Bytes, 2>, lane: usize, of: usize, second: u64) -> Option<Fault> {
    let submission = bytes(of, Duration::from_secs(second));
    let refused = bounded.push(lane, submission).err();
    refused.map(|(_, fault)| fault)
}

#[track_caller]
fn check_busy(fault: Option<Fault>, expected: &str, seconds: u32) {
    match fault {
        Some(Fault::Busy {
            limit,
            retry_after_seconds,
        }) => assert_eq!((&*limit, retry_after_seconds), (expected, seconds)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lanes_share_their_limits_and_taken_requests_free_room() {
    let mut bounded = bounded(3, 9);
    assert_eq!(fault(&mut bounded, 0, 4), None);
    check_busy(fault(&mut bounded, 1, 6), "queue_bytes_max = 9", 1);
    assert_eq!(fault(&mut bounded, 1, 5), None);
    assert_eq!(fault(&mut bounded, 1, 0), None);
    check_busy(fault(&mut bounded, 0, 0), "queue_operations_max = 3", 1);
    let both = Depth {
        requests: 3,
        bytes: 9,
    };
    assert_eq!(bounded.depth(), both);
    let mut batch = VecDeque::new();
    bounded.take_all(1, &mut batch);
    assert_eq!(batch.len(), 2);
    let one = Depth {
        requests: 1,
        bytes: 4,
    };
    assert_eq!(bounded.depth(), one);
    assert_eq!(fault(&mut bounded, 0, 5), None);
}

#[test]
fn requests_that_are_not_taken_keep_their_order_in_the_lane() {
    let mut bounded = bounded(9, 99);
    for each in [3, 4, 5, 6, 7] {
        assert_eq!(fault(&mut bounded, 0, each), None);
    }
    let mut taken = Vec::new();
    bounded.take(0, 2, |submission| {
        if submission.request.0 % 2 == 0 {
            taken.push(submission.request.0);
            None
        } else {
            Some(submission)
        }
    });
    assert_eq!(taken, [4, 6]);
    let left = bounded.lane(0).iter().map(|each| each.request.0);
    assert_eq!(left.collect::<Vec<_>>(), [3, 5, 7]);
    assert_eq!(bounded.depth().bytes, 15);
}

#[test]
fn an_unavailable_lane_refuses_requests_and_the_other_accepts_them() {
    let mut bounded = bounded(9, 99);
    bounded.set_unavailable(0, Some("no connection".into()));
    let refused = fault(&mut bounded, 0, 1);
    assert!(
        matches!(refused, Some(Fault::Unavailable { .. })),
        "{refused:?}"
    );
    assert_eq!(fault(&mut bounded, 1, 1), None);
    bounded.set_unavailable(0, None);
    assert_eq!(fault(&mut bounded, 0, 1), None);
    bounded.close();
    let refused = fault(&mut bounded, 1, 1);
    assert!(
        matches!(refused, Some(Fault::Unavailable { .. })),
        "{refused:?}"
    );
    assert_eq!(bounded.depth().requests, 2);
}

/// `Retry-After` is the time that the waiting requests will take, within its limits.
#[test]
fn retry_after_is_estimated_from_the_rate_of_applied_requests() {
    let mut bounded = bounded(100, 99);
    for _ in 0..100 {
        assert_eq!(fault(&mut bounded, 0, 0), None);
    }
    // Nothing is known yet.
    check_busy(fault(&mut bounded, 0, 0), "queue_operations_max = 100", 1);
    bounded.applied(1, Duration::from_secs(9), Duration::ZERO);
    check_busy(fault(&mut bounded, 0, 0), "queue_operations_max = 100", 30);
    for _ in 0..200 {
        bounded.applied(10, Duration::from_millis(999), Duration::ZERO);
    }
    check_busy(fault(&mut bounded, 0, 0), "queue_operations_max = 100", 10);
    for _ in 0..200 {
        bounded.applied(1000, Duration::from_secs(1), Duration::ZERO);
    }
    check_busy(fault(&mut bounded, 0, 0), "queue_operations_max = 100", 1);
}

/// While nothing is applied, `Retry-After` grows, even if requests are given up meanwhile. Time
/// with nothing to do does not count.
#[test]
fn retry_after_grows_while_nothing_is_applied() {
    let limit = "queue_operations_max = 10";
    let mut bounded = bounded(10, 99);
    for _ in 0..10 {
        assert_eq!(fault_at(&mut bounded, 0, 0, 1000), None);
    }
    let now = Duration::from_secs(1000);
    bounded.applied(1000, Duration::from_secs(1), now);
    check_busy(fault_at(&mut bounded, 0, 0, 1000), limit, 1);
    let mut let_go = VecDeque::new();
    for second in 1001..=1017 {
        bounded.take_all(0, &mut let_go);
        let_go.clear();
        for _ in 0..10 {
            assert_eq!(fault_at(&mut bounded, 0, 0, second), None);
        }
    }
    check_busy(fault_at(&mut bounded, 0, 0, 1017), limit, 17);
    // Reads have their own pace.
    check_busy(fault_at(&mut bounded, 0, READS, 1017), limit, 1);
    assert_eq!(bounded.retry_after_seconds(Duration::from_secs(1018)), 18);
    assert_eq!(bounded.retry_after_seconds(Duration::from_secs(5000)), 30);
    check_busy(fault_at(&mut bounded, 0, 0, 9000), limit, 1);
    bounded.applied(1000, Duration::from_secs(1), Duration::from_secs(9003));
    assert_eq!(bounded.retry_after_seconds(Duration::from_secs(9004)), 1);
}
