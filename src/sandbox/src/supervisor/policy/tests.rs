//! Hostile specs, by hand and at random.

use std::collections::BTreeMap;

use micro_core::InstanceId;
use proptest::prelude::*;

use super::*;
use crate::spec::Limits;

struct World {
    dir: tempfile::TempDir,
    state: StateDir,
    settings: Settings,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        for name in ["state", "allowed/go/bin", "secret", "tools/rust"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("pip.conf"), "x").unwrap();
        std::os::unix::fs::symlink(root.join("secret"), root.join("allowed/leak")).unwrap();
        let mut settings =
            micro_core::settings::load(Some(Path::new("/dev/null")), |_| None, &BTreeMap::new())
                .unwrap()
                .settings;
        settings.build.paths = vec![root.join("allowed")];
        settings.build.files = vec![root.join("pip.conf")];
        let state = StateDir::new(root.join("state"));
        Self {
            dir,
            state,
            settings,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join(name)
    }

    fn check_with(&self, spec: &Spec, toolchains: Option<&[PathBuf]>) -> Result<Verdict, Error> {
        let users = Users::for_tests();
        Policy {
            state: &self.state,
            settings: &self.settings,
            users: Some(&users),
            toolchains,
        }
        .check(spec)
    }

    fn check(&self, spec: &Spec) -> Result<Verdict, Error> {
        self.check_with(spec, Some(&[self.path("tools/rust")]))
    }

    fn mounts(&self, kind: SpecKind, source: Source, target: &str) -> Result<Verdict, Error> {
        let mut spec = good();
        spec.kind = kind;
        spec.mounts = vec![Mount {
            source,
            target: target.into(),
            writable: false,
        }];
        self.check(&spec)
    }
}

fn good() -> Spec {
    Spec {
        id: InstanceId::parse("a-1").unwrap(),
        namespace: Namespace::parse("foo").unwrap(),
        service: ServiceName::parse("blog").unwrap(),
        kind: SpecKind::Service,
        command: vec!["/app/blog".into()],
        env: vec![("PORT".into(), "1".into())],
        cwd: "/app".into(),
        user: 3,
        mounts: vec![
            Mount {
                source: Source::Release("foo/blog/1".into()),
                target: "/app".into(),
                writable: false,
            },
            Mount {
                source: Source::Data,
                target: "/data".into(),
                writable: true,
            },
        ],
        limits: Limits {
            memory: 64 << 20,
            processes: 64,
            cpu_percent: 0,
            open_files: 1024,
        },
        labels: BTreeMap::new(),
    }
}

#[test]
fn an_ordinary_spec_is_fine() {
    let world = World::new();
    let Verdict::Fine(view) = world.check(&good()).unwrap() else {
        panic!("no toolchains are named");
    };
    let data = &view[1];
    assert_eq!(data.origin.path(), world.path("state/data/foo/blog"));
    assert!(data.owned && data.writable);
    assert!(!view[0].owned && !view[0].writable);
}

#[test]
fn what_a_node_must_never_ask_is_refused() {
    let world = World::new();
    let mut bad: Vec<(&str, Spec)> = Vec::new();
    let mut add = |what, change: &dyn Fn(&mut Spec)| {
        let mut spec = good();
        change(&mut spec);
        bad.push((what, spec));
    };
    add("no command", &|s| s.command.clear());
    add("zero byte", &|s| s.command.push("a\0b".into()));
    add("variable name", &|s| s.env.push(("A=B".into(), "x".into())));
    add("huge environment", &|s| {
        s.env.push(("A".into(), "x".repeat(1 << 20)));
    });
    add("user out of range", &|s| s.user = 2_000_000_000);
    add("the keeper's user", &|s| s.user = 100_000);
    add("memory above the setting", &|s| s.limits.memory = 1 << 40);
    add("no memory", &|s| s.limits.memory = 0);
    add("processes above the setting", &|s| {
        s.limits.processes = 100_000
    });
    add("open files", &|s| s.limits.open_files = u64::MAX);
    add("relative directory", &|s| s.cwd = "app".into());
    add("directory with ..", &|s| s.cwd = "/app/../etc".into());
    add("writable release", &|s| s.mounts[0].writable = true);
    for target in [
        "/",
        "/usr",
        "/usr/local/x",
        "/etc",
        "/etc/passwd",
        "/proc",
        "/dev/shm",
        "/bin",
        "/lib",
        "/lib64/x",
        "/tmp",
        "/var/tmp/x",
        "/run",
        "/sys",
        "app",
        "/app/../usr",
        "/app/./x",
        "/a\nb",
        "",
    ] {
        add(target, &move |s| s.mounts[0].target = target.into());
    }
    for name in [
        "", "..", "../x", "a/../b", "/etc", "a//b", ".git", "a/.x", "a\0", "a b", "a/", "é",
    ] {
        for source in [
            Source::Release(name.into()),
            Source::SourceTree(name.into()),
            Source::Scratch(name.into()),
            Source::Cache(name.into()),
        ] {
            add(name, &move |s| s.mounts[0].source = source.clone());
        }
    }
    add("mount in a mount", &|s| {
        s.mounts[0].target = "/data/app".into();
    });
    add("two mounts at one place", &|s| {
        s.mounts[0].target = "/data".into();
    });
    for (what, spec) in bad {
        let verdict = world.check(&spec);
        assert!(verdict.is_err(), "{what:?} passed: {verdict:?}");
    }
}

