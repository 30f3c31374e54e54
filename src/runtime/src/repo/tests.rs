//! What is written down is read back, also after opening again.

use std::collections::BTreeMap;

use micro_core::{InstanceId, ServiceName, Version};

use super::*;
use crate::manifest::{Limits, Protocol};

fn key(name: &str) -> Key {
    Key {
        namespace: Namespace::parse("foo").unwrap(),
        name: ServiceName::parse(name).unwrap(),
        version: Version::latest(),
    }
}

fn row(name: &str) -> ServiceRow {
    ServiceRow {
        key: key(name),
        source: "source://x:latest".into(),
        owner: "alice".into(),
        group: "foo".into(),
        metadata: BTreeMap::from([("source".into(), "x".into())]),
        options: Options {
            secrets: BTreeMap::from([("A".into(), "b".into())]),
            ..Options::default()
        },
        status: Status::Pending,
        error: String::new(),
        release: None,
        pending: Some(Pending {
            source: "source://x:latest".into(),
            uploader: Namespace::operator(),
            operator: true,
        }),
        attempts: 1,
        created: Timestamp(5),
        updated: Timestamp(5),
    }
}

fn recipe() -> Recipe {
    Recipe {
        argv: vec!["/app/x".into()],
        cwd: "/app".into(),
        env: BTreeMap::new(),
        language_env: Vec::new(),
        path: Vec::new(),
        toolchain: None,
        limits: Limits::default(),
        instances: 2,
        protocol: Some(Protocol::Http),
        descriptor: None,
    }
}

fn open(dir: &tempfile::TempDir) -> Repo {
    Repo::open(&Sqlite::open(&dir.path().join("test.db")).unwrap()).unwrap()
}

#[tokio::test]
async fn a_service_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let repo = open(&dir);
    repo.begin(row("a")).await.unwrap();
    repo.begin(row("b")).await.unwrap();
    repo.attempt(key("a")).await.unwrap();
    drop(repo);
    let repo = open(&dir);
    let mut expected = row("a");
    expected.attempts = 2;
    assert_eq!(repo.service(key("a")).await.unwrap(), Some(expected));
    assert_eq!(repo.services(None).await.unwrap().len(), 2);
    let other = Namespace::parse("bar").unwrap();
    assert!(repo.services(Some(other)).await.unwrap().is_empty());
    assert!(repo.delete(key("a")).await.unwrap());
    assert!(!repo.delete(key("a")).await.unwrap());
    assert_eq!(repo.service(key("a")).await.unwrap(), None);
}

#[tokio::test]
async fn releases_are_numbered_per_service_and_never_reused() {
    let dir = tempfile::tempdir().unwrap();
    let repo = open(&dir);
    repo.begin(row("a")).await.unwrap();
    for expected in 1..=7 {
        let digest = format!("d{}", expected % 6);
        let release = repo
            .add_release(key("a"), digest, recipe(), Timestamp(1))
            .await
            .unwrap();
        assert_eq!(release.number, expected);
    }
    let served = Served {
        protocol: Some(Protocol::Grpc),
    };
    repo.serve(key("a"), 1, served.clone(), Some(vec![1, 2]), Timestamp(9))
        .await
        .unwrap();
    let service = repo.service(key("a")).await.unwrap().unwrap();
    assert_eq!(
        (service.status, service.release, service.pending),
        (Status::Running, Some(1), None)
    );
    let free = repo.prune_releases(key("a"), 5).await.unwrap();
    assert_eq!(free, ["d2"], "1 serves, 3 to 7 are the last five");
    let first = repo.release(key("a"), 1).await.unwrap().unwrap();
    assert_eq!(
        (first.served, first.descriptors),
        (Some(served), Some(vec![1, 2]))
    );
    assert_eq!(first.recipe, recipe());
    assert!(repo.release(key("a"), 2).await.unwrap().is_none());
    repo.delete(key("a")).await.unwrap();
    let next = repo
        .add_release(key("a"), "e".into(), recipe(), Timestamp(1))
        .await
        .unwrap();
    assert_eq!(next.number, 8);
}

#[tokio::test]
async fn users_are_unique_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let repo = open(&dir);
    let foo = Namespace::parse("foo").unwrap();
    let bar = Namespace::parse("bar").unwrap();
    let a = ServiceName::parse("a").unwrap();
    let numbers = [
        repo.user(foo.clone(), Some(a.clone())).await.unwrap(),
        repo.user(bar.clone(), Some(a.clone())).await.unwrap(),
        repo.user(foo.clone(), None).await.unwrap(),
    ];
    assert_eq!(numbers, [1, 2, 3]);
    repo.delete(key("a")).await.unwrap();
    assert_eq!(repo.user(foo, Some(a)).await.unwrap(), 1);
}

#[tokio::test]
async fn sources_and_instances_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let repo = open(&dir);
    repo.put_source(key("a"), "t1".into(), 7, Timestamp(1))
        .await
        .unwrap();
    repo.put_source(key("a"), "t2".into(), 8, Timestamp(2))
        .await
        .unwrap();
    assert_eq!(repo.source(key("a")).await.unwrap(), Some("t2".into()));
    assert_eq!(repo.trees().await.unwrap(), ["t2"]);
    let id = InstanceId::parse("i-1").unwrap();
    repo.add_instance(id.clone(), key("a"), 1, Timestamp(1))
        .await
        .unwrap();
    assert_eq!(repo.instances().await.unwrap()[0].id, id);
    repo.end_instance(id.clone(), Timestamp(2)).await.unwrap();
    assert!(repo.instances().await.unwrap().is_empty());
    for n in 10..40 {
        let id = InstanceId::parse(&format!("i-{n}")).unwrap();
        repo.add_instance(id.clone(), key("a"), 1, Timestamp(1))
            .await
            .unwrap();
        repo.end_instance(id, Timestamp(3)).await.unwrap();
    }
    let versions = repo
        .versions(key("a").namespace, key("a").name)
        .await
        .unwrap();
    assert_eq!(versions.len(), 20);
    assert!(!versions.contains_key(&id), "the oldest are forgotten");
}
