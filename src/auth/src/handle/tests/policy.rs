//! Rules as they change, and callers who wait or leave.

use super::*;

fn rule(id: &str, scope: &str, access: Access) -> Rule {
    Rule {
        id: id.into(),
        scope: scope.into(),
        resource: Resource {
            kind: "*".into(),
            name: "*".into(),
            endpoint: "*".into(),
        },
        access,
        priority: 0,
    }
}

#[tokio::test]
async fn the_default_rule_can_be_deleted_for_good_and_overridden() {
    let mut node = Node::start(true).await;
    let foo = ns("foo");
    let ids = |node: &Node, namespace: &str| -> Vec<String> {
        let rules = node.handle().rules(&ns(namespace));
        rules.into_iter().map(|r| r.id).collect()
    };
    let may = |node: &Node, namespace: &str| {
        node.handle()
            .verify(None, &ns(namespace), "helloworld", "Helloworld.Call")
            .is_ok()
    };
    assert_eq!(ids(&node, "foo"), ["default"]);
    let handle = node.handle();
    handle
        .create_rule(&foo, rule("inside", "*", Access::Granted))
        .await
        .unwrap();
    assert_eq!(ids(&node, "foo"), ["default", "inside"]);
    assert!(may(&node, "foo"));
    handle.delete_rule(&foo, "default").await.unwrap();
    assert!(!may(&node, "foo"), "at once");
    node.restart(true).await;
    let handle = node.handle();
    assert_eq!(ids(&node, "foo"), ["inside"]);
    assert!(!may(&node, "foo"));
    assert_eq!(ids(&node, "bar"), ["default"], "others are not touched");
    assert!(may(&node, "bar"));
    handle.delete_rule(&foo, "inside").await.unwrap();
    handle.delete_rule(&foo, "unknown").await.unwrap();
    assert_eq!(ids(&node, "foo"), [""; 0], "nothing comes back");
    assert!(!may(&node, "foo"));

    handle
        .create_rule(&foo, rule("default", "", Access::Granted))
        .await
        .unwrap();
    assert!(may(&node, "foo"));
    handle
        .create_rule(&ns("bar"), rule("default", "", Access::Denied))
        .await
        .unwrap();
    assert!(!may(&node, "bar"), "overridden");
    assert_eq!(
        text(
            handle
                .create_rule(&ns("bar"), rule("default", "", Access::Denied))
                .await
        ),
        "A rule with this ID already exists"
    );
}

#[tokio::test]
async fn a_caller_who_goes_away_does_not_leave_memory_behind_the_database() {
    let node = Node::start(true).await;
    let handle = node.handle();
    // As many as may work at once; one that still waits for its turn would not happen at all.
    for n in 0..WORKING {
        let rule = rule(&format!("r{n}"), "*", Access::Granted);
        let namespace = ns("foo");
        let change = handle.create_rule(&namespace, rule);
        // Polled once, then dropped: the change is on its way.
        let _ = tokio::time::timeout(Duration::ZERO, change).await;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while handle.rules(&ns("foo")).len() < WORKING + 1 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let stored = node.sqlite.read(repo::rules::load).await.unwrap();
    assert_eq!(stored.of(&ns("foo")).len(), WORKING + 1);
}

#[tokio::test]
async fn rules_changed_at_the_same_time_are_all_there() {
    let node = Node::start(true).await;
    let tasks: Vec<_> = (0..30)
        .map(|n| {
            let handle = node.handle();
            let rule = rule(&format!("r{n}"), "*", Access::Granted);
            tokio::spawn(async move { handle.create_rule(&ns("foo"), rule).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(node.handle().rules(&ns("foo")).len(), 31);
}

#[tokio::test]
async fn more_callers_than_may_wait_are_told_so() {
    let node = Node::start(true).await;
    let handle = node.handle();
    let permits = Arc::clone(&handle.shared.working)
        .acquire_many_owned(u32::try_from(WORKING).unwrap())
        .await
        .unwrap();
    let (foo, mut waiting) = (ns("foo"), Vec::new());
    for _ in 0..WAITING {
        let mut call = Box::pin(handle.delete_rule(&foo, "x"));
        assert!(
            tokio::time::timeout(Duration::ZERO, &mut call)
                .await
                .is_err()
        );
        waiting.push(call);
    }
    assert!(matches!(
        handle.delete_rule(&foo, "x").await,
        Err(Error::Busy)
    ));
    drop(permits);
    waiting.truncate(1);
    for call in waiting {
        call.await.unwrap();
    }
    assert_eq!(handle.shared.waiting.load(Ordering::Acquire), 0);
}
