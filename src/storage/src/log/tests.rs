//! The log on a disk that fails, one situation at a time; `model.rs` tries all of them at random.

use std::{path::PathBuf, time::Duration};

use super::*;
use crate::disk::{
    OsDisk,
    faulty::{FaultyDisk, Op, Trouble},
};

mod damage;
mod model;

const SEGMENT: u64 = 64 * 1024;

fn directory() -> PathBuf {
    PathBuf::from("/state/storage/log")
}

/// Opens without the thread; gives the records too.
fn open_from(disk: &FaultyDisk, from: Position) -> Result<(Log, Vec<Vec<u8>>), Error> {
    let mut records = Vec::new();
    let mut last = from;
    let log = Log::open_idle(
        Arc::new(disk.clone()),
        &directory(),
        SEGMENT,
        from,
        &mut |behind, record| {
            assert!(behind > last, "{behind} after {last}");
            last = behind;
            records.push(record.to_vec());
            Ok(())
        },
    )?;
    assert!(records.is_empty() || log.end() == last);
    Ok((log, records))
}

fn open(disk: &FaultyDisk) -> (Log, Vec<Vec<u8>>) {
    open_from(disk, Position(0)).unwrap()
}

fn append(log: &mut Log, records: &[&[u8]]) -> Result<Position, Error> {
    let mut group = Group::new();
    for record in records {
        group.push(record);
    }
    log.append(&mut group)
}

/// A log whose segments are prepared, with one record in it.
fn warm(disk: &FaultyDisk) -> Log {
    let (mut log, _) = open(disk);
    log.spares.want();
    log.work().unwrap();
    append(&mut log, &[b"first"]).unwrap();
    assert!(!log.active.as_ref().unwrap().grows);
    log
}

fn files(disk: &FaultyDisk) -> Vec<PathBuf> {
    disk.list(&directory())
        .unwrap()
        .into_iter()
        .map(|entry| directory().join(entry.name))
        .collect()
}

fn check(disk: &FaultyDisk) -> Result<LogReport, Error> {
    Log::check(disk, &directory(), Position(0), &mut |_, _| Ok(()))
}

#[test]
fn records_come_back_in_order_after_a_power_cut() {
    let disk = FaultyDisk::new(1);
    let (mut log, before) = open(&disk);
    assert!(before.is_empty());
    append(&mut log, &[b"a", b"", b"c"]).unwrap();
    let end = append(&mut log, &[b"d"]).unwrap();
    drop(log);
    disk.power_cut(|| false);
    let (mut log, records) = open(&disk);
    assert_eq!(records, [&b"a"[..], b"", b"c", b"d"]);
    assert_eq!(log.end(), end);
    append(&mut log, &[b"e"]).unwrap();
    drop(log);
    disk.power_cut(|| false);
    let (_, records) = open_from(&disk, end).unwrap();
    assert_eq!(records, [b"e"]);
    assert_eq!(check(&disk).unwrap().records, 5);
}

#[test]
fn a_group_in_a_prepared_segment_is_one_write_and_one_sync() {
    let disk = FaultyDisk::new(1);
    let mut log = warm(&disk);
    let (writes, syncs) = (disk.count(Op::Write), disk.count(Op::Sync));
    append(&mut log, &[b"a", b"b", b"c"]).unwrap();
    assert_eq!(disk.count(Op::Write), writes + 1);
    assert_eq!(disk.count(Op::Sync), syncs + 1);
    assert_eq!(disk.count(Op::SetLen), 0);
}

#[test]
fn a_refused_group_never_comes_back() {
    for (op, trouble) in [
        (Op::Write, Trouble::Eio),
        (Op::Write, Trouble::NoSpace),
        (Op::Write, Trouble::Short(3000)),
        (Op::Sync, Trouble::Eio),
    ] {
        for cut_fails in [false, true] {
            let disk = FaultyDisk::new(3);
            let mut log = warm(&disk);
            disk.fail(op, 1, trouble);
            if cut_fails {
                disk.fail(Op::SetLen, 1, Trouble::Eio);
            }
            let record = [9; 1500];
            append(&mut log, &[&record, &record, &record]).unwrap_err();
            assert!(log.suspect.is_none());
            append(&mut log, &[b"second"]).unwrap();
            drop(log);
            disk.power_cut(|| true);
            let (_, records) = open(&disk);
            assert_eq!(records, [&b"first"[..], b"second"], "{op:?} {trouble:?}");
        }
    }
}

