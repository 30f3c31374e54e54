//! How fast it is. Run with `cargo test --release -- --ignored --nocapture topics::tests::speed`.

use std::time::Instant;

use super::*;

#[test]
#[ignore = "measures; slow"]
fn write_and_read_many_events() {
    let events = 4_000_000u64;
    for size in [256usize, 4096] {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let topics = Topics::open(Arc::new(OsDisk), dir.path(), Vec::new()).unwrap();
        let value = Bytes::from(vec![7; size]);
        let events = events * 256 / size as u64;
        let megabytes = (events * (size as u64 + 24)) as f64 / 1e6;
        let (mut appending, mut flushing) = (Duration::ZERO, Duration::ZERO);
        let group = (16 << 20) / size as u64;
        for from in (0..events).step_by(usize::try_from(group).unwrap()) {
            let to = (from + group).min(events);
            let begin = Instant::now();
            for from in (from..to).step_by(500) {
                let entry = |offset: u64| Entry {
                    offset,
                    time: Timestamp(i64::try_from(offset).unwrap()),
                    value: value.clone(),
                };
                let entries = (from..(from + 500).min(to)).map(entry).collect();
                topics.append_recent(&ns(0), "t", entries).unwrap();
            }
            appending += begin.elapsed();
            let begin = Instant::now();
            let mut frozen = topics.freeze();
            topics.flush(&mut frozen).unwrap();
            topics.confirm(frozen);
            flushing += begin.elapsed();
        }
        let mut rates = Vec::new();
        for page in [100, 1000, usize::MAX] {
            let begin = Instant::now();
            let mut from = 0;
            while let Some(last) = topics
                .read(&ns(0), "t", from, page, 1 << 20)
                .unwrap()
                .last()
            {
                from = last.offset + 1;
            }
            assert_eq!(from, events);
            rates.push(megabytes / begin.elapsed().as_secs_f64());
        }
        let begin = Instant::now();
        let seeks = 2000;
        for i in 0..seeks {
            let from = i * 7_919_993 % events;
            assert_eq!(
                topics.read(&ns(0), "t", from, 1, 1).unwrap()[0].offset,
                from
            );
        }
        let seek = begin.elapsed() / u32::try_from(seeks).unwrap();
        println!(
            "{size} B: append {:.0} MB/s, flush {:.0} MB/s, read {rates:.0?} MB/s, seek {seek:?}",
            megabytes / appending.as_secs_f64(),
            megabytes / flushing.as_secs_f64(),
        );
    }
}
