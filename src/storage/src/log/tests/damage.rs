//! Damage is told, and a torn tail is not taken for it.

use super::*;

fn detail(error: &Error) -> &str {
    match error {
        Error::Damaged { detail, .. } => detail,
        other => panic!("not damage: {other}"),
    }
}

#[test]
fn damage_in_the_middle_is_told_and_not_taken_for_the_end() {
    let disk = FaultyDisk::new(5);
    let mut log = warm(&disk);
    for n in 0..20u8 {
        append(&mut log, &[&[n; 100]]).unwrap();
    }
    let path = log.active.as_ref().unwrap().path.clone();
    drop(log);
    // Within a record, in a head's length, and in a head's generation.
    let fourth = START + 24 + 3 * 120;
    for at in [fourth + 50, fourth, fourth + 8] {
        disk.edit(&path, |bytes| bytes[at as usize] ^= 0x40);
        let error = open_from(&disk, Position(0)).unwrap_err();
        assert!(
            detail(&error).contains("no valid record at byte"),
            "{error}"
        );
        check(&disk).unwrap_err();
        disk.edit(&path, |bytes| bytes[at as usize] ^= 0x40);
        check(&disk).unwrap();
    }
}

#[test]
fn damage_before_the_last_segment_is_told() {
    let disk = FaultyDisk::new(5);
    let mut log = warm(&disk);
    let first = log.active.as_ref().unwrap().path.clone();
    let record = [1; 10_000];
    for _ in 0..20 {
        append(&mut log, &[&record]).unwrap();
        log.work().unwrap();
    }
    let from = log.end();
    append(&mut log, &[b"last"]).unwrap();
    drop(log);
    let last_group = (START + 24 + 5 * 10_016) as usize;
    disk.edit(&first, |bytes| bytes[last_group + 9000] ^= 1);
    let error = open_from(&disk, Position(0)).unwrap_err();
    assert!(detail(&error).contains("the log goes on"), "{error}");
    assert_eq!(open_from(&disk, from).unwrap().1, [b"last"]);
    disk.remove(&first).unwrap();
    let error = open_from(&disk, Position(0)).unwrap_err();
    assert!(detail(&error).contains("is missing"), "{error}");
}

#[test]
fn a_lost_first_page_is_told_if_anything_behind_it_was_acknowledged() {
    let disk = FaultyDisk::new(5);
    let mut log = warm(&disk);
    let path = log.active.as_ref().unwrap().path.clone();
    append(&mut log, &[b"second"]).unwrap();
    drop(log);
    disk.edit(&path, |bytes| bytes[..4096].fill(0xee));
    let error = open_from(&disk, Position(0)).unwrap_err();
    assert!(detail(&error).contains("first page"), "{error}");
}

#[test]
fn a_log_that_ends_before_the_checkpoint_is_told() {
    let disk = FaultyDisk::new(5);
    let (mut log, _) = open(&disk);
    for _ in 0..20 {
        append(&mut log, &[&[1; 1000]]).unwrap();
    }
    let end = log.end();
    drop(log);
    let path = files(&disk).remove(0);
    disk.edit(&path, |bytes| bytes.truncate(9000));
    let error = open_from(&disk, end).unwrap_err();
    assert!(detail(&error).contains("before the checkpoint"), "{error}");
}

#[test]
fn a_torn_group_ends_the_log_and_is_not_damage() {
    // 1000 bytes each: many of the 512-byte pieces survive, in any order.
    let record = vec![7; 1000];
    let group: Vec<&[u8]> = vec![&record; 20];
    for seed in 0..64u64 {
        let disk = FaultyDisk::new(seed);
        let mut log = warm(&disk);
        disk.fail(Op::Sync, 1, Trouble::PowerOff);
        append(&mut log, &group).unwrap_err();
        drop(log);
        let mut toss = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        disk.power_cut(|| {
            toss ^= toss << 13;
            toss ^= toss >> 7;
            toss ^= toss << 17;
            toss.is_multiple_of(4)
        });
        check(&disk).unwrap();
        let (mut log, records) = open(&disk);
        assert_eq!(records[0], b"first");
        assert!(records[1..].iter().all(|r| *r == record));
        append(&mut log, &[b"after"]).unwrap();
        drop(log);
        disk.power_cut(|| false);
        let (_, again) = open(&disk);
        assert_eq!(again.len(), records.len() + 1);
        assert_eq!(again.last().unwrap(), b"after");
    }
}

#[test]
fn what_an_earlier_start_left_in_a_spare_is_not_taken_for_this_ones() {
    let disk = FaultyDisk::new(5);
    let (mut log, _) = open(&disk);
    log.spares.want();
    log.work().unwrap();
    // The group reaches the disk, the first page does not. The second record is on a page that
    // shorter groups do not touch.
    disk.fail(Op::Sync, 1, Trouble::PowerOff);
    append(&mut log, &[&[1; 4080], b"stale"]).unwrap_err();
    drop(log);
    let mut pieces = 0;
    disk.power_cut(|| {
        pieces += 1;
        pieces > 8
    });
    let (mut log, records) = open(&disk);
    assert!(records.is_empty());
    append(&mut log, &[&[2; 4080]]).unwrap();
    let active = log.active.as_ref().unwrap();
    assert_eq!((active.grows, active.header.generation), (false, 1));
    drop(log);
    assert_eq!(open(&disk).1, [[2; 4080]]);
}

#[test]
fn a_segment_that_was_cut_off_in_vain_does_not_come_back_as_another() {
    for seed in 0..64 {
        let disk = FaultyDisk::new(seed);
        let (mut log, _) = open(&disk);
        disk.fail_always(Op::Sync, Trouble::Eio);
        append(&mut log, &[b"refused"]).unwrap_err();
        log.work().unwrap();
        drop(log);
        disk.heal();
        let (mut log, records) = open(&disk);
        assert!(records.is_empty());
        append(&mut log, &[b"acknowledged"]).unwrap();
        drop(log);
        disk.power_cut(|| true);
        assert_eq!(open(&disk).1, [b"acknowledged"]);
    }
}
