//! Cases that the model does not reach.

use super::*;

const PRIMARY: MemberId = MemberId(1);
const STANDBY: MemberId = MemberId(2);

/// A primary was replaced, lost what it had written alone, and was promoted again. A standby's
/// report about the first history says nothing about the second, which may be shorter.
#[test]
fn a_report_from_another_epoch_is_ignored() {
    let first = Epoch::new(1);
    let second = first.after(7);
    let mut member = Member::new(PRIMARY, Acknowledge::Standby, Role::Standby, second);
    member
        .take_copy(
            second.after(0),
            Tip {
                sequence: 3,
                chain: 9,
            },
            Holder::Is {
                member: PRIMARY,
                from: 2,
            },
        )
        .expect("the epoch is higher");
    let record = member.promote(8, false).expect("it is the holder");
    assert_eq!(record, Some(Record::Holder(PRIMARY)));
    let longer = |sequence| Tip { sequence, chain: 0 };
    member.lengthened(longer(4), record);
    member.report(STANDBY, first, 4);
    assert_eq!(
        member.name_holder(STANDBY, 0),
        Err(Refusal::IsBehind { sequence: 0 })
    );
    member.report(STANDBY, member.epoch(), 4);
    assert_eq!(member.name_holder(STANDBY, 0), Ok(Record::Holder(STANDBY)));
    member.lengthened(longer(5), Some(Record::Holder(STANDBY)));
    assert_eq!(
        member.acknowledged(),
        0,
        "the standby does not have its own naming"
    );
    member.report(STANDBY, member.epoch(), 5);
    assert_eq!(member.acknowledged(), 5);
}

/// If nothing was written since the promotion, the groups of a replaced primary would continue the
/// history. Only their epoch shows that they must be refused.
#[test]
fn groups_from_a_replaced_primary_are_refused() {
    let old = Epoch::new(1);
    let own = old.after(7);
    let mut member = Member::new(STANDBY, Acknowledge::Local, Role::Standby, own);
    let offered = old;
    assert_eq!(
        member.take_groups(offered, Tip::default()),
        Err(Refusal::OldEpoch { offered, own })
    );
    assert_eq!(member.take_groups(own, Tip::default()), Ok(()));
    assert_eq!(member.take_groups(own.after(1), Tip::default()), Ok(()));
    assert_eq!(member.epoch(), own.after(1));
}

/// A copy that was sent earlier would undo what the holder has acknowledged since.
#[test]
fn a_second_copy_of_the_same_epoch_is_refused() {
    let old = Epoch::new(1);
    let own = old.after(7);
    let mut member = Member::new(STANDBY, Acknowledge::Standby, Role::Standby, old);
    let copy = Tip {
        sequence: 3,
        chain: 9,
    };
    assert_eq!(member.take_copy(own, copy, Holder::Nobody), Ok(()));
    let later = Tip {
        sequence: 4,
        chain: 8,
    };
    member.lengthened(later, None);
    assert_eq!(
        member.take_copy(own, copy, Holder::Nobody),
        Err(Refusal::OldEpoch { offered: own, own })
    );
    assert_eq!(member.tip(), later);
}

#[test]
fn epochs_increase_and_concurrent_promotions_get_different_ones() {
    let epoch = Epoch::new(0x0003_ffff);
    assert!(epoch.after(0) > epoch);
    assert_ne!(epoch.after(1), epoch.after(2));
    assert!(epoch.after(2).after(1) > epoch.after(2));
}
