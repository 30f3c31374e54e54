//! A new key, the way to it, and what is left when the way is interrupted.

use std::fs;

use micro_config::Secrets;
use micro_core::Namespace;
use micro_proto::config::RotateRequest;

use crate::node::{Node0, admin};

fn ns(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

fn lines(node: &Node0) -> Vec<String> {
    let text = fs::read_to_string(node.key_file()).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Secrets in two namespaces, one of them with a past.
async fn with_secrets() -> Node0 {
    let node = Node0::start();
    let config = node.handle();
    for value in ["1", "2", "3"] {
        config
            .set(&ns("foo"), "a.s", value, true, "ann")
            .await
            .unwrap();
    }
    config
        .set(&ns("foo"), "plain", "4", false, "ann")
        .await
        .unwrap();
    config.delete(&ns("foo"), "a", "ann").await.unwrap();
    config
        .set(&ns("bar"), "s", "\"bar\"", true, "ann")
        .await
        .unwrap();
    config
        .set(&ns("baz"), "plain", "5", false, "ann")
        .await
        .unwrap();
    node
}

async fn assert_all_there(node: &Node0) {
    let config = node.handle();
    let get = |n: &str, path: &str| config.get(&ns(n), path, Secrets::Open).unwrap();
    assert_eq!(get("bar", "s"), "\"bar\"");
    assert_eq!(get("foo", "plain"), "4");
    for (version, value) in [(1, "1"), (2, "2"), (3, "3")] {
        config.revert(&ns("foo"), version, "ann").await.unwrap();
        assert_eq!(get("foo", "a.s"), value);
    }
    config
        .set(&ns("foo"), "plain", "4", false, "ann")
        .await
        .unwrap();
}

#[tokio::test]
async fn rotation_encrypts_everything_again_and_forgets_the_old_key() {
    let node = with_secrets().await;
    let old = lines(&node);
    assert_eq!(old.len(), 1);
    let mut operator = node.client(Some(admin("micro"))).await;
    let answer = operator.raw().rotate(RotateRequest {}).await.unwrap();
    // Three that were at a.s (each is what its successor undoes to), and bar's.
    assert_eq!(answer.into_inner().secrets, 4);
    let new = lines(&node);
    assert_eq!(new.len(), 1);
    assert_ne!(new, old);
    assert_all_there(&node).await;
    let node = node.restart();
    assert_all_there(&node).await;
    // With nothing left under the old key, putting it in place of the new one opens nothing.
    fs::write(node.key_file(), &old[0]).unwrap();
    let node = node.restart();
    assert!(node.handle().get(&ns("bar"), "s", Secrets::Open).is_err());
}

#[tokio::test]
async fn rotation_changes_neither_versions_nor_the_history() {
    let node = with_secrets().await;
    let config = node.handle();
    let before = config.history(&ns("foo"), "", 0).await.unwrap();
    config.rotate().await.unwrap();
    assert_eq!(config.history(&ns("foo"), "", 0).await.unwrap(), before);
    assert_eq!(
        config
            .set(&ns("foo"), "x", "1", false, "ann")
            .await
            .unwrap(),
        6
    );
    assert_eq!(config.rotate().await.unwrap(), 4, "again, with another key");
}

#[tokio::test]
async fn a_rotation_that_was_interrupted_is_finished_at_the_next_start() {
    let node = with_secrets().await;
    let old = lines(&node);
    // Stopped after the new key was written: both are there.
    let aside = tempfile::tempdir().unwrap();
    let other = Node0::start();
    other
        .handle()
        .set(&ns("x"), "s", "1", true, "ann")
        .await
        .unwrap();
    let new = lines(&other);
    fs::copy(other.key_file(), aside.path().join("key")).unwrap();
    fs::write(node.key_file(), format!("{}\n{}\n", new[0], old[0])).unwrap();
    let node = node.restart();
    node.handle()
        .set(&ns("bar"), "t", "7", true, "ann")
        .await
        .unwrap();
    node.wait_until(|| lines(&node) == new).await;
    assert_all_there(&node).await;
    let node = node.restart();
    assert_all_there(&node).await;
    assert_eq!(
        node.handle().get(&ns("bar"), "t", Secrets::Open).unwrap(),
        "7"
    );
}

#[tokio::test]
async fn a_rotation_that_cannot_write_keeps_the_old_key_and_can_be_repeated() {
    let node = with_secrets().await;
    let old = lines(&node);
    // The storage is gone in the middle: the new key was written, nothing was encrypted with it.
    node.storage().close();
    assert!(node.handle().rotate().await.is_err());
    let both = lines(&node);
    assert_eq!(both.len(), 2);
    assert_eq!(both[1], old[0]);
    let node = node.restart();
    node.wait_until(|| lines(&node).len() == 1).await;
    assert_all_there(&node).await;
    assert_eq!(lines(&node)[0], both[0]);
}

#[tokio::test]
async fn a_rotation_cut_off_anywhere_loses_nothing() {
    const NAMESPACES: u64 = 12;
    let mut node = Node0::start();
    for n in 0..NAMESPACES {
        let ns = ns(&format!("n{n}"));
        for value in [n, n + 100] {
            let value = value.to_string();
            node.handle()
                .set(&ns, "s", &value, true, "ann")
                .await
                .unwrap();
        }
    }
    for round in 0..12 {
        let (config, storage) = (node.handle().clone(), node.storage().clone());
        let rotation = tokio::spawn(async move { config.rotate().await });
        tokio::time::sleep(std::time::Duration::from_micros(round * 700)).await;
        tokio::task::spawn_blocking(move || storage.close())
            .await
            .unwrap();
        drop(rotation.await.unwrap());
        node = node.restart();
        let config = node.handle();
        for n in 0..NAMESPACES {
            let ns = ns(&format!("n{n}"));
            let now = config.get(&ns, "s", Secrets::Open).unwrap();
            assert_eq!(now, (n + 100).to_string(), "round {round}");
            assert_eq!(config.revert(&ns, 1, "ann").await.unwrap() % 2, 1);
            assert_eq!(config.get(&ns, "s", Secrets::Open).unwrap(), n.to_string());
            config.revert(&ns, 2, "ann").await.unwrap();
        }
    }
    node.wait_until(|| lines(&node).len() == 1).await;
}

#[tokio::test]
async fn writers_go_on_while_the_key_is_rotated() {
    let node = Node0::start();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let config = node.handle().clone();
        tasks.spawn(async move {
            let ns = ns(&format!("n{}", writer % 2));
            for i in 0..30 {
                let path = format!("w{writer}.k{i}");
                config
                    .set(&ns, &path, &i.to_string(), true, "ann")
                    .await
                    .unwrap();
                // Callers that go away in the middle leave nothing behind that cannot be opened.
                let value = i.to_string();
                let gone = config.set(&ns, "gone", &value, true, "ann");
                tokio::time::timeout(std::time::Duration::from_micros(50 * i), gone)
                    .await
                    .ok();
            }
        });
    }
    for _ in 0..5 {
        node.handle().rotate().await.unwrap();
    }
    tasks.join_all().await;
    node.handle().rotate().await.unwrap();
    assert_eq!(lines(&node).len(), 1);
    for n in ["n0", "n1"] {
        let text = node.handle().get(&ns(n), "", Secrets::Open).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        for writer in (0..4).filter(|w| format!("n{}", w % 2) == n) {
            for i in 0..30 {
                assert_eq!(document[format!("w{writer}")][format!("k{i}")], i);
            }
        }
    }
}

#[tokio::test]
async fn keys_of_a_credential_are_rotated_by_whoever_made_it() {
    let node = with_secrets().await;
    let old = lines(&node);
    let other = Node0::start();
    other
        .handle()
        .set(&ns("x"), "s", "1", true, "ann")
        .await
        .unwrap();
    let new = lines(&other);
    // The operator moves to a credential: what the file encrypted is encrypted again at start.
    let node = node.restart_with(&new[0]);
    let error = node.handle().rotate().await.unwrap_err();
    let hint = micro_core::Fault::hint(&error).unwrap();
    assert!(error.to_string().contains("micro-config-key"), "{error}");
    assert!(hint.contains("new line above the old one"), "{hint}");
    assert_eq!(lines(&node), old, "the file is not ours to change now");
    node.handle().finish_rotation().await;
    fs::remove_file(node.key_file()).unwrap();
    let node = node.restart_with(&new[0]);
    assert_all_there(&node).await;
}
