//! Records and blobs of the built-in store, as a user without any library reaches them.

use micro_tests::{Reply, Server};

/// A bearer header of whom the CLI is logged in as.
fn bearer(server: &Server) -> String {
    let token = server.cli(["user", "token"]).ok();
    format!("Authorization: Bearer {}", token.trim())
}

fn call(server: &Server, bearer: &str, path: &str, body: &str) -> Reply {
    let json = "Content-Type: application/json";
    server.curl(path, &["-H", json, "-H", bearer, "-d", body])
}

#[test]
fn records_survive_the_node_and_are_for_their_namespace_only() {
    let mut server = Server::start().logged_in();
    let bearer = bearer(&server);
    let write = r#"{"record":{"key":"a/1","value":"aGVsbG8="},"options":{"table":"users"}}"#;
    let written = call(&server, &bearer, "/store/Store/Write", write);
    assert_eq!(written.status, 200, "{written:?}");
    server.stop();
    server.launch();
    let read = r#"{"key":"a/","options":{"table":"users","prefix":true}}"#;
    let found = call(&server, &bearer, "/store/Store/Read", read).json();
    assert_eq!(found["records"][0]["value"], "aGVsbG8=", "{found}");
    let listed = call(
        &server,
        &bearer,
        "/store/Store/List",
        r#"{"options":{"table":"users"}}"#,
    );
    assert!(listed.body.contains("a/1"), "{listed:?}");
    let missing = call(
        &server,
        &bearer,
        "/store/Store/Read",
        r#"{"key":"nothing"}"#,
    );
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["detail"], "not found");
    let anonymous = server.curl("/store/Store/Read", &["-d", read]);
    assert_eq!(anonymous.status, 401, "{anonymous:?}");
}

#[test]
fn a_public_blob_is_read_by_everybody_and_another_one_by_nobody() {
    let server = Server::start().logged_in();
    let bearer = bearer(&server);
    for (key, public) in [("shown", true), ("hidden", false)] {
        let body = format!(
            r#"{{"key":"{key}","options":{{"public":{public},"contentType":"text/html"}},"blob":"PGI+aGk8L2I+"}}"#
        );
        let written = call(&server, &bearer, "/store/BlobStore/Write", &body);
        assert_eq!(written.status, 200, "{written:?}");
    }
    let shown = server.curl("/blob/micro/shown", &[]);
    assert_eq!((shown.status, shown.body.as_str()), (200, "<b>hi</b>"));
    for header in [
        "content-type: text/html",
        "content-length: 9",
        "x-content-type-options: nosniff",
        "content-security-policy: sandbox",
    ] {
        assert!(shown.headers.contains(header), "{}", shown.headers);
    }
    let part = server.curl("/blob/micro/shown", &["-H", "Range: bytes=3-4"]);
    assert_eq!((part.status, part.body.as_str()), (206, "hi"));
    for path in [
        "/blob/micro/hidden",
        "/blob/micro/nothing",
        "/blob/foo/shown",
    ] {
        let answer = server.curl(path, &["-H", &bearer]);
        assert_eq!(answer.status, 404, "{answer:?}");
        assert_eq!(answer.json()["detail"], "Blob not found");
    }
}
