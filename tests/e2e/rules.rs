//! Rules decide who may call what, at every door.

use micro_tests::Server;

use crate::fixtures::run_echo;

#[test]
fn a_rule_can_close_one_endpoint_to_the_public_and_leave_the_rest() {
    let server = Server::start().logged_in();
    run_echo(&server, "greeter");
    let call = "/greeter/Helloworld/Call?name=x";
    assert_eq!(server.curl(call, &[]).status, 200);

    let rule = [
        "auth",
        "create",
        "rule",
        "--resource",
        "service:greeter:Helloworld.Call",
        "--access",
        "denied",
        "--priority",
        "1",
        "closed",
    ];
    assert_eq!(server.cli(rule).ok().trim(), "Rule created");
    let only = [
        "auth",
        "create",
        "rule",
        "--scope",
        "admin",
        "--resource",
        "service:greeter:Helloworld.Call",
        "--access",
        "granted",
        "--priority",
        "2",
        "admins",
    ];
    server.cli(only).ok();
    let listed = server.cli(["auth", "list", "rules"]).ok();
    assert!(
        listed.contains("closed")
            && listed.contains("DENIED")
            && listed.contains("service:greeter:Helloworld.Call"),
        "{listed}"
    );

    let refused = server.curl(call, &[]);
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (401, "unauthorized request\n")
    );
    let stream = server.curl("/greeter/Helloworld/Stream?count=1", &[]);
    assert_eq!(
        stream.status, 200,
        "the other endpoint stays open: {stream:?}"
    );

    // The administrator may, by curl and by CLI.
    let token = server.cli(["user", "token"]).ok();
    let bearer = format!("Authorization: Bearer {}", token.trim());
    assert_eq!(server.curl(call, &["-H", &bearer]).status, 200);
    assert!(server.cli(["greeter", "--name=x"]).ok().contains("Hello x"));

    // A plain user may not, and learns what to do.
    server
        .cli([
            "auth",
            "create",
            "account",
            "--secret",
            "pass-word",
            "--scopes",
            "guest",
            "guest",
        ])
        .ok();
    server
        .cli(["login", "--username", "guest", "--password", "pass-word"])
        .ok();
    let token = server.cli(["user", "token"]).ok();
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let refused = server.curl(call, &["-H", &bearer]);
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (403, "Forbidden request\n")
    );
    assert!(
        server
            .cli(["call", "greeter", "Helloworld.Call", "{}"])
            .failed()
            .contains("Forbidden")
    );
    server.cli(["logout"]).ok();
    let out = server.cli(["call", "greeter", "Helloworld.Call", "{}"]);
    assert_eq!(out.code, 2, "{out:?}");
    assert!(
        out.stderr.contains("Not authorized") && out.stderr.contains("micro login"),
        "{out:?}"
    );
}

#[test]
fn a_guest_may_not_administer() {
    let server = Server::start().logged_in();
    server
        .cli([
            "auth",
            "create",
            "account",
            "--secret",
            "pass-word",
            "--scopes",
            "guest",
            "guest",
        ])
        .ok();
    server
        .cli(["login", "--username", "guest", "--password", "pass-word"])
        .ok();
    for args in [
        &[
            "auth", "create", "account", "--secret", "x", "--scopes", "admin", "evil",
        ][..],
        &["auth", "list", "accounts"],
        &["auth", "delete", "account", "admin"],
        &["kill", "anything"],
    ] {
        server.cli(args).failed();
    }
}
