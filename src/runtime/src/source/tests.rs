//! Hostile archives.

use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;

const LIMITS: Limits = Limits {
    bytes: 100_000,
    entries: 50,
};

fn header(path: &[u8], kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    let name = &mut header.as_old_mut().name;
    name[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header
}

fn add(tar: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, link: &str, content: &[u8]) {
    let mut header = header(path.as_bytes(), kind, content.len() as u64, 0o644);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn refused(build: impl FnOnce(&mut Builder<Vec<u8>>)) -> Error {
    let mut tar = Builder::new(Vec::new());
    build(&mut tar);
    let bytes = tar.into_inner().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("tree");
    fs::create_dir(&into).unwrap();
    let error = unpack(bytes.as_slice(), &into, &LIMITS).unwrap_err();
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing beside the tree"
    );
    error
}

#[test]
fn a_plain_tree_is_unpacked_with_modes_and_inner_links() {
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, "./", EntryType::dir(), "", b"");
    add(&mut tar, "a/b/file.txt", EntryType::file(), "", b"hello");
    let mut run = header(b"a/run.sh", EntryType::file(), 2, 0o750);
    run.set_cksum();
    tar.append(&run, &b"ok"[..]).unwrap();
    add(&mut tar, "a/link", EntryType::symlink(), "b/file.txt", b"");
    add(&mut tar, "a/b/up", EntryType::symlink(), "../run.sh", b"");
    add(&mut tar, "hard", EntryType::hard_link(), "a/run.sh", b"");
    let bytes = tar.into_inner().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let summary = unpack(bytes.as_slice(), dir.path(), &LIMITS).unwrap();
    assert_eq!((summary.entries, summary.bytes), (7, 7));
    let mode = |p: &str| fs::metadata(dir.path().join(p)).unwrap().mode() & 0o7777;
    assert_eq!(mode("a/b/file.txt"), 0o644);
    assert_eq!(mode("a/run.sh"), 0o755);
    assert_eq!(
        fs::read_to_string(dir.path().join("a/link")).unwrap(),
        "hello"
    );
    assert_eq!(fs::read_to_string(dir.path().join("a/b/up")).unwrap(), "ok");
    assert_eq!(check_tree(dir.path(), &LIMITS).unwrap().entries, 7);
}

#[test]
fn entries_that_leave_the_tree_are_refused_by_name() {
    for path in ["../evil", "a/../../evil", "/etc/evil"] {
        let error = refused(|t| add(t, path, EntryType::file(), "", b"x"));
        assert!(matches!(error, Error::Entry { .. }), "{path}: {error}");
        assert!(error.to_string().contains("evil"), "{error}");
    }
}

#[test]
fn links_that_leave_the_tree_are_refused() {
    for target in ["/etc/passwd", "../x", "a/../../x", "s/..", ""] {
        let error = refused(|t| add(t, "link", EntryType::symlink(), target, b""));
        assert!(error.to_string().contains("link"), "{target}: {error}");
    }
    for target in ["/etc/passwd", "../x", "missing"] {
        let error = refused(|t| add(t, "link", EntryType::hard_link(), target, b""));
        assert!(error.to_string().contains("outside"), "{target}: {error}");
    }
}

#[test]
fn a_file_behind_a_link_is_refused() {
    let error = refused(|t| {
        add(t, "d/keep", EntryType::file(), "", b"");
        add(t, "s", EntryType::symlink(), "d", b"");
        add(t, "s/file", EntryType::file(), "", b"x");
    });
    assert!(error.to_string().contains("through a link"), "{error}");
    let error = refused(|t| {
        add(t, "s", EntryType::symlink(), "d", b"");
        add(t, "s", EntryType::file(), "", b"x");
    });
    assert!(error.to_string().contains("twice"), "{error}");
}

#[test]
fn devices_pipes_and_setuid_are_refused() {
    for kind in [
        EntryType::fifo(),
        EntryType::block_special(),
        EntryType::character_special(),
        EntryType::new(b'S'),
    ] {
        let error = refused(|t| add(t, "thing", kind, "", b""));
        assert!(error.to_string().contains("thing"), "{error}");
    }
    let error = refused(|t| {
        let mut h = header(b"su", EntryType::file(), 0, 0o4755);
        h.set_cksum();
        t.append(&h, &b""[..]).unwrap();
    });
    assert!(error.to_string().contains("setuid"), "{error}");
}

#[test]
fn size_count_and_depth_are_bounded() {
    let error = refused(|t| {
        for i in 0..60 {
            add(t, &format!("f{i}"), EntryType::file(), "", b"");
        }
    });
    assert!(matches!(
        error,
        Error::TooLarge {
            setting: "limits.upload_files",
            ..
        }
    ));
    let error = refused(|t| add(t, "big", EntryType::file(), "", &vec![0; 100_001]));
    assert!(matches!(
        error,
        Error::TooLarge {
            setting: "limits.upload",
            ..
        }
    ));
    let error = refused(|t| {
        let mut long = Header::new_gnu();
        long.set_entry_type(EntryType::file());
        long.set_size(0);
        long.set_mode(0o644);
        let path = "x/".repeat(70) + "f";
        t.append_data(&mut long, path, &b""[..]).unwrap();
    });
    assert!(error.to_string().contains("deep"), "{error}");
}

#[test]
fn a_cloned_tree_with_a_link_out_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("passwd")).unwrap();
    let error = check_tree(dir.path(), &LIMITS).unwrap_err();
    assert!(error.to_string().contains("passwd"), "{error}");
}

#[test]
fn a_truncated_archive_is_an_error() {
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, "file", EntryType::file(), "", &[7; 5000]);
    let mut bytes = tar.into_inner().unwrap();
    bytes.truncate(2000);
    let dir = tempfile::tempdir().unwrap();
    assert!(unpack(bytes.as_slice(), dir.path(), &LIMITS).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the bytes, nothing appears outside and nothing inside leads out.
    #[test]
    fn arbitrary_entries_never_escape(entries in proptest::collection::vec(
        (0_usize..9, "[a-c./]{1,12}", "[a-c./]{0,12}"), 1..12)) {
        let mut tar = Builder::new(Vec::new());
        for (kind, path, link) in &entries {
            let kind = [b'0', b'0', b'1', b'2', b'2', b'5', b'5', b'6', b'L'][*kind];
            add(&mut tar, path, EntryType::new(kind), link, if kind == b'0' || kind == b'L' { b"../z" } else { b"" });
        }
        let bytes = tar.into_inner().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("in/tree");
        fs::create_dir_all(&into).unwrap();
        let _ = unpack(bytes.as_slice(), &into, &LIMITS);
        prop_assert_eq!(fs::read_dir(dir.path().join("in")).unwrap().count(), 1);
        let root = fs::canonicalize(&into).unwrap();
        let mut pending = vec![root.clone()];
        while let Some(d) = pending.pop() {
            for e in fs::read_dir(d).unwrap() {
                let p = e.unwrap().path();
                if let Ok(real) = fs::canonicalize(&p) {
                    prop_assert!(real.starts_with(&root), "{p:?} leads to {real:?}");
                }
                if fs::symlink_metadata(&p).unwrap().is_dir() { pending.push(p); }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let dir = tempfile::tempdir().unwrap();
        let _ = unpack(bytes.as_slice(), dir.path(), &LIMITS);
    }
}
