//! Tokens: logins, renewals, services, guesses.

use super::*;

#[tokio::test]
async fn a_login_gives_a_token_for_a_while_and_one_to_renew_it() {
    let mut node = Node::start(true).await;
    let draft = Draft {
        id: "bob@example.com".into(),
        name: "Bob".into(),
        ..Draft::default()
    };
    let handle = node.handle();
    let (account, secret) = handle.generate(&ns("foo"), draft).await.unwrap();
    assert_eq!(account.metadata["created"], "1700000000");
    let by_id = node.login("foo", "bob@example.com", &secret).await.unwrap();
    let by_name = node.login("foo", "Bob", &secret).await.unwrap();
    assert_ne!(by_id.refresh, by_name.refresh);
    assert_eq!(by_id.expiry.0 - by_id.created.0, 15 * 60 * 1000);
    assert_eq!(*handle.inspect(&by_id.access).unwrap(), account);

    node.clock.advance(minutes(15));
    assert!(handle.inspect(&by_id.access).is_none(), "also from memory");
    node.clock.advance(minutes(24 * 60 * 365));
    node.restart(true).await;
    let proof = Proof::Refresh(by_id.refresh.clone());
    let wish = Some(Duration::from_secs(86_400));
    let renewed = node.handle().token(&ns("foo"), proof, wish).await.unwrap();
    assert_eq!(renewed.refresh, by_id.refresh, "it does not rotate");
    assert_eq!(renewed.expiry.0 - renewed.created.0, 86_400_000);
    assert!(node.handle().inspect(&renewed.access).is_some());

    assert_eq!(
        text(node.refresh("bar", &by_id.refresh).await),
        "invalid token provided"
    );
    assert_eq!(
        text(node.refresh("foo", "x").await),
        "invalid token provided"
    );
    assert_eq!(
        text(node.login("foo", "eve", "x").await),
        "Account not found with this ID"
    );
    assert_eq!(
        text(node.login("foo", "Bob", "x").await),
        "Secret not correct"
    );
    assert_eq!(
        text(node.login("foo", "Bob", "").await),
        "Credentials or a refresh token required"
    );
}

#[tokio::test]
async fn no_secret_and_no_refresh_token_is_on_the_disk() {
    let node = Node::start(false).await;
    let first = node.service.first_access().unwrap();
    node.add("foo", "bob", "user", &[]).await;
    let change = SecretChange {
        id: "bob".into(),
        old: None,
        new: "a-very-special-secret".into(),
    };
    let handle = node.handle();
    handle.change_secret(&ns("foo"), change).await.unwrap();
    let token = node
        .login("foo", "bob", "a-very-special-secret")
        .await
        .unwrap();
    node.sqlite.close();
    let found = std::fs::read_dir(node.dir.path()).unwrap();
    for file in found
        .map(|entry| entry.unwrap().path())
        .filter(|p| p.is_file())
    {
        let bytes = std::fs::read(&file).unwrap();
        for secret in [
            "a-very-special-secret",
            &token.refresh,
            &token.access,
            &first,
        ] {
            let hit = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!hit, "{}", file.display());
        }
    }
}

#[tokio::test]
async fn a_service_of_the_node_has_its_token_for_a_year() {
    let mut node = Node::start(true).await;
    let (service, version) = (
        ServiceName::parse("helloworld").unwrap(),
        Version::parse("latest").unwrap(),
    );
    let (id, secret) = node
        .handle()
        .service_account(&ns("foo"), &service, &version)
        .unwrap();
    assert_eq!(id.as_str(), "helloworld-latest");
    node.clock.advance(minutes(60 * 24 * 300));
    node.restart(true).await;
    let handle = node.handle();
    let account = handle.inspect(&secret).unwrap();
    assert_eq!(account.kind, "service");
    assert_eq!(account.issuer, ns("foo"));
    assert!(account.is_admin() && !account.is_operator());
    // As Micro's libraries do it: the JWT is the secret; the expiry they ask for does not count.
    let proof = Proof::of(id.as_str().into(), secret.clone(), String::new()).unwrap();
    let wish = Some(Duration::from_secs(3600));
    let token = handle.token(&ns("bar"), proof, wish).await.unwrap();
    let day = 24 * 3_600_000;
    assert_eq!(token.expiry.0 - token.created.0, 65 * day);
    assert_eq!(*handle.inspect(&token.access).unwrap(), *account);
    assert!(node.refresh("foo", &token.refresh).await.is_ok());
    node.clock.advance(minutes(60 * 24 * 65));
    assert!(handle.inspect(&secret).is_none());
    assert!(node.refresh("foo", &secret).await.is_err());

    node.add("foo", "robot", "service", &["service"]).await;
    let proof = Proof::of("robot".into(), "secret".into(), String::new()).unwrap();
    let token = handle.token(&ns("foo"), proof, wish).await.unwrap();
    assert_eq!(token.expiry.0 - token.created.0, 365 * day);
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let node = Node::start(true).await;
    node.add("foo", "bob", "user", &[]).await;
    for _ in 0..10 {
        assert_eq!(
            text(node.login("foo", "bob", "no").await),
            "Secret not correct"
        );
    }
    let refused = node.login("foo", "bob", "secret").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Exhausted);
    assert!(refused.to_string().contains("1 s"), "{refused}");
    assert!(node.login("micro", "admin", "micro").await.is_ok());
    node.clock.advance(Duration::from_secs(1));
    assert!(node.login("foo", "bob", "secret").await.is_ok());
    assert_eq!(
        text(node.login("foo", "bob", "no").await),
        "Secret not correct"
    );
}

#[tokio::test]
async fn refresh_tokens_of_an_account_are_bounded_and_the_used_ones_stay() {
    let node = Node::start(true).await;
    node.add("foo", "bob", "user", &[]).await;
    node.sqlite
        .write(|tx| {
            let bob = repo::by_id(tx, &ns("foo"), "bob")?.unwrap();
            for n in 0..150u8 {
                let now = Timestamp(i64::from(n));
                repo::add_refresh(tx, &bob, &[n; 32], now)?.unwrap();
                repo::touch_refresh(tx, &ns("foo"), &[7; 32], now)?;
            }
            let left = |n: u8| repo::by_refresh(tx, &ns("foo"), &[n; 32]);
            assert!(left(7)?.is_some(), "in use");
            assert!(left(50)?.is_none() && left(51)?.is_some());
            let old = repo::Record { turn: 9, ..bob };
            assert!(matches!(
                repo::add_refresh(tx, &old, &[200; 32], Timestamp(0))?,
                Err(Error::WrongSecret)
            ));
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_token_of_a_micro_server_with_the_same_key_counts_for_existing_accounts() {
    let node = Node::start(true).await;
    node.add("foo", "bob", "user", &[]).await;
    let sign = |id: &str| {
        let account = Account {
            id: AccountId::parse(id).unwrap(),
            kind: "user".into(),
            issuer: ns("foo"),
            scopes: Vec::new(),
            name: id.into(),
            metadata: std::collections::BTreeMap::new(),
        };
        let expiry = node.clock.now().plus(minutes(1));
        let claims = crate::token::Claims::of(&account, expiry, None);
        node.handle().shared.signer.sign(&claims).unwrap()
    };
    assert!(node.handle().inspect(&sign("bob")).is_some());
    assert!(node.handle().inspect(&sign("eve")).is_none());
}
