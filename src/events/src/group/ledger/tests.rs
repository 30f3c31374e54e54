use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

const WAIT: Duration = Duration::from_secs(30);
const MANUAL: Terms = Terms {
    auto: false,
    wait: WAIT,
    limit: None,
};

fn id(offset: u64) -> EventId {
    let mut id = [b'0'; 36];
    id[..20].copy_from_slice(format!("{offset:020}").as_bytes());
    id
}

fn with_limit(limit: u32) -> Terms {
    Terms {
        limit: Some(limit),
        ..MANUAL
    }
}

/// Hands over and takes.
fn give(ledger: &mut Ledger, offset: u64, member: u64, terms: Terms, now: Instant) -> u32 {
    let number = ledger.hand_over(offset, id(offset), member, terms, now);
    ledger.taken(offset, member, now);
    number
}

#[tokio::test]
async fn answered_events_move_the_position() {
    let (mut ledger, now) = (Ledger::restore(&Position::at(5)), Instant::now());
    for offset in 5..8 {
        assert_eq!(give(&mut ledger, offset, 1, MANUAL, now), 1);
    }
    assert_eq!(ledger.flying(1), 3);
    ledger.ack(&id(6));
    assert_eq!(
        ledger.position(),
        Position {
            next: 8,
            open: vec![(5, 1), (7, 1)]
        }
    );
    assert!(ledger.take_changed());
    ledger.ack(&id(5));
    assert_eq!(ledger.floor(), 7);
    ledger.ack(&id(7));
    ledger.ack(&id(7));
    assert_eq!(ledger.position(), Position::at(8));
    assert_eq!(
        (ledger.flying(1), ledger.flights(), ledger.open()),
        (0, 0, 0)
    );
    assert_eq!(ledger.next_due(), None);
}

#[tokio::test]
async fn silence_ends_with_another_delivery() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    give(&mut ledger, 0, 1, MANUAL, now);
    assert_eq!(ledger.next_due(), Some(now + WAIT));
    assert_eq!(ledger.expire(now + WAIT - Duration::from_millis(1)), None);
    assert_eq!(ledger.again().count(), 0);
    assert_eq!(ledger.expire(now + WAIT), None);
    assert_eq!(ledger.again().collect::<Vec<_>>(), [0]);
    assert_eq!(give(&mut ledger, 0, 2, MANUAL, now), 2);
    // The first consumer answers late: that is an answer.
    ledger.ack(&id(0));
    assert_eq!(ledger.position(), Position::at(1));
}

#[tokio::test]
async fn a_no_rests_before_the_next_delivery() {
    let (mut ledger, mut now) = (Ledger::default(), Instant::now());
    for (delivery, rest) in [(1, 100), (2, 200), (3, 400)] {
        assert_eq!(give(&mut ledger, 0, 1, MANUAL, now), delivery);
        ledger.nack(&id(0), 2, now);
        assert_eq!(ledger.flying(1), 1, "others have no say");
        ledger.nack(&id(0), 1, now);
        let due = now + Duration::from_millis(rest);
        assert_eq!(ledger.next_due(), Some(due));
        now = due;
        assert_eq!(ledger.expire(now), None);
        assert!(ledger.is_again(0));
    }
}

#[tokio::test]
async fn an_event_is_given_up_after_its_last_delivery() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let terms = with_limit(1);
    give(&mut ledger, 0, 1, terms, now);
    assert_eq!(ledger.expire(now + WAIT), None);
    assert_eq!(give(&mut ledger, 0, 1, terms, now), 2);
    ledger.nack(&id(0), 1, now);
    assert_eq!(ledger.dying().collect::<Vec<_>>(), [(0, 2)]);
    // It is not done before it is somewhere else.
    assert_eq!(ledger.floor(), 0);
    ledger.done(0);
    assert_eq!(ledger.position(), Position::at(1));
}

#[tokio::test]
async fn who_leaves_leaves_its_events_to_others() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    give(&mut ledger, 0, 1, with_limit(0), now);
    ledger.hand_over(1, id(1), 1, MANUAL, now);
    give(&mut ledger, 2, 2, MANUAL, now);
    ledger.leave(1);
    assert_eq!(ledger.again().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(ledger.flying(2), 1);
    // The connection never took event 1, so nobody can have seen it.
    assert_eq!(give(&mut ledger, 1, 2, MANUAL, now), 1);
    // An event without retries survives its consumer once, not twice.
    assert_eq!(give(&mut ledger, 0, 3, with_limit(0), now), 2);
    ledger.leave(3);
    assert_eq!(ledger.dying().collect::<Vec<_>>(), [(0, 2)]);
}

#[tokio::test]
async fn a_stop_of_ours_counts_against_nobody() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    for _ in 0..3 {
        give(&mut ledger, 0, 1, with_limit(0), now);
        ledger.recall(1);
    }
    assert_eq!(ledger.dying().count(), 0);
    assert_eq!(ledger.position().open, [(0, 3)]);
}

