//! Accounts: the first one, the last one, and those that go.

use super::*;

#[tokio::test]
async fn the_default_account_exists_only_where_it_is_wanted_and_nobody_came() {
    let mut node = Node::start(true).await;
    assert_eq!(node.service.first_access(), None);
    let token = node.login("micro", "admin", "micro").await.unwrap();
    let admin = node.handle().inspect(&token.access).unwrap();
    assert!(admin.is_operator());
    assert!(node.login("foo", "admin", "micro").await.is_err());
    node.restart(true).await;
    assert!(node.handle().inspect(&token.access).is_some());

    node.restart(false).await;
    assert!(
        node.handle().inspect(&token.access).is_none(),
        "its tokens went with it"
    );
    assert!(node.refresh("micro", &token.refresh).await.is_err());
    assert_eq!(
        text(node.login("micro", "admin", "micro").await),
        "Account not found with this ID"
    );
    assert!(node.service.first_access().is_some());

    node.restart(true).await;
    let change = SecretChange {
        id: "admin".into(),
        old: Some("micro".into()),
        new: "better".into(),
    };
    let handle = node.handle();
    handle.change_secret(&ns("micro"), change).await.unwrap();
    node.restart(false).await;
    assert!(
        node.login("micro", "admin", "better").await.is_ok(),
        "with a secret of its own it stays"
    );
    assert_eq!(node.service.first_access(), None);
}

#[tokio::test]
async fn the_first_account_is_made_with_the_one_time_token() {
    let mut node = Node::start(false).await;
    let old = node.service.first_access().unwrap();
    assert_eq!(node.service.first_access(), None, "it is given out once");
    node.restart(false).await;
    let token = node.service.first_access().unwrap();
    let handle = node.handle();
    let claim = |token: &str, secret: &str| {
        let (handle, token, secret) = (handle.clone(), token.to_owned(), secret.to_owned());
        async move { handle.claim(&token, "ann", &secret).await }
    };
    for wrong in [old.as_str(), "", "x"] {
        let error = claim(wrong, "long enough").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unauthenticated);
    }
    assert!(matches!(
        claim(&token, "short").await,
        Err(Error::WeakSecret(_))
    ));
    node.clock.advance(minutes(14));
    let (one, two) = tokio::join!(claim(&token, "long enough"), claim(&token, "long enough"));
    assert_eq!(
        [one.is_ok(), two.is_ok()].iter().filter(|ok| **ok).count(),
        1,
        "{one:?} {two:?}"
    );
    assert!(claim(&token, "long enough").await.is_err());
    let login = node.login("micro", "ann", "long enough").await.unwrap();
    assert!(handle.inspect(&login.access).unwrap().is_operator());
    node.restart(false).await;
    assert_eq!(node.service.first_access(), None);

    let late = Node::start(false).await;
    let token = late.service.first_access().unwrap();
    late.clock.advance(minutes(15));
    let claimed = late.handle().claim(&token, "ann", "long enough").await;
    assert!(matches!(claimed, Err(Error::NotClaimable)));
}

#[tokio::test]
async fn a_node_whose_only_administrator_was_the_default_one_can_be_claimed() {
    let mut node = Node::start(true).await;
    node.add("micro", "plain", "user", &[]).await;
    node.restart(false).await;
    let token = node.service.first_access().unwrap();
    let handle = node.handle();
    let taken = handle.claim(&token, "plain", "long enough").await;
    assert!(matches!(taken, Err(Error::AccountExists)));
    handle.claim(&token, "admin", "long enough").await.unwrap();
    node.restart(false).await;
    assert_eq!(node.service.first_access(), None);
}

