//! Nobody finds a default password on a server that others can reach.

use micro_tests::Server;

#[test]
fn loopback_has_the_development_account() {
    let server = Server::start();
    assert!(
        server
            .log()
            .contains("micro login --username admin --password micro"),
        "{}",
        server.log()
    );
    let server = server.logged_in();
    assert_eq!(server.cli(["user"]).ok().trim(), "admin");
}

#[test]
fn beyond_loopback_a_one_time_token_makes_the_first_account() {
    let server = Server::with().flag("--proxy-address", "0.0.0.0:0").start();
    let wrong = server.cli(["login", "--username", "admin", "--password", "micro"]);
    assert_ne!(wrong.code, 0, "{wrong:?}");

    let log = server.log();
    let token = log
        .split("--token ")
        .nth(1)
        .and_then(|t| t.split_whitespace().next())
        .expect("a token is printed")
        .to_owned();
    let address = format!("127.0.0.1:{}", server.address("proxy").port());
    let bad = server.cli([
        "login",
        &address,
        "--token",
        "nonsense",
        "--username",
        "alice",
        "--password",
        "correct horse",
    ]);
    assert_ne!(bad.code, 0, "{bad:?}");
    let claim = [
        "login",
        &address,
        "--token",
        &token,
        "--username",
        "alice",
        "--password",
        "correct horse",
    ];
    server.cli(claim).ok();
    assert_eq!(server.cli(["user"]).ok().trim(), "alice");
    assert!(
        server
            .cli(["auth", "list", "accounts"])
            .ok()
            .contains("alice")
    );

    // Once.
    let again = [
        "login",
        &address,
        "--token",
        &token,
        "--username",
        "mallory",
        "--password",
        "x y z w",
    ];
    assert_ne!(server.cli(again).code, 0);
    let state = server.state();
    let stored = std::fs::read(state.join("micro.db")).unwrap();
    assert!(
        !stored.windows(token.len()).any(|w| w == token.as_bytes()),
        "the token is stored hashed"
    );
}
