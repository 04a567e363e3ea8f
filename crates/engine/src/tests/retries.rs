//! Idempotency keys: a retry gets the first outcome, across failures, restarts, checkpoints and
//! conversions.

use super::{
    disk::{Chance, Faults, Kept, TestDisk},
    rig::{Rig, TestClock, command, model, random, serial_number, settings, widgets},
};
use crate::{checkpoint, recovery};
use widgets_registry::{
    Applied, Attempt, Author, Command, Fault, IdempotencyKey, Name, Pair, Port, Ports, Refusal,
    Rejection, query::Asker,
};

fn keyed(command: Command, author: Option<&str>, key: &str) -> Attempt {
    Attempt {
        command,
        author: author.map(|author| Author::new(author).expect("a name")),
        key: Some(IdempotencyKey::new(key).expect("a key")),
        asker: Asker::default(),
    }
}

fn add(number: usize) -> Command {
    Command::AddWidget {
        serial_number: serial_number(number),
        name: Name::new("name", "n").expect("within the limits"),
        ports: Ports::new(&[Port::P]).expect("one"),
    }
}

type Answer = Result<Applied, Rejection>;

/// Returns the answer to a retry whose first attempt got this answer.
fn again(first: &Answer) -> Answer {
    match first {
        Ok(_) => Ok(Applied::Before),
        Err(Rejection::Refused(refusal) | Rejection::Replayed(refusal)) => {
            Err(Rejection::Replayed(refusal.clone()))
        }
        Err(Rejection::Fault(fault)) => panic!("no answer to come again: {fault}"),
    }
}

#[test]
fn a_retry_gets_the_first_outcome_and_a_reused_key_is_refused() {
    let disk = TestDisk::default();
    let mut rig = Rig::open(&disk).expect("a new store");
    let associate = Pair::new(serial_number(1), serial_number(2), Port::P);
    let associate = Command::AssociateWidgets(associate.expect("two widgets"));
    let attempts = [
        keyed(add(1), Some("alice"), "a"),
        keyed(add(2), Some("alice"), "b"),
        keyed(add(1), Some("alice"), "c"),
        keyed(associate.clone(), None, "a"),
        keyed(associate, None, "b"),
        keyed(add(2), Some("bob"), "a"),
    ];
    let first = rig.ask(&attempts);
    assert_eq!(first[0], Ok(Applied::Now));
    assert!(matches!(&first[2], Err(Rejection::Refused(refusal)) if refusal.code() == "23505"));
    assert_eq!(first[3], Ok(Applied::Now), "another's key is another key");
    assert!(matches!(&first[4], Err(Rejection::Refused(refusal)) if refusal.code() == "WG003"));
    let expected: Vec<_> = first.iter().map(again).collect();
    let before = widgets(rig.state());
    assert_eq!(rig.ask(&attempts), expected);
    let for_another = keyed(add(3), Some("alice"), "a");
    let refused = Err(Rejection::Refused(Refusal::KeyReused));
    assert_eq!(
        rig.ask(std::slice::from_ref(&for_another)),
        std::slice::from_ref(&refused)
    );
    assert_eq!(widgets(rig.state()), before);
    // The state has changed, but the outcome has not.
    rig.submit(&[Command::RemoveWidget {
        serial_number: serial_number(1),
    }]);
    assert_eq!(rig.ask(&attempts), expected);
    drop(rig);
    let disk = disk.after_power_cut(Kept::Nothing);
    let mut rig = Rig::open(&disk).expect("recovered");
    assert_eq!(rig.ask(&attempts), expected, "after a restart");
    rig.checkpoint().expect("written");
    assert_eq!(rig.ask(&[for_another]), [refused]);
}

#[test]
fn a_key_used_twice_in_one_batch_is_applied_once() {
    let disk = TestDisk::default();
    let mut rig = Rig::open(&disk).expect("a new store");
    let attempt = keyed(add(1), None, "a");
    let answers = rig.ask(&[attempt.clone(), attempt.clone()]);
    assert_eq!(answers, [Ok(Applied::Now), Ok(Applied::Before)]);
    let disk = TestDisk::default();
    let mut rig = Rig::open(&disk).expect("a new store");
    disk.set_faults(Faults {
        fail_at: Some(disk.steps()),
        ..Faults::default()
    });
    for answer in rig.ask(&[attempt.clone(), attempt.clone()]) {
        let unavailable = Rejection::Fault(Fault::Unavailable { reason: "".into() });
        let given = answer.expect_err("the write failed");
        assert!(
            std::mem::discriminant(&given) == std::mem::discriminant(&unavailable)
                && given
                    .to_string()
                    .starts_with("the store accepts no operations"),
            "{given}"
        );
    }
    // Nothing was applied, so the key is unused.
    assert_eq!(rig.ask(&[attempt]), [Ok(Applied::Now)]);
}