#[tokio::test]
async fn a_deleted_account_is_out_at_once_and_its_successor_does_not_inherit() {
    let node = Node::start(true).await;
    let handle = node.handle();
    for kind in ["user", "service"] {
        node.add("foo", "bob", kind, &["admin"]).await;
        let seen = node.login("foo", "bob", "secret").await.unwrap();
        let unseen = node.login("foo", "bob", "secret").await.unwrap();
        assert!(handle.inspect(&seen.access).is_some());
        handle.delete(&ns("foo"), "bob", None).await.unwrap();
        for round in ["deleted", "made again"] {
            for token in [&seen, &unseen] {
                assert!(handle.inspect(&token.access).is_none(), "{kind} {round}");
                assert!(node.refresh("foo", &token.refresh).await.is_err());
                assert!(node.refresh("foo", &token.access).await.is_err());
            }
            if round == "deleted" {
                node.add("foo", "bob", kind, &["admin"]).await;
            }
        }
        handle.delete(&ns("foo"), "bob", None).await.unwrap();
    }
    assert_eq!(
        text(handle.delete(&ns("foo"), "bob", None).await),
        "Account not found with this ID"
    );
    assert_eq!(
        text(handle.delete(&ns("foo"), "", None).await),
        "Missing ID"
    );
}

#[tokio::test]
async fn a_changed_secret_ends_what_could_renew_a_session() {
    let node = Node::start(true).await;
    let handle = node.handle();
    node.add("foo", "bob", "user", &[]).await;
    let before = node.login("foo", "bob", "secret").await.unwrap();
    assert!(node.refresh("foo", &before.access).await.is_ok());
    let change = |old: Option<&str>, new: &str| {
        let change = SecretChange {
            id: "bob".into(),
            old: old.map(Into::into),
            new: new.into(),
        };
        let handle = handle.clone();
        async move { handle.change_secret(&ns("foo"), change).await }
    };
    assert_eq!(text(change(Some("no"), "new").await), "Secret not correct");
    assert_eq!(
        text(change(Some("secret"), "").await),
        "New secret should not be blank"
    );
    change(Some("secret"), "new").await.unwrap();
    assert!(node.login("foo", "bob", "secret").await.is_err());
    assert!(node.login("foo", "bob", "new").await.is_ok());
    assert!(
        handle.inspect(&before.access).is_some(),
        "an access token runs out by itself"
    );
    for token in [&before.refresh, &before.access] {
        assert_eq!(
            text(node.refresh("foo", token).await),
            "invalid token provided"
        );
    }
    change(None, "other").await.unwrap();
    assert!(node.login("foo", "bob", "other").await.is_ok());
}

#[tokio::test]
async fn the_last_administrator_of_the_node_stays() {
    let node = Node::start(true).await;
    let handle = node.handle();
    let micro = ns("micro");
    // None of these could log in and administer.
    node.add("micro", "plain", "user", &[]).await;
    node.add("micro", "robot", "service", &["service", "admin"])
        .await;
    node.add("foo", "boss", "user", &["admin"]).await;
    let refused = handle.delete(&micro, "admin", None).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Precondition);
    assert!(refused.hint().is_some());
    node.add("micro", "second", "user", &["admin"]).await;
    handle.delete(&micro, "admin", None).await.unwrap();
    handle.delete(&ns("foo"), "boss", None).await.unwrap();
    let token = node.login("micro", "second", "secret").await.unwrap();
    let own = handle.inspect(&token.access).unwrap();
    assert_eq!(
        text(handle.delete(&micro, "second", Some(&own)).await),
        "Can't delete your own account"
    );
    let ids: Vec<_> = handle.list(&micro).await.unwrap();
    let ids: Vec<_> = ids.iter().map(|a| a.id.as_str()).collect();
    assert_eq!(ids, ["plain", "robot", "second"]);
}

#[tokio::test]
async fn ids_and_names_are_unique_in_a_namespace() {
    let node = Node::start(true).await;
    node.add("foo", "bob", "user", &[]).await;
    node.add("bar", "bob", "user", &[]).await;
    let handle = node.handle();
    let draft = |id: &str, name: &str| Draft {
        id: id.into(),
        name: name.into(),
        ..Draft::default()
    };
    let foo = ns("foo");
    assert_eq!(
        text(handle.generate(&foo, draft("bob", "x")).await),
        "Account with this ID already exists"
    );
    assert_eq!(
        text(handle.generate(&foo, draft("x", "bob")).await),
        "Account with this Name already exists"
    );
    let (one, two) = tokio::join!(
        handle.generate(&foo, draft("new", "")),
        handle.generate(&foo, draft("new", ""))
    );
    assert!(one.is_ok() != two.is_ok());
}
