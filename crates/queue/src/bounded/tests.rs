//! The bounds, and what is said at them.

use super::*;
use widgets_mailbox::Address;

/// A request of so many bytes, of which nobody awaits the answer.
struct Bytes(usize);

impl Waits for Bytes {
    fn text_bytes(&self) -> usize {
        self.0
    }

    fn refuse(self, _: Fault) {}
}

fn bytes(bytes: usize) -> Submission<Bytes> {
    Submission {
        request: Bytes(bytes),
        arrived: Duration::ZERO,
        reply_to: Address::Task,
    }
}

fn bounded(operations_max: usize, bytes_max: usize) -> Bounded<Bytes, 2> {
    Bounded::new(Limits {
        operations_max,
        bytes_max,
    })
}

/// The fault that a request of so many bytes meets.
fn fault(bounded: &mut Bounded<Bytes, 2>, lane: usize, of: usize) -> Option<Fault> {
    bounded.push(lane, bytes(of)).err().map(|(_, fault)| fault)
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
fn lanes_share_their_bounds_and_what_is_taken_makes_room() {
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
fn what_may_not_go_yet_keeps_its_place() {
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
fn a_lane_of_which_nothing_can_be_done_refuses_and_the_other_does_not() {
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

/// `Retry-After` is how long what waits will take, within its bounds.
#[test]
fn retry_after_goes_by_what_was_applied() {
    let mut bounded = bounded(100, 99);
    for _ in 0..100 {
        assert_eq!(fault(&mut bounded, 0, 0), None);
    }
    // Nothing is known yet.
    check_busy(fault(&mut bounded, 0, 0), "queue_operations_max = 100", 1);
    bounded.applied(1, Duration::from_secs(9));
    check_busy(fault(&mut bounded, 0, 0), "queue_operations_max = 100", 30);
    for _ in 0..200 {
        bounded.applied(10, Duration::from_millis(999));
    }
    check_busy(fault(&mut bounded, 0, 0), "queue_operations_max = 100", 10);
    for _ in 0..200 {
        bounded.applied(1000, Duration::from_secs(1));
    }
    check_busy(fault(&mut bounded, 0, 0), "queue_operations_max = 100", 1);
}
