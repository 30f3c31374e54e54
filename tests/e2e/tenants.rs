//! Two namespaces that cannot see each other.

use micro_tests::Server;

use crate::fixtures::{administrator, run_echo};

#[test]
fn services_accounts_logs_and_routes_stay_within_their_namespace() {
    let server = Server::start();
    administrator(&server, "red");
    run_echo(&server, "paint");
    administrator(&server, "blue");

    // Nothing of red is listed in blue.
    assert!(!server.cli(["services"]).ok().contains("paint"));
    assert!(!server.cli(["status"]).ok().contains("paint"));
    assert!(server.cli(["logs", "paint"]).failed().contains("not found"));
    assert!(
        server
            .cli(["paint", "call", "--name=x"])
            .failed()
            .contains("paint")
    );
    let not_found = server.cli(["call", "paint", "Helloworld.Call", "{}"]);
    assert_eq!(not_found.code, 4, "{not_found:?}");
    assert_eq!(
        server
            .curl("/paint", &["-H", "Micro-Namespace: blue"])
            .status,
        404
    );

    // Asking for red with blue's identity is refused, by every door that knows who asks.
    let token = server.cli(["user", "token"]).ok();
    let bearer = format!("Authorization: Bearer {}", token.trim());
    for (path, body) in [
        (
            "/runtime/Runtime/Read",
            r#"{"options":{"namespace":"red"}}"#,
        ),
        (
            "/runtime/Runtime/Delete",
            r#"{"resource":{"service":{"name":"paint"}},"options":{"namespace":"red"}}"#,
        ),
        (
            "/registry/Registry/ListServices",
            r#"{"options":{"domain":"red"}}"#,
        ),
        (
            "/registry/Registry/GetService",
            r#"{"service":"paint","options":{"domain":"red"}}"#,
        ),
        ("/auth/Accounts/List", r#"{"options":{"namespace":"red"}}"#),
        ("/auth/Rules/List", r#"{"options":{"namespace":"red"}}"#),
    ] {
        let reply = server.curl(
            path,
            &["-H", &bearer, "-H", "Micro-Namespace: blue", "-d", body],
        );
        assert_eq!(reply.status, 403, "{path}: {reply:?}");
    }

    // Both may use the same name, and each reaches its own.
    run_echo(&server, "paint");
    for namespace in ["red", "blue"] {
        let reply = server.curl(
            "/paint/Helloworld/Call?name=x",
            &["-H", &format!("Micro-Namespace: {namespace}")],
        );
        assert_eq!(reply.json()["msg"], "Hello x", "{reply:?}");
    }
    server.cli(["kill", "paint"]).ok();
    assert_eq!(
        server
            .curl("/paint/Helloworld/Call", &["-H", "Micro-Namespace: blue"])
            .status,
        404
    );
    assert_eq!(
        server
            .curl("/paint/Helloworld/Call", &["-H", "Micro-Namespace: red"])
            .status,
        200
    );
}