#[test]
fn a_refused_group_does_not_come_back_when_the_power_goes_right_after_the_answer() {
    for cut_fails in [false, true] {
        let disk = FaultyDisk::new(3);
        let mut log = warm(&disk);
        disk.fail(Op::Sync, 1, Trouble::Eio);
        if cut_fails {
            disk.fail(Op::SetLen, 1, Trouble::Eio);
        }
        append(&mut log, &[b"refused"]).unwrap_err();
        drop(log);
        disk.power_cut(|| true);
        assert_eq!(open(&disk).1, [b"first"]);
    }
}

#[test]
fn nothing_is_appended_while_a_refused_group_is_not_cut_off() {
    let disk = FaultyDisk::new(3);
    let mut log = warm(&disk);
    for op in [Op::Write, Op::Sync, Op::SetLen] {
        disk.fail_always(op, Trouble::Eio);
    }
    for _ in 0..3 {
        append(&mut log, &[b"refused"]).unwrap_err();
        assert!(log.suspect.is_some());
    }
    disk.heal();
    append(&mut log, &[b"second"]).unwrap();
    drop(log);
    disk.power_cut(|| true);
    assert_eq!(open(&disk).1, [&b"first"[..], b"second"]);
}

#[test]
fn an_older_segment_is_not_written_behind_the_first_page_of_one_that_failed() {
    let disk = FaultyDisk::new(3);
    let mut log = warm(&disk);
    for op in [Op::Sync, Op::SetLen] {
        disk.fail_always(op, Trouble::Eio);
    }
    // It needs a segment of its own, which fails, and so does the one that should cut it off.
    append(&mut log, &[&[1; 100_000]]).unwrap_err();
    disk.heal();
    append(&mut log, &[b"second"]).unwrap();
    drop(log);
    assert_eq!(open(&disk).1, [&b"first"[..], b"second"]);
}

#[test]
fn a_full_disk_refuses_with_its_own_error_and_recovers() {
    let disk = FaultyDisk::new(5);
    let (mut log, _) = open(&disk);
    append(&mut log, &[b"first"]).unwrap();
    disk.set_capacity(Some(disk.used() + 8192));
    let record = [1; 5000];
    let mut taken = 1;
    let refused = loop {
        match append(&mut log, &[&record]) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Full), "{refused}");
    let used = disk.used();
    for _ in 0..5 {
        assert!(matches!(append(&mut log, &[&record]), Err(Error::Full)));
        // Without the thread, what is of no use any more goes here.
        log.work().unwrap();
    }
    assert!(disk.used() <= used, "a full disk is not filled further");
    disk.set_capacity(None);
    append(&mut log, &[b"last"]).unwrap();
    drop(log);
    disk.power_cut(|| false);
    let (_, records) = open(&disk);
    assert_eq!(records.len(), taken + 1);
    assert_eq!(records.last().unwrap(), b"last");
}

#[test]
fn prepared_segments_take_records_while_the_disk_is_full() {
    let disk = FaultyDisk::new(5);
    let mut log = warm(&disk);
    log.work().unwrap();
    disk.set_capacity(Some(0));
    let record = [1; 5000];
    let mut taken = 0;
    while append(&mut log, &[&record]).is_ok() {
        taken += 1;
    }
    assert!(taken > 20, "{taken}");
    log.recycle(log.end());
    append(&mut log, &[&record]).unwrap();
}

#[test]
fn a_half_prepared_spare_is_removed_when_the_disk_is_full() {
    let disk = FaultyDisk::new(5);
    let log = warm(&disk);
    disk.set_capacity(Some(disk.used() + 10_000));
    let used = disk.used();
    log.work().unwrap_err();
    assert_eq!(disk.used(), used);
}

