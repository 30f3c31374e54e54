//! Addresses as people write them, and fetching from a repository on disk.

use std::process::Command;

use super::*;

fn parsed(text: &str) -> (String, String, String) {
    let s = parse(text, "latest").unwrap();
    (s.url, s.folder, s.reference)
}

#[test]
fn addresses_are_split_into_repository_folder_and_ref() {
    for (text, url, folder, reference) in [
        (
            "github.com/micro/services",
            "https://github.com/micro/services",
            "",
            "latest",
        ),
        (
            "github.com/micro/services/test/chat@v1.2",
            "https://github.com/micro/services",
            "test/chat",
            "v1.2",
        ),
        (
            "gitlab.com/a/b/c@feature/x",
            "https://gitlab.com/a/b",
            "c@feature/x".split('@').next().unwrap(),
            "feature/x",
        ),
        (
            "https://github.com/a/b/c",
            "https://github.com/a/b",
            "c",
            "latest",
        ),
        (
            "https://git.example.com/group/sub/repo",
            "https://git.example.com/group/sub/repo",
            "",
            "latest",
        ),
        (
            "https://git.example.com/group/repo.git/svc/a@main",
            "https://git.example.com/group/repo.git",
            "svc/a",
            "main",
        ),
        (
            "https://git.example.com/repo//svc@1",
            "https://git.example.com/repo",
            "svc",
            "1",
        ),
        (
            "git@github.com:org/repo.git",
            "git@github.com:org/repo.git",
            "",
            "latest",
        ),
        (
            "ssh://git@host/org/repo.git@dev",
            "ssh://git@host/org/repo.git",
            "",
            "dev",
        ),
        (
            "file:///srv/nowhere/repo.git/x",
            "file:///srv/nowhere/repo.git",
            "x",
            "latest",
        ),
    ] {
        assert_eq!(
            parsed(text),
            (url.into(), folder.into(), reference.into()),
            "{text}"
        );
    }
}

#[test]
fn what_is_no_address_is_refused() {
    for text in [
        "",
        "helloworld",
        "github.com/micro",
        "github.com//x/y",
        "--upload-pack=x",
        "ext::sh -c x",
        "ext://x/y",
        "https://u:p@host/repo.git",
        "github.com/a/b@",
        "github.com/a/b@--x",
        "github.com/a/b/../c",
        "https://host",
        "github.com/a/b\n",
    ] {
        assert!(parse(text, "latest").is_err(), "{text:?}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC{0,40}") {
        if let Ok(s) = parse(&text, "latest") {
            assert!(!s.url.starts_with('-') && !s.reference.starts_with('-'));
        }
    }
}

#[test]
fn credentials_take_the_form_of_the_host() {
    let decoded = |host, text| {
        let header = authorization(host, text);
        let b64 = header.strip_prefix("Authorization: Basic ").unwrap();
        String::from_utf8(STANDARD.decode(b64).unwrap()).unwrap()
    };
    assert_eq!(decoded("github.com", "tok"), "x-access-token:tok");
    assert_eq!(decoded("gitlab.example.com", "tok"), "oauth2:tok");
    assert_eq!(decoded("gitlab.com", "me:tok\n"), "me:tok");
}

fn git(dir: &Path, args: &[&str]) {
    let done = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.com",
            "-c",
            "init.defaultBranch=trunk",
        ])
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

fn how<'a>(home: &'a Path) -> Fetch<'a> {
    Fetch {
        credentials: Some("secret-token"),
        env: &[],
        config: None,
        timeout: Duration::from_secs(60),
        bytes: 1 << 30,
        home,
    }
}

#[tokio::test]
async fn a_local_repository_is_fetched_at_a_branch_a_tag_and_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    fs::create_dir_all(repo.join("svc")).unwrap();
    git(&repo, &["init", "-q"]);
    fs::write(repo.join("svc/f"), "one").unwrap();
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "-qm", "one"]);
    git(&repo, &["tag", "v1"]);
    fs::write(repo.join("svc/f"), "two").unwrap();
    git(&repo, &["commit", "-qam", "two"]);
    let url = format!("file://{}/svc", repo.display());
    let mut commit = String::new();
    for (n, (reference, content)) in [("latest", "two"), ("v1", "one"), ("", "one")]
        .into_iter()
        .enumerate()
    {
        let reference = if reference.is_empty() {
            commit.get(..8).unwrap().to_owned()
        } else {
            reference.to_owned()
        };
        let source = parse(&format!("{url}@{reference}"), "latest").unwrap();
        assert_eq!(source.folder, "svc");
        let home = dir.path().join(format!("home{n}"));
        let tree = dir.path().join(format!("tree{n}"));
        commit = fetch(&source, &tree, &how(&home)).await.unwrap();
        assert_eq!(
            fs::read_to_string(tree.join("svc/f")).unwrap(),
            content,
            "{reference}"
        );
        assert!(!tree.join(".git").exists());
    }
}

#[tokio::test]
async fn a_missing_ref_says_what_git_said_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    fs::create_dir_all(&repo).unwrap();
    git(&repo, &["init", "-q"]);
    git(&repo, &["commit", "-qm", "x", "--allow-empty"]);
    let source = parse(&format!("file://{}@nope", repo.display()), "latest").unwrap();
    let error = fetch(
        &source,
        &dir.path().join("tree"),
        &how(&dir.path().join("home")),
    )
    .await
    .unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("nope") && !text.contains("secret-token"),
        "{text}"
    );
}