#[test]
fn host_paths_are_those_the_operator_allowed() {
    let world = World::new();
    let text = |name: &str| world.path(name).to_str().unwrap().to_owned();
    let host = |name: &str| Source::Host(world.path(name));
    for name in ["allowed", "allowed/go", "tools/rust"] {
        let verdict = world.mounts(SpecKind::Service, host(name), &text(name));
        assert!(
            matches!(&verdict, Ok(Verdict::Fine(v)) if v.len() == 1),
            "{name}: {verdict:?}"
        );
    }
    for name in [
        "secret",
        "tools",
        "allowed/leak",
        "allowed/none",
        "state",
        "state/data",
        "",
    ] {
        let verdict = world.mounts(SpecKind::Service, host(name), "/x");
        assert!(verdict.is_err(), "{name} passed: {verdict:?}");
    }
    for path in ["/etc/shadow", "/root", "/", "/proc/1/root", "/dev/mem"] {
        let verdict = world.mounts(SpecKind::Build, Source::Host(path.into()), "/x");
        assert!(verdict.is_err(), "{path} passed");
    }
    let usr = world.mounts(
        SpecKind::Service,
        Source::Host("/usr/lib".into()),
        "/usr/lib",
    );
    assert_eq!(usr.unwrap(), Verdict::Fine(Vec::new()));
}

#[test]
fn allowed_files_are_for_builds_and_keep_their_place() {
    let world = World::new();
    let file = world.path("pip.conf");
    let at = file.to_str().unwrap().to_owned();
    let verdict = world.mounts(SpecKind::Build, Source::Host(file.clone()), &at);
    assert!(matches!(verdict, Ok(Verdict::Fine(_))));
    let elsewhere = world.mounts(
        SpecKind::Build,
        Source::Host(file.clone()),
        "/conf/pip.conf",
    );
    assert!(
        matches!(&elsewhere, Ok(Verdict::Fine(view)) if matches!(view[0].origin, Origin::Copy(_)))
    );
    for target in ["/etc/passwd", "/etc/pip.conf", "/usr/pip.conf"] {
        let verdict = world.mounts(SpecKind::Build, Source::Host(file.clone()), target);
        assert!(verdict.is_err(), "{target}");
    }
    assert!(
        world
            .mounts(SpecKind::Service, Source::Host(file), "/conf/pip.conf")
            .is_err()
    );
}

#[test]
fn unknown_host_paths_wait_for_the_toolchains() {
    let world = World::new();
    let mut spec = good();
    spec.mounts[0].source = Source::Host(world.path("tools/rust"));
    assert_eq!(
        world.check_with(&spec, None).unwrap(),
        Verdict::AskToolchains
    );
    assert!(matches!(world.check(&spec), Ok(Verdict::Fine(_))));
}

fn odd_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z./\\-]{0,20}",
        "\\PC{0,12}",
        Just("..".to_owned()),
        Just("/etc/shadow".to_owned()),
        Just("../../../etc".to_owned()),
        Just("/proc/self/root".to_owned()),
        Just("a/../../b".to_owned()),
        Just("/usr/../root".to_owned()),
        Just("//root".to_owned()),
    ]
}

fn odd_source() -> impl Strategy<Value = Source> {
    prop_oneof![
        odd_text().prop_map(Source::Release),
        odd_text().prop_map(Source::SourceTree),
        Just(Source::Data),
        odd_text().prop_map(Source::Scratch),
        odd_text().prop_map(Source::Cache),
        odd_text().prop_map(|text| Source::Host(text.into())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is asked: what passes stays below the state directory or the allowed roots, and covers
    /// nothing of the sandbox's own.
    #[test]
    fn nothing_that_passes_leaves_its_place(
        mounts in prop::collection::vec((odd_source(), odd_text(), any::<bool>()), 0..4),
        cwd in odd_text(),
        user in any::<u32>(),
        memory in any::<u64>(),
        build in any::<bool>(),
    ) {
        thread_local!(static WORLD: World = World::new());
        let mut spec = good();
        spec.kind = if build { SpecKind::Build } else { SpecKind::Service };
        spec.cwd = cwd.into();
        spec.user = user % 200_000;
        spec.limits.memory = memory % (8 << 30);
        spec.mounts = mounts
            .into_iter()
            .map(|(source, target, writable)| Mount { source, target: target.into(), writable })
            .collect();
        WORLD.with(|world| {
            let Ok(Verdict::Fine(view)) = world.check(&spec) else { return Ok(()) };
            prop_assert!(spec.user < 100_000);
            prop_assert!(spec.limits.memory <= 3 << 30);
            for shown in view {
                let names: Vec<_> = shown.target.components().collect();
                prop_assert!(names.len() > 1);
                prop_assert!(names[1..].iter().all(|n| matches!(n, Component::Normal(_))));
                match shown.origin {
                    Origin::Below(base, below) => {
                        prop_assert!(base.starts_with(world.state.root()));
                        prop_assert!(below.components().all(|n| matches!(n, Component::Normal(_))));
                        prop_assert!(below.components().count() > 0);
                    }
                    Origin::Host(path) | Origin::Copy(path) => {
                        prop_assert!(!shown.writable);
                        prop_assert!(
                            path.starts_with("/usr")
                                || path.starts_with(world.path("allowed"))
                                || path.starts_with(world.path("tools/rust"))
                        );
                    }
                }
            }
            Ok(())
        })?;
    }
}
