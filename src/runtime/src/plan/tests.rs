//! What is built and started for each kind of source.

use super::*;
use crate::detect::detect;

fn planned(files: &[(&str, &str)], entry: &str) -> (tempfile::TempDir, Detected, Plan) {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let detected = detect(dir.path(), entry, "svc").unwrap();
    let plan = plan(dir.path(), &detected).unwrap();
    (dir, detected, plan)
}

fn started(files: &[(&str, &str)], command: &[&str], args: &[&str]) -> Vec<String> {
    let (dir, detected, plan) = planned(files, "");
    let own = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    start(
        &plan,
        &detected,
        dir.path(),
        None,
        &own(command),
        &own(args),
    )
    .unwrap()
    .argv
}

#[test]
fn go_builds_the_entrypoint_only_and_uses_a_vendor_folder() {
    let files = [("go.mod", "module x"), ("a b/main.go", "package main")];
    let (_d, _, plan) = planned(&files, "a b");
    let script = plan.job.unwrap().script;
    assert!(script.contains("cd '/build/src/a b'\n"), "{script}");
    assert!(script.contains("-mod=mod"), "{script}");
    let files = [
        ("go.mod", "module x"),
        ("main.go", ""),
        ("vendor/modules.txt", ""),
    ];
    assert!(
        planned(&files, "")
            .2
            .job
            .unwrap()
            .script
            .contains("-mod=vendor")
    );
}

#[test]
fn cargo_is_locked_when_there_is_a_lock_file() {
    let files = [("Cargo.toml", "[package]\nname='web'"), ("Cargo.lock", "")];
    let (_d, _, plan) = planned(&files, "");
    assert!(plan.job.unwrap().script.contains("--locked"));
    assert_eq!(
        plan.collect,
        Collect::Built {
            package: Some("web".into())
        }
    );
    let (_d, _, plan) = planned(&[("Cargo.toml", "")], "");
    assert!(!plan.job.unwrap().script.contains("--locked"));
}

#[test]
fn node_without_dependencies_needs_no_job() {
    let (_d, _, plan) = planned(&[("package.json", "{}"), ("index.js", "")], "");
    assert_eq!((plan.job, plan.collect), (None, Collect::Source));
    let files = [
        ("package.json", r#"{"dependencies":{"a":"1"}}"#),
        ("package-lock.json", "{}"),
    ];
    let script = planned(&files, "").2.job.unwrap().script;
    assert!(
        script.contains("npm ci") && script.contains("--omit=dev"),
        "{script}"
    );
    let files = [(
        "package.json",
        r#"{"scripts":{"build":"tsc"},"devDependencies":{"typescript":"5"}}"#,
    )];
    let script = planned(&files, "").2.job.unwrap().script;
    assert!(
        script.contains("npm install") && !script.contains("omit"),
        "{script}"
    );
}

#[test]
fn what_starts_follows_the_order() {
    let node = r#"{"scripts":{"start":"node src/x.js --fast"}}"#;
    assert_eq!(
        started(&[("package.json", node)], &[], &[]),
        ["node", "src/x.js", "--fast"]
    );
    let npm = r#"{"scripts":{"start":"A=1 node x.js && true"}}"#;
    assert_eq!(
        started(&[("package.json", npm)], &[], &[]),
        ["npm", "start"]
    );
    let main = [("package.json", r#"{"main":"lib"}"#), ("lib/index.js", "")];
    assert_eq!(started(&main, &[], &[]), ["node", "lib/index.js"]);
    assert_eq!(
        started(&[("app.py", ""), ("server.py", "")], &[], &["-v"]),
        ["python3", "app.py", "-v"]
    );
    let project = [("pyproject.toml", "[project]\nname='my-app'")];
    assert_eq!(started(&project, &[], &[]), ["python3", "-m", "my_app"]);
    let files = [
        ("micro.toml", "command='a b'"),
        ("Procfile", "web: c"),
        ("main.py", ""),
    ];
    assert_eq!(
        started(&files, &[], &["x y"]),
        ["/bin/sh", "-c", "a b 'x y'"]
    );
    assert_eq!(started(&files, &["z", "1"], &[]), ["z", "1"]);
    assert_eq!(started(&files[1..], &[], &[]), ["/bin/sh", "-c", "c"]);
}

#[test]
fn nothing_to_start_says_what_was_looked_for() {
    let (dir, detected, plan) = planned(&[("package.json", "{}")], "");
    let error = start(&plan, &detected, dir.path(), None, &[], &[]).unwrap_err();
    assert!(error.to_string().contains("index.js"), "{error}");
}

#[test]
fn words_with_quotes_stay_one_word() {
    assert_eq!(quote("it's"), r"'it'\''s'");
}
