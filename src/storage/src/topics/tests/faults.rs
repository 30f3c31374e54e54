//! Disks that fail while a checkpoint writes.

use super::*;

const TROUBLES: [(Op, Trouble); 7] = [
    (Op::Write, Trouble::Eio),
    (Op::Write, Trouble::NoSpace),
    (Op::Write, Trouble::Short(100)),
    (Op::Sync, Trouble::Eio),
    (Op::SyncDir, Trouble::Eio),
    (Op::Create, Trouble::NoSpace),
    (Op::Open, Trouble::Eio),
];

#[test]
fn a_flush_that_fails_loses_nothing_and_succeeds_later() {
    for (op, trouble) in TROUBLES {
        for nth in 1..5 {
            let mut world = World::new(nth);
            world.append(0, "t", 5, &values(0..300, 100));
            world.append(1, "t", 5, &values(0..10, 100));
            world.checkpoint();
            world.append(0, "t", 6, &values(300..600, 100));
            world.append(1, "t", 6, &values(10..20, 100));
            world.append(1, "new", 6, &values(0..2, 100));
            let before = (world.all(0, "t"), world.all(1, "t"));
            world.disk.fail(op, nth, trouble);
            let failed = world.checkpoint_while(|_| {}).is_err();
            world.disk.heal();
            assert!(failed || nth > 1, "{op:?} {trouble:?} was never reached");
            for _ in 0..2 {
                assert_eq!(world.all(0, "t"), before.0, "{op:?} {nth}");
                assert_eq!(world.all(1, "t"), before.1, "{op:?} {nth}");
                assert_eq!(world.all(1, "new").len(), 2);
                assert_eq!(world.problems(), [""; 0]);
                world.restart();
            }
        }
    }
}

#[test]
fn a_full_disk_is_called_so_and_events_stay_in_memory() {
    let mut world = World::new(1);
    world.append(0, "t", 5, &values(0..300, 1000));
    world.disk.set_capacity(Some(50_000));
    let mut frozen = world.topics.freeze();
    for _ in 0..3 {
        let full = world.topics.flush(&mut frozen).unwrap_err();
        assert!(matches!(full, Error::Full), "{full}");
        assert_eq!(world.all(0, "t").len(), 300);
    }
    assert!(world.disk.used() <= 50_000);
    world.disk.set_capacity(None);
    let flushed = world.topics.flush(&mut frozen).unwrap();
    world.store(flushed, 300);
    world.topics.confirm(frozen);
    assert_eq!(world.all(0, "t").len(), 300);
    world.restart();
    assert_eq!(world.all(0, "t").len(), 300);
}

#[test]
fn power_that_fails_anywhere_in_a_checkpoint_costs_nothing() {
    for nth in 1..16 {
        for op in [
            Op::Write,
            Op::Sync,
            Op::SyncDir,
            Op::Create,
            Op::Remove,
            Op::SetLen,
        ] {
            let mut world = World::new(nth * 7);
            world.append(0, "t", 5, &values(0..300, 100));
            world.append(0, "gone", 5, &values(0..10, 100));
            world.checkpoint();
            world.append(0, "t", 6, &values(300..500, 100));
            world.append(1, "t", 6, &values(0..3, 100));
            world.commit(Change::Remove(0, "gone".into()));
            world.commit(Change::Retain(0, "t".into(), 150));
            let before = (world.all(0, "t"), world.all(1, "t"));
            world.disk.fail(op, nth, Trouble::PowerOff);
            let mut frozen = world.topics.freeze();
            let position = world.log.len();
            if let Ok(flushed) = world.topics.flush(&mut frozen) {
                world.store(flushed, position);
                world.topics.confirm(frozen);
            }
            let mut toss = nth;
            world.disk.power_cut(|| {
                toss = toss.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                toss >> 63 == 0
            });
            world.disk.heal();
            for _ in 0..2 {
                world.restart();
                assert_eq!(world.all(0, "t"), before.0, "{op:?} {nth}");
                assert_eq!(world.all(1, "t"), before.1, "{op:?} {nth}");
                assert_eq!(world.topics.names(&ns(0)), ["t"]);
                world.checkpoint();
                assert_eq!(world.problems(), [""; 0], "{op:?} {nth}");
            }
        }
    }
}

#[test]
fn a_checkpoint_of_many_topics_syncs_the_file_system_once() {
    let mut world = World::new(1);
    for i in 0..100 {
        world.append(0, &format!("t{i}"), 1, &values(0..1, 100));
    }
    let before = world.disk.count(Op::Sync);
    world.checkpoint();
    assert_eq!(world.disk.count(Op::Sync), before + 1);
    assert_eq!(world.disk.count(Op::SyncDir), 0);
    world.disk.power_cut(|| false);
    world.restart();
    for i in 0..100 {
        assert_eq!(world.all(0, &format!("t{i}")).len(), 1);
    }
}

#[test]
fn a_file_that_cannot_be_removed_is_removed_at_the_next_start() {
    let mut world = World::new(1);
    world.append(0, "t", 5, &values(0..300, 100));
    world.checkpoint();
    world.commit(Change::Remove(0, "t".into()));
    world.disk.fail_always(Op::Remove, Trouble::Eio);
    world.checkpoint();
    assert!(!world.files().is_empty());
    world.disk.heal();
    world.restart();
    assert!(world.files().is_empty());
}
