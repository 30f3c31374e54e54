//! Appending, writing, letting go and reading at the same time.

use std::{
    sync::atomic::{AtomicBool, AtomicU64},
    thread,
};

use super::*;

#[test]
fn readers_see_every_event_once_and_in_order_whatever_else_goes_on() {
    const EVENTS: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let mut topics = Topics::open(Arc::new(OsDisk), dir.path(), Vec::new()).unwrap();
    topics.full = (8 << 10, 64 << 10);
    let (topics, done) = (&topics, &AtomicBool::new(false));
    let progress = &[AtomicU64::new(0), AtomicU64::new(0)];
    let value = |offset: u64| Bytes::from(offset.to_le_bytes().repeat(20));
    thread::scope(|scope| {
        scope.spawn(move || {
            for from in (0..EVENTS).step_by(50) {
                let entry = |offset| Entry {
                    offset,
                    time: Timestamp(i64::try_from(offset).unwrap()),
                    value: value(offset),
                };
                let entries = (from..from + 50).map(entry).collect();
                topics.append_recent(&ns(0), "t", entries).unwrap();
            }
        });
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                // Nothing that somebody still reads is let go.
                let slowest = progress.iter().map(|p| p.load(Ordering::Relaxed)).min();
                topics.retain(&ns(0), "t", slowest.unwrap());
                let mut frozen = topics.freeze();
                topics.flush(&mut frozen).unwrap();
                topics.confirm(frozen);
            }
        });
        let readers: Vec<_> = [7, 300]
            .into_iter()
            .zip(progress)
            .map(|(page, progress)| {
                scope.spawn(move || {
                    let mut from = 0;
                    while from < EVENTS {
                        let read = topics.read(&ns(0), "t", from, page, 100_000).unwrap();
                        for entry in read {
                            assert_eq!(entry.offset, from);
                            assert_eq!(entry.value, value(from));
                            from += 1;
                        }
                        progress.store(from, Ordering::Relaxed);
                        thread::yield_now();
                    }
                })
            })
            .collect();
        let ended: Vec<_> = readers.into_iter().map(|r| r.join().is_ok()).collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(ended, [true, true]);
    });
    let bounds = topics.bounds(&ns(0), "t");
    assert_eq!(bounds.next, EVENTS);
}
