//! What is kept, how much of it, and that it always leads back.

use micro_config::{Error, Secrets};
use micro_core::Namespace;
use proptest::{prelude::*, test_runner::Config};

use crate::node::Node0;

fn foo() -> Namespace {
    Namespace::parse("foo").unwrap()
}

#[tokio::test]
async fn the_last_thousand_changes_are_kept_and_no_more() {
    let node = Node0::start();
    let (config, ns) = (node.handle(), foo());
    for i in 1..=1010_u64 {
        config
            .set(&ns, "n", &i.to_string(), false, "ann")
            .await
            .unwrap();
    }
    let entries = config.history(&ns, "", 5000).await.unwrap();
    assert_eq!(entries.len(), 1000);
    assert_eq!(entries.last().unwrap().version, 11);
    assert_eq!(entries.last().unwrap().before, "10");
    let error = config.revert(&ns, 9, "ann").await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Version {
                oldest: 10,
                newest: 1010,
                ..
            }
        ),
        "{error}"
    );
    config.revert(&ns, 10, "ann").await.unwrap();
    assert_eq!(config.get(&ns, "n", Secrets::Masked).unwrap(), "10");
}

#[tokio::test]
async fn large_changes_are_kept_up_to_a_number_of_bytes() {
    let node = Node0::start();
    let (config, ns) = (node.handle(), foo());
    let value = |c: &str| format!("\"{}\"", c.repeat(1_000_000));
    for i in 1..=20 {
        let value = value(if i % 2 == 0 { "a" } else { "b" });
        config.set(&ns, "n", &value, false, "ann").await.unwrap();
    }
    let used = node.storage().space(&ns).usage();
    let entries = config.history(&ns, "", 100).await.unwrap();
    assert_eq!(entries.len(), 1, "an answer stays small");
    let error = config.revert(&ns, 11, "ann").await.unwrap_err();
    assert!(
        matches!(error, Error::Version { oldest: 12, .. }),
        "{error} {used:?}"
    );
    config.revert(&ns, 19, "ann").await.unwrap();
    assert_eq!(config.get(&ns, "n", Secrets::Masked).unwrap(), value("b"));
}

#[derive(Debug, Clone)]
enum Op {
    Set(String, i32, bool),
    Delete(String),
    Revert(prop::sample::Index),
    Restart,
    Rotate,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let path = "[ab](\\.[ab]){0,2}";
    let op = prop_oneof![
        6 => (path, 0..9_i32, any::<bool>()).prop_map(|(p, v, s)| Op::Set(p, v, s)),
        2 => path.prop_map(Op::Delete),
        2 => any::<prop::sample::Index>().prop_map(Op::Revert),
        1 => Just(Op::Restart),
        1 => Just(Op::Rotate),
    ];
    prop::collection::vec(op, 1..20)
}

/// Runs `ops`; every document that ever was can be made again, secrets included.
async fn every_version_comes_back(ops: Vec<Op>) {
    let mut node = Node0::start();
    let ns = foo();
    // By version; none before the first.
    let mut past: Vec<Option<String>> = vec![None];
    let read = |node: &Node0| node.handle().get(&ns, "", Secrets::Open).ok();
    for op in ops {
        let config = node.handle().clone();
        let newest = past.len() as u64 - 1;
        let version = match op {
            Op::Set(path, value, secret) => {
                let value = value.to_string();
                config.set(&ns, &path, &value, secret, "ann").await.unwrap()
            }
            Op::Delete(path) => match config.delete(&ns, &path, "ann").await {
                Ok(version) => version,
                Err(Error::NotFound) => newest,
                Err(error) => panic!("{error}"),
            },
            Op::Revert(_) if newest == 0 => newest,
            Op::Revert(index) => {
                let wanted = index.index(past.len() - 1) + 1;
                let version = config.revert(&ns, wanted as u64, "ann").await.unwrap();
                assert_eq!(read(&node), past[wanted]);
                version
            }
            Op::Restart => {
                node = node.restart();
                newest
            }
            Op::Rotate => {
                config.rotate().await.unwrap();
                newest
            }
        };
        if version > newest {
            assert_eq!(version, newest + 1);
            past.push(read(&node));
        }
        assert_eq!(read(&node), past[version as usize]);
    }
    for (version, document) in past.iter().enumerate().skip(1) {
        node.handle()
            .revert(&ns, version as u64, "ann")
            .await
            .unwrap();
        assert_eq!(&read(&node), document, "version {version}");
    }
}

#[test]
fn every_version_that_ever_was_can_be_made_again() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    };
    proptest!(config, |(ops in ops())| {
        runtime.block_on(every_version_comes_back(ops));
    });
}
