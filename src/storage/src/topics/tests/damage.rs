//! Bits that flip, files that are cut or lost.

use super::*;

/// A topic of some segments, and its files in order.
fn stored(seed: u64) -> (World, Vec<PathBuf>) {
    let mut world = World::new(seed);
    world.append(0, "t", 5, &values(0..500, 100));
    world.checkpoint();
    let mut files = world.files();
    files.retain(|f| f.extension().is_some_and(|e| e == "seg"));
    assert!(files.len() > 3);
    world.restart();
    (world, files)
}

/// What reading from 0 gives when damage is passed over.
fn readable(world: &World) -> (Vec<u64>, Vec<(u64, u64)>) {
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    let mut from = 0;
    loop {
        match world.topics.read(&ns(0), "t", from, 7, 1000) {
            Ok(entries) => {
                let Some(last) = entries.last() else {
                    return (found, damaged);
                };
                from = last.offset + 1;
                found.extend(offsets(&entries));
            }
            Err(Error::Event {
                offset,
                resume,
                topic,
                ..
            }) => {
                assert_eq!(topic, "t");
                assert!(resume > offset && offset >= from);
                damaged.push((offset, resume));
                from = resume;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// The position of the event `offset` in a file that begins with `base`: 124 bytes each.
fn position(offset: u64, base: u64) -> usize {
    let head = record::segment_head_length(&ns(0), "t");
    usize::try_from(head + (offset - base) * 124).unwrap()
}

#[test]
fn one_damaged_event_is_named_and_all_others_are_read() {
    // In the length, the checksum, the offset, the time, the value.
    for byte in [0, 1, 2, 3, 4, 8, 12, 16, 24, 123] {
        let (world, files) = stored(1);
        world
            .disk
            .edit(&files[0], |content| content[position(20, 0) + byte] ^= 0x40);
        let (found, damaged) = readable(&world);
        assert_eq!(damaged, [(20, 21)], "byte {byte}");
        assert_eq!(found.len(), 499, "byte {byte}");
        let problems = world.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].contains("events 20 to 20 of the topic \"t\""),
            "{problems:?}"
        );
        let direct = world.topics.read(&ns(0), "t", 20, 1, 1).unwrap_err();
        assert!(
            direct.to_string().contains("event 20 of the topic \"t\""),
            "{direct}"
        );
    }
}

#[test]
fn a_file_that_was_cut_off_or_lost_costs_its_own_events_alone() {
    let (mut world, files) = stored(1);
    world.disk.edit(&files[1], |content| content.truncate(5000));
    world.disk.remove(&files[2]).unwrap();
    world.restart();
    let base = |i: usize| record::segment_base(files[i].file_name().unwrap().to_str().unwrap());
    let (second, fourth) = (base(1).unwrap(), base(3).unwrap());
    let (found, damaged) = readable(&world);
    let lost = damaged[0].0;
    assert!(lost > second && position(lost, second) <= 5000);
    assert_eq!(damaged.last().unwrap().1, fourth);
    let expected: Vec<_> = (0..lost).chain(fourth..500).collect();
    assert_eq!(found, expected);
    assert!(!world.problems().is_empty());
    // Finding by time does not stumble over it.
    let at = world.topics.offset_at(&ns(0), "t", Timestamp(6)).unwrap();
    assert_eq!(at, 500);
}

#[test]
fn a_lost_end_is_reported_and_the_topic_goes_on() {
    let (mut world, files) = stored(1);
    let last = files.last().unwrap();
    world.disk.edit(last, |content| content.truncate(100));
    world.restart();
    world.append(0, "t", 9, &values(0..10, 100));
    world.checkpoint();
    world.restart();
    let (found, damaged) = readable(&world);
    let base = record::segment_base(last.file_name().unwrap().to_str().unwrap()).unwrap();
    assert_eq!(damaged, [(base, 500)]);
    assert_eq!(found, (0..base).chain(500..510).collect::<Vec<_>>());
}

#[test]
fn an_index_that_is_missing_or_damaged_is_made_again() {
    let (mut world, files) = stored(1);
    let index = files[1].with_extension("idx");
    let mut good = Vec::new();
    world.disk.edit(&index, |content| good.clone_from(content));
    for broken in 0..3 {
        match broken {
            0 => world.disk.remove(&index).unwrap(),
            1 => world.disk.edit(&index, |content| content[20] ^= 1),
            _ => world.disk.edit(&index, |content| content.truncate(3)),
        }
        world.restart();
        assert_eq!(readable(&world).0.len(), 500);
        world
            .disk
            .edit(&index, |content| assert_eq!(*content, good));
    }
}

#[test]
fn the_head_of_a_segment_is_checked() {
    let (world, files) = stored(1);
    world.disk.edit(&files[0], |content| content[20] ^= 1);
    assert_eq!(readable(&world).0.len(), 500, "events stand for themselves");
    assert!(world.problems()[0].contains("head"));
    world
        .disk
        .edit(&files[0], |content| content[8] = record::VERSION + 1);
    world.topics.open.forget_all(1);
    let newer = world.topics.read(&ns(0), "t", 0, 1, 1).unwrap_err();
    assert!(
        matches!(newer, Error::NewerFile { found: 2, .. }),
        "{newer}"
    );
}

#[test]
fn an_event_that_holds_a_segment_is_not_taken_for_its_events() {
    let mut world = World::new(1);
    world.append(0, "t", 5, &values(0..40, 100));
    world.checkpoint();
    let file = world.files().remove(0);
    let mut content = Vec::new();
    world.disk.edit(&file, |bytes| content.clone_from(bytes));
    world.append(1, "t", 5, &[vec![1], content, vec![2]]);
    world.checkpoint();
    let file = world.files().pop().unwrap();
    assert!(file.starts_with("/state/topics/ab"));
    let head = usize::try_from(record::segment_head_length(&ns(1), "t")).unwrap();
    world.disk.edit(&file, |bytes| bytes[head + 25 + 4] ^= 1);
    let error = world.topics.read(&ns(1), "t", 1, 9, 9).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Event {
                offset: 1,
                resume: 2,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        world.topics.read(&ns(1), "t", 2, 9, 9).unwrap()[0].value,
        [2u8][..]
    );
}

#[test]
fn a_large_event_in_the_way_is_passed_over() {
    let mut world = World::new(1);
    world.append(
        0,
        "t",
        5,
        &[vec![1; 3 << 20], vec![2; 3 << 20], vec![3; 10]],
    );
    world.checkpoint();
    let files = world.files();
    let second = files
        .iter()
        .find(|f| f.ends_with("00000000000000000001.seg"));
    let head = usize::try_from(record::segment_head_length(&ns(0), "t")).unwrap();
    world
        .disk
        .edit(second.unwrap(), |bytes| bytes[head + 24 + 2_000_000] ^= 1);
    let (found, damaged) = readable(&world);
    assert_eq!((found, damaged), (vec![0, 2], vec![(1, 2)]));
}