#[tokio::test]
async fn what_the_connection_did_not_take_is_nobodys_fault() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    ledger.hand_over(0, id(0), 1, with_limit(0), now);
    let stuck = Stuck {
        offset: 0,
        member: 1,
    };
    assert_eq!(ledger.expire(now + WAIT), Some(stuck));
    ledger.postpone(0, now + WAIT);
    assert_eq!(ledger.expire(now + WAIT), None);
    assert_eq!(ledger.expire(now + 2 * WAIT), Some(stuck));
    ledger.withdrawn(0);
    assert_eq!(ledger.position().open, [(0, 0)]);
    assert_eq!(give(&mut ledger, 0, 2, with_limit(0), now), 1);
}

#[tokio::test]
async fn without_answers_an_event_is_done_when_it_was_taken() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let terms = Terms {
        auto: true,
        ..MANUAL
    };
    ledger.hand_over(0, id(0), 1, terms, now);
    ledger.hand_over(1, id(1), 1, terms, now);
    ledger.taken(0, 1, now);
    assert_eq!(ledger.floor(), 1);
    ledger.leave(1);
    assert_eq!(ledger.again().collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn what_the_topic_dropped_is_skipped_and_counted() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    give(&mut ledger, 0, 1, MANUAL, now);
    give(&mut ledger, 1, 1, MANUAL, now);
    ledger.ack(&id(0));
    assert_eq!(ledger.skip_below(10), 9, "event 1, and 2 to 9");
    assert_eq!(ledger.position(), Position::at(10));
    assert_eq!(ledger.flying(1), 0);
    assert_eq!(ledger.skip_below(10), 0);
}

/// What a test does to a ledger.
#[derive(Debug, Clone)]
enum Step {
    HandOut { member: u64, take: bool },
    Take(u8),
    Ack(u8),
    Nack(u8),
    Leave(u64),
    Pass(u16),
    Bury,
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3u64, any::<bool>()).prop_map(|(member, take)| Step::HandOut { member, take }),
        2 => any::<u8>().prop_map(Step::Take),
        4 => any::<u8>().prop_map(Step::Ack),
        2 => any::<u8>().prop_map(Step::Nack),
        1 => (0..3u64).prop_map(Step::Leave),
        2 => (0..40_000u16).prop_map(Step::Pass),
        1 => Just(Step::Bury),
        1 => Just(Step::Reload),
    ]
}

proptest! {
    /// Against a list of what is done: nothing that is not done is ever forgotten, nothing that is
    /// done comes back, and new events come in order.
    #[test]
    fn nothing_is_lost_and_nothing_done_comes_back(steps in proptest::collection::vec(step(), 1..200)) {
        let terms = [MANUAL, with_limit(1), with_limit(0)];
        let mut now = Instant::now();
        let mut ledger = Ledger::default();
        let mut done: HashSet<u64> = HashSet::new();
        // Who has what, as the consumers see it.
        let mut held: BTreeMap<u64, u64> = BTreeMap::new();
        for step in steps {
            let pick = |n: u8, held: &BTreeMap<u64, u64>| {
                held.iter().nth(usize::from(n) % held.len().max(1)).map(|(o, m)| (*o, *m))
            };
            match step {
                Step::HandOut { member, take } => {
                    let offset = ledger.again().next().unwrap_or(ledger.next());
                    prop_assert!(!done.contains(&offset), "{} came back", offset);
                    let terms = terms[usize::try_from(member).unwrap()];
                    ledger.hand_over(offset, id(offset), member, terms, now);
                    if take {
                        ledger.taken(offset, member, now);
                    }
                    held.insert(offset, member);
                }
                Step::Take(n) => {
                    if let Some((offset, member)) = pick(n, &held) {
                        ledger.taken(offset, member, now);
                    }
                }
                Step::Ack(n) => {
                    if let Some((offset, _)) = pick(n, &held) {
                        ledger.ack(&id(offset));
                        held.remove(&offset);
                        done.insert(offset);
                    }
                }
                Step::Nack(n) => {
                    if let Some((offset, member)) = pick(n, &held) {
                        ledger.nack(&id(offset), member, now);
                    }
                }
                Step::Leave(member) => {
                    ledger.leave(member);
                    held.retain(|_, holder| *holder != member);
                }
                Step::Pass(ms) => {
                    now += Duration::from_millis(u64::from(ms));
                    while let Some(stuck) = ledger.expire(now) {
                        if stuck.offset % 2 == 0 {
                            ledger.withdrawn(stuck.offset);
                        } else {
                            ledger.postpone(stuck.offset, now);
                        }
                    }
                }
                Step::Bury => {
                    let dying: Vec<_> = ledger.dying().collect();
                    for (offset, _) in dying {
                        ledger.done(offset);
                        done.insert(offset);
                        held.remove(&offset);
                    }
                }
                Step::Reload => {
                    let position = Position::decode(&ledger.position().encode()).unwrap();
                    ledger = Ledger::restore(&position);
                    held.clear();
                }
            }
            let open: HashSet<u64> = ledger.position().open.iter().map(|(o, _)| *o).collect();
            for offset in 0..ledger.next() {
                prop_assert_eq!(open.contains(&offset), !done.contains(&offset));
            }
            let states = ledger.again().count() + ledger.dying().count() + ledger.flights();
            let resting = open.len() - states;
            prop_assert!(resting <= open.len());
            let waiting = ledger.flights() + resting;
            prop_assert_eq!(ledger.next_due().is_some(), waiting > 0);
        }
    }
}
