//! The disk keeps its promises, and no others.

use super::*;
use crate::disk::Disk as _;

fn disk() -> (FaultyDisk, PathBuf) {
    let disk = FaultyDisk::new(7);
    let dir = PathBuf::from("/state/log");
    disk.create_dir_all(&dir).unwrap();
    disk.sync_dir(Path::new("/state")).unwrap();
    (disk, dir)
}

fn content(disk: &FaultyDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_power_cut_forgets_what_was_not_synced() {
    let (disk, dir) = disk();
    let path = dir.join("a");
    let file = disk.create(&path).unwrap();
    file.write_all_at(b"old", 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(&dir).unwrap();
    file.write_all_at(b"new", 0).unwrap();
    disk.create(&dir.join("b")).unwrap();
    assert_eq!(content(&disk, &path), b"new");
    disk.power_cut(|| false);
    assert_eq!(content(&disk, &path), b"old");
    assert_eq!(disk.list(&dir).unwrap().len(), 1);
    assert!(file.write_all_at(b"x", 0).is_err(), "the handle is dead");
}

#[test]
fn a_full_disk_takes_what_fits_and_still_lets_files_be_overwritten() {
    let (disk, dir) = disk();
    let file = disk.create(&dir.join("a")).unwrap();
    disk.set_capacity(Some(6));
    let error = file.write_all_at(b"12345678", 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(content(&disk, &dir.join("a")), b"123456");
    file.write_all_at(b"abcdef", 0).unwrap();
}

#[test]
fn a_failed_sync_leaves_a_clean_looking_page_that_the_disk_may_not_have() {
    let (disk, dir) = disk();
    let path = dir.join("a");
    let file = disk.create(&path).unwrap();
    disk.sync_dir(&dir).unwrap();
    disk.fail(Op::Sync, 1, Trouble::Eio);
    let bytes = vec![7; 512 * 64];
    file.write_all_at(&bytes, 0).unwrap();
    assert!(file.sync_data().is_err());
    assert_eq!(content(&disk, &path), bytes, "readers still see it");
    file.sync_data().unwrap();
    disk.power_cut(|| true);
    let lost = content(&disk, &path);
    assert!(lost.contains(&0) || lost.len() < bytes.len());
}
