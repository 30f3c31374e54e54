//! Artifacts: same content, same name; nothing hostile comes along.

use super::*;

fn piece(from: &Path, pick: Pick) -> Piece {
    Piece {
        from: from.into(),
        to: PathBuf::new(),
        pick,
        executable: false,
    }
}

fn store(releases: &Path, pieces: &[Piece]) -> Artifact {
    static N: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = N.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    assemble(releases, &format!("new-{n}"), pieces, |_| Ok(())).unwrap()
}

#[test]
fn the_same_content_has_the_same_name_and_a_change_another() {
    let dir = tempfile::tempdir().unwrap();
    let releases = dir.path().join("releases");
    let mut digests = Vec::new();
    for content in ["one", "one", "two"] {
        let tree = dir.path().join(format!("tree{}", digests.len()));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), content).unwrap();
        fs::write(tree.join("z"), "z").unwrap();
        digests.push(store(&releases, &[piece(&tree, Pick::All)]).digest);
    }
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
    let mut names: Vec<_> = fs::read_dir(&releases)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut expected = vec![digests[0].clone(), digests[2].clone()];
    expected.sort();
    assert_eq!(names, expected, "nothing unfinished is left");
}

#[test]
fn files_are_read_only_and_never_set_uid() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for (name, mode) in [("su", 0o4755), ("secret", 0o600), ("run", 0o700)] {
        fs::write(tree.join(name), name).unwrap();
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let releases = dir.path().join("releases");
    let artifact = store(&releases, &[piece(&tree, Pick::All)]);
    let mode = |n: &str| {
        fs::metadata(releases.join(&artifact.digest).join(n))
            .unwrap()
            .mode()
            & 0o7777
    };
    assert_eq!(
        (mode("su"), mode("secret"), mode("run")),
        (0o555, 0o444, 0o555)
    );
}

#[test]
fn links_out_stay_behind_and_links_of_the_build_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("file"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", tree.join("out")).unwrap();
    std::os::unix::fs::symlink("../../x", tree.join("bin/up")).unwrap();
    std::os::unix::fs::symlink("../file", tree.join("bin/in")).unwrap();
    std::os::unix::fs::symlink("/build/src/file", tree.join("bin/built")).unwrap();
    let releases = dir.path().join("releases");
    let artifact = store(&releases, &[piece(&tree, Pick::All)]);
    let root = releases.join(&artifact.digest);
    assert_eq!(artifact.notes.len(), 2, "{:?}", artifact.notes);
    assert!(fs::symlink_metadata(root.join("out")).is_err());
    assert_eq!(fs::read_to_string(root.join("bin/in")).unwrap(), "x");
    assert_eq!(fs::read_to_string(root.join("bin/built")).unwrap(), "x");
}

#[test]
fn a_compiled_service_takes_its_program_and_what_it_may_read() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("templates")).unwrap();
    fs::create_dir_all(tree.join("vendor/x")).unwrap();
    for name in [
        "main.go",
        "go.mod",
        "templates/a.html",
        "vendor/x/y.html",
        "api.proto",
    ] {
        fs::write(tree.join(name), name).unwrap();
    }
    let program = dir.path().join("svc");
    fs::write(&program, "ELF").unwrap();
    let releases = dir.path().join("releases");
    let artifact = store(
        &releases,
        &[
            Piece {
                from: program,
                to: PathBuf::from(".micro/bin/svc"),
                pick: Pick::All,
                executable: true,
            },
            piece(&tree, Pick::Assets),
        ],
    );
    let root = releases.join(&artifact.digest);
    let mode = fs::metadata(root.join(".micro/bin/svc")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o555);
    assert!(root.join("templates/a.html").is_file() && root.join("api.proto").is_file());
    assert!(!root.join("main.go").exists() && !root.join("vendor").exists());
    let mut first = Vec::new();
    write_tar(&root, &mut first).unwrap();
    let back = dir.path().join("back");
    fs::create_dir(&back).unwrap();
    let limits = crate::source::Limits {
        bytes: 1000,
        entries: 100,
    };
    crate::source::unpack(first.as_slice(), &back, &limits).unwrap();
    assert_eq!(
        fs::read_to_string(back.join(".micro/bin/svc")).unwrap(),
        "ELF"
    );
    let again = store(&releases, &[piece(&back, Pick::All)]);
    assert_eq!(again.digest, artifact.digest, "a tar of it unpacks to it");
}

#[test]
fn one_program_is_chosen_or_all_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        one_program(dir.path(), "s", None),
        Err(Error::NoBinary { .. })
    ));
    fs::write(dir.path().join("a"), "").unwrap();
    assert_eq!(one_program(dir.path(), "s", None).unwrap(), "a");
    fs::write(dir.path().join("b"), "").unwrap();
    let text = one_program(dir.path(), "s", None).unwrap_err().to_string();
    assert!(text.contains("a, b"), "{text}");
    assert_eq!(one_program(dir.path(), "b", None).unwrap(), "b");
    assert_eq!(one_program(dir.path(), "s", Some("a")).unwrap(), "a");
}