#[test]
fn idempotency_keys_survive_a_checkpoint_and_a_restart() {
    let disk = TestDisk::default();
    let mut rig = Rig::open(&disk).expect("a new store");
    let mut chance = Chance(5);
    let attempts: Vec<_> = (0..150)
        .map(|key| keyed(command(&mut chance), None, &format!("k{key}")))
        .collect();
    let (mut first, mut asked) = (Vec::new(), attempts.chunks(3));
    // Some before the checkpoint, some between its slices, some after it.
    for _ in 0..20 {
        first.extend(rig.ask(asked.next().expect("more")));
    }
    for _ in 0..20 {
        first.extend(rig.ask(asked.next().expect("more")));
        rig.copy();
        rig.write();
    }
    rig.checkpoint().expect("written");
    for attempts in asked {
        first.extend(rig.ask(attempts));
    }
    drop(rig);
    let disk = disk.after_power_cut(Kept::Nothing);
    let mut rig = Rig::open(&disk).expect("recovered");
    for (attempt, first) in attempts.iter().zip(&first) {
        assert_eq!(
            rig.ask(std::slice::from_ref(attempt)),
            [again(first)],
            "{attempt:?}"
        );
    }
}

/// What is used while a checkpoint copies the widgets is in the checkpoint, and in the journal that
/// is replayed over it.
#[test]
fn a_key_in_both_a_checkpoint_and_the_journal_after_it_is_kept_once() {
    let disk = TestDisk::default();
    let mut rig = Rig::open(&disk).expect("a new store");
    let attempts: Vec<_> = (0..8)
        .map(|number| keyed(add(number), None, &format!("k{number}")))
        .collect();
    let (before, meanwhile) = attempts.split_at(4);
    rig.ask(before);
    rig.begin_checkpoint();
    rig.ask(meanwhile);
    // More often than there are widgets and keys to copy.
    for _ in 0..20 {
        rig.copy();
        rig.write();
    }
    drop(rig);
    let disk = disk.after_power_cut(Kept::Nothing);
    let (clock, mut random) = (TestClock::default(), random());
    let recovered = recovery::recover(&disk, &clock, &mut random, &settings(), 1);
    let recovered = recovered.expect("recovered");
    let first_sequence = recovered.checkpoint.expect("written").first_sequence;
    let identity = Some(recovered.store.identity);
    let loaded = checkpoint::load(&disk, first_sequence, identity, 1).expect("it is whole");
    assert_eq!(loaded.keys.len(), 8, "the checkpoint has all of them");
    let replayed = first_sequence..recovered.end.next_sequence;
    assert_eq!(replayed, 5..9, "and the journal the last four");
    assert_eq!(recovered.retries.len(), 8);
}

/// The power fails at every step. Operations that were under way are retried, and are applied once.
#[test]
fn a_retry_after_a_power_cut_is_applied_once() {
    let story = |disk: &TestDisk| {
        let (mut accepted, mut asked, mut chance) = (Vec::new(), 0, Chance(11));
        let mut answers = Vec::new();
        let Ok(mut rig) = Rig::open(disk) else {
            return (accepted, Vec::new(), answers);
        };
        loop {
            let attempts: Vec<_> = (0..=chance.below(2))
                .map(|each| keyed(command(&mut chance), Some("a"), &format!("{asked}-{each}")))
                .collect();
            asked += 1;
            let given = rig.ask(&attempts);
            if given
                .iter()
                .any(|answer| matches!(answer, Err(Rejection::Fault(_))))
                || asked == 40
            {
                return (accepted, attempts, answers);
            }
            for (attempt, answer) in attempts.into_iter().zip(given) {
                if answer.is_ok() {
                    accepted.push(attempt.command.clone());
                }
                answers.push((attempt, answer));
            }
            rig.copy();
            rig.write();
        }
    };
    let whole = TestDisk::default();
    story(&whole);
    for crash_at in 0..whole.steps() {
        let disk = TestDisk::default();
        disk.set_faults(Faults {
            crash_at: Some(crash_at),
            ..Faults::default()
        });
        let (accepted, unknown, answers) = story(&disk);
        for kept in [Kept::Nothing, Kept::Everything, Kept::Some(crash_at as u64)] {
            let disk = disk.after_power_cut(kept);
            let mut rig = Rig::open(&disk).expect("recovered");
            let before = widgets(rig.state());
            let was_lost = before == widgets(&model(&accepted));
            for (attempt, first) in &answers {
                let given = rig.ask(std::slice::from_ref(attempt));
                assert_eq!(given, [again(first)], "cut at {crash_at}, {kept:?}");
            }
            assert!(widgets(rig.state()) == before, "nothing happened");
            let retried = rig.ask(&unknown);
            let replayed = |answer: &Answer| {
                matches!(answer, Ok(Applied::Before) | Err(Rejection::Replayed(_)))
            };
            // A group is there either completely or not at all.
            assert!(
                retried.iter().all(replayed) || !retried.iter().any(replayed),
                "cut at {crash_at}, {kept:?}: {retried:?}"
            );
            let mut expected = accepted.clone();
            for (attempt, answer) in unknown.iter().zip(&retried) {
                if answer.is_ok() {
                    expected.push(attempt.command.clone());
                }
            }
            assert!(
                widgets(rig.state()) == widgets(&model(&expected)),
                "cut at {crash_at}, {kept:?}: applied once"
            );
            assert!(
                was_lost || retried.iter().all(replayed),
                "it was there before"
            );
        }
    }
}