#[test]
fn segments_below_a_checkpoint_are_used_again_and_not_more_than_needed() {
    let disk = FaultyDisk::new(5);
    let mut log = warm(&disk);
    let record = [1; 3000];
    for round in 0..500u32 {
        append(&mut log, &[&record, &round.to_le_bytes()]).unwrap();
        log.work().unwrap();
        if round % 50 == 49 {
            log.recycle(log.end());
        }
    }
    // 150 kB between two checkpoints; never more than that, the spares, and one ahead.
    assert!(files(&disk).len() <= 8, "{:?}", files(&disk));
    assert!(disk.used() <= 8 * SEGMENT);
    let end = log.end();
    append(&mut log, &[b"tail"]).unwrap();
    drop(log);
    assert_eq!(open_from(&disk, end).unwrap().1, [b"tail"]);
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own() {
    let disk = FaultyDisk::new(5);
    let mut log = warm(&disk);
    let large = vec![3; 300_000];
    append(&mut log, &[&large, b"with it"]).unwrap();
    append(&mut log, &[b"behind"]).unwrap();
    log.recycle(log.end());
    append(&mut log, &[b"x"]).unwrap();
    log.recycle(log.end());
    log.work().unwrap();
    assert!(disk.used() <= 4 * SEGMENT, "the large one is gone");
    let disk = FaultyDisk::new(5);
    let mut log = warm(&disk);
    append(&mut log, &[&large]).unwrap();
    drop(log);
    disk.power_cut(|| false);
    assert_eq!(open(&disk).1, [b"first".to_vec(), large]);
}

#[test]
fn an_empty_directory_begins_at_the_checkpoint() {
    let disk = FaultyDisk::new(5);
    let (mut log, _) = open_from(&disk, Position(12_345)).unwrap();
    assert_eq!(log.end(), Position(12_345));
    append(&mut log, &[b"a"]).unwrap();
    drop(log);
    assert_eq!(open_from(&disk, Position(12_345)).unwrap().1, [b"a"]);
    open_from(&disk, Position(12_000)).unwrap_err();
}

#[test]
fn what_a_killed_process_left_in_memory_is_durable_once_it_was_replayed() {
    let disk = FaultyDisk::new(5);
    let mut log = warm(&disk);
    // The sync fails, and the cut does: the group stays in the page cache, which looks clean.
    for op in [Op::Sync, Op::SetLen, Op::Create, Op::Open] {
        disk.fail_always(op, Trouble::Eio);
    }
    append(&mut log, &[&[1; 9000]]).unwrap_err();
    drop(log);
    disk.heal();
    let (mut log, records) = open(&disk);
    assert_eq!(records.len(), 2);
    append(&mut log, &[b"on top"]).unwrap();
    drop(log);
    disk.power_cut(|| false);
    assert_eq!(open(&disk).1.len(), 3);
}

#[test]
fn a_later_format_is_refused_by_name() {
    let disk = FaultyDisk::new(5);
    let (mut log, _) = open(&disk);
    append(&mut log, &[b"a"]).unwrap();
    drop(log);
    disk.edit(&files(&disk).remove(0), |bytes| {
        for at in [0, 2048] {
            bytes[at + 8] = 2;
            let sum = crc32fast::hash(&bytes[at..at + 60]);
            bytes[at + 60..at + 64].copy_from_slice(&sum.to_le_bytes());
        }
    });
    let error = open_from(&disk, Position(0)).unwrap_err();
    assert!(matches!(
        error,
        Error::NewerFile {
            found: 2,
            known: 1,
            ..
        }
    ));
}

/// A segment as version 1 writes it. When this fails, the format changed: give it a new version
/// and keep reading this one.
#[test]
fn a_segment_of_version_1_is_read() {
    let mut file = vec![0u8; 4096];
    for at in [0, 2048] {
        file[at..at + 8].copy_from_slice(b"MICROLOG");
        file[at + 8] = 1;
        file[at + 12] = 5;
        file[at + 24..at + 32].copy_from_slice(&1000u64.to_le_bytes());
        file[at + 32..at + 40].copy_from_slice(&0x1234_5678_9abc_def0u64.to_le_bytes());
        file[at + 60..at + 64].copy_from_slice(&0xceb0f538_u32.to_le_bytes());
    }
    file.extend([5, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]);
    file.extend(0xba403869_u32.to_le_bytes());
    file.extend(b"hello\0\0\0");
    let disk = FaultyDisk::new(1);
    disk.create_dir_all(&directory()).unwrap();
    let path = directory().join("0000000000000003.seg");
    disk.create(&path).unwrap();
    disk.edit(&path, |bytes| *bytes = file);
    let (log, records) = open_from(&disk, Position(1000)).unwrap();
    assert_eq!(records, [b"hello"]);
    assert_eq!(log.end(), Position(1024));
}

#[test]
fn the_thread_prepares_a_spare_on_a_real_disk_and_the_log_moves_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut records = Vec::new();
    let mut log = Log::open(
        Arc::new(OsDisk),
        &path,
        1 << 20,
        Position(0),
        &mut |_, _| Ok(()),
    )
    .unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let mut grown = false;
    while log.active.as_ref().is_none_or(|active| active.grows) {
        assert!(std::time::Instant::now() < deadline, "no spare came");
        records.push(vec![records.len() as u8; 700]);
        append(&mut log, &[records.last().unwrap()]).unwrap();
        grown |= log.active.as_ref().unwrap().grows;
    }
    assert!(grown, "the first record did not wait for a spare");
    drop(log);
    let mut again = Vec::new();
    let log = Log::open(
        Arc::new(OsDisk),
        &path,
        1 << 20,
        Position(0),
        &mut |_, record| {
            again.push(record.to_vec());
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(again, records);
    drop(log);
    let report = Log::check(&OsDisk, &path, Position(0), &mut |_, _| Ok(())).unwrap();
    assert_eq!(report.records, records.len() as u64);
}
