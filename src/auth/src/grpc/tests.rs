//! The gRPC face: who may ask what, in which namespace, and the exact texts.

use std::sync::Arc;

use micro_core::WireError;
use micro_proto::status::to_wire;

use super::*;
use crate::handle::tests::{Node, ns};

async fn account(node: &Node, namespace: &str, id: &str, kind: &str, scopes: &[&str]) -> Caller {
    node.add(namespace, id, kind, scopes).await;
    let token = node.login(namespace, id, "secret").await.unwrap();
    Caller {
        account: node.handle().inspect(&token.access),
        namespace: ns(namespace),
    }
}

fn ask<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller.clone());
    request
}

fn option(namespace: &str) -> Option<proto::Options> {
    Some(proto::Options {
        namespace: namespace.into(),
    })
}

fn refusal<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> WireError {
    to_wire(&result.unwrap_err())
}

fn said<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> (String, u16, String) {
    let wire = refusal(result);
    (wire.id, wire.code, wire.detail)
}

struct Faces {
    auth: AuthFace,
    accounts: AccountsFace,
    rules: RulesFace,
}

fn faces(node: &Node) -> Faces {
    Faces {
        auth: AuthFace::new(node.handle()),
        accounts: AccountsFace::new(node.handle()),
        rules: RulesFace::new(node.handle()),
    }
}

#[tokio::test]
async fn each_method_asks_for_the_right_that_the_contract_names() {
    let node = Node::start(true).await;
    let f = faces(&node);
    let nobody = Caller::anonymous(ns("foo"));
    let plain = account(&node, "foo", "plain", "user", &["x"]).await;
    let admin = account(&node, "foo", "admin", "user", &["admin"]).await;
    let other = account(&node, "bar", "admin", "user", &["admin"]).await;
    let operator = account(&node, "micro", "op", "user", &["admin"]).await;
    let service = account(&node, "foo", "svc", "service", &["service"]).await;

    // What the namespace's administrators may do: code for each caller, 0 for success.
    let callers = [&nobody, &plain, &admin, &other, &operator, &service];
    let expected = [401, 401, 0, 403, 0, 0];
    for (n, (caller, expected)) in callers.into_iter().zip(expected).enumerate() {
        let code = |r: Result<(), Status>| r.map_or_else(|s| to_wire(&s).code, |()| 0);
        let generate = proto::GenerateRequest {
            id: format!("new{n}"),
            options: option("foo"),
            ..Default::default()
        };
        let generated = f.auth.generate(ask(caller, generate)).await;
        assert_eq!(code(generated.map(drop)), expected, "generate {n}");
        let list = proto::ListAccountsRequest {
            options: option("foo"),
        };
        let listed = f.accounts.list(ask(caller, list)).await;
        assert_eq!(code(listed.map(drop)), expected, "list {n}");
        let create = proto::CreateRequest {
            rule: Some(rule_of(&format!("r{n}"))),
            options: option("foo"),
        };
        let created = f.rules.create(ask(caller, create)).await;
        assert_eq!(code(created.map(drop)), expected, "create {n}");
        let delete = proto::DeleteRequest {
            id: format!("r{n}"),
            options: option("foo"),
        };
        let deleted = f.rules.delete(ask(caller, delete)).await;
        assert_eq!(code(deleted.map(drop)), expected, "delete rule {n}");
        node.add("foo", &format!("victim{n}"), "user", &[]).await;
        let delete = proto::DeleteAccountRequest {
            id: format!("victim{n}"),
            options: option("foo"),
        };
        let deleted = f.accounts.delete(ask(caller, delete)).await;
        assert_eq!(code(deleted.map(drop)), expected, "delete account {n}");
        // Any account of the namespace may read its rules: services check them themselves.
        let list = proto::ListRequest {
            options: option("foo"),
        };
        let listed = f.rules.list(ask(caller, list)).await;
        let expected = [401, 0, 0, 403, 0, 0][n];
        assert_eq!(code(listed.map(drop)), expected, "list rules {n}");
    }
}

fn rule_of(id: &str) -> proto::Rule {
    proto::Rule {
        id: id.into(),
        scope: "*".into(),
        resource: Some(proto::Resource {
            name: "helloworld".into(),
            r#type: "service".into(),
            endpoint: "*".into(),
        }),
        access: proto::Access::Granted.into(),
        priority: 3,
    }
}

#[tokio::test]
async fn the_texts_and_ids_are_those_of_micro() {
    let node = Node::start(true).await;
    let f = faces(&node);
    let admin = account(&node, "foo", "boss", "user", &["admin"]).await;
    let nobody = Caller::anonymous(ns("foo"));
    let words = |id: &str, code: u16, detail: &str| (id.to_owned(), code, detail.to_owned());

    let generate = |id: &str, name: &str| proto::GenerateRequest {
        id: id.into(),
        name: name.into(),
        ..Default::default()
    };
    assert_eq!(
        said(f.auth.generate(ask(&admin, generate("", ""))).await),
        words("auth.Auth.Generate", 400, "ID required")
    );
    assert_eq!(
        said(f.auth.generate(ask(&admin, generate("boss", ""))).await),
        words("auth", 400, "Account with this ID already exists")
    );
    assert_eq!(
        said(f.auth.generate(ask(&admin, generate("x", "boss"))).await),
        words("auth", 400, "Account with this Name already exists")
    );
    let inspect = proto::InspectRequest {
        token: "a.b.c".into(),
        options: None,
    };
    assert_eq!(
        said(f.auth.inspect(ask(&nobody, inspect)).await),
        words("auth.Auth.Inspect", 400, "invalid token provided")
    );
    let token = |id: &str, secret: &str, refresh: &str| proto::TokenRequest {
        id: id.into(),
        secret: secret.into(),
        refresh_token: refresh.into(),
        token_expiry: 60,
        options: option("foo"),
    };
    for (request, detail) in [
        (token("", "", ""), "Credentials or a refresh token required"),
        (
            token("boss", "", ""),
            "Credentials or a refresh token required",
        ),
        (token("", "", "no"), "invalid token provided"),
        (token("eve", "x", ""), "Account not found with this ID"),
        (token("boss", "x", ""), "Secret not correct"),
    ] {
        assert_eq!(
            said(f.auth.token(ask(&nobody, request)).await),
            words("auth.Auth.Token", 400, detail)
        );
    }
    let delete = |id: &str| proto::DeleteAccountRequest {
        id: id.into(),
        options: None,
    };
    for (id, detail) in [
        ("", "Missing ID"),
        ("eve", "Account not found with this ID"),
        ("not an id", "Account not found with this ID"),
        ("boss", "Can't delete your own account"),
    ] {
        assert_eq!(
            said(f.accounts.delete(ask(&admin, delete(id))).await),
            words("auth.Accounts.Delete", 400, detail)
        );
    }
    let rule = |rule: Option<proto::Rule>| proto::CreateRequest {
        rule,
        options: None,
    };
    f.rules
        .create(ask(&admin, rule(Some(rule_of("r")))))
        .await
        .unwrap();
    let without = |change: fn(&mut proto::Rule)| {
        let mut rule = rule_of("x");
        change(&mut rule);
        Some(rule)
    };
    for (message, detail) in [
        (None, "Rule missing"),
        (without(|r| r.id.clear()), "ID missing"),
        (without(|r| r.resource = None), "Resource missing"),
        (without(|r| r.access = 0), "Access missing"),
        (without(|r| r.access = 9), "Access missing"),
        (Some(rule_of("r")), "A rule with this ID already exists"),
    ] {
        assert_eq!(
            said(f.rules.create(ask(&admin, rule(message))).await),
            words("auth.Rules.Create", 400, detail)
        );
    }
    let list = proto::ListAccountsRequest { options: None };
    assert_eq!(
        said(f.accounts.list(ask(&nobody, list)).await),
        words("auth.Accounts.List", 401, "an account is required")
    );
    let list = proto::ListAccountsRequest {
        options: option("Not A Namespace"),
    };
    assert_eq!(refusal(f.accounts.list(ask(&admin, list)).await).code, 400);
}

#[tokio::test]
async fn a_request_acts_in_its_option_or_in_the_namespace_of_its_caller() {
    let node = Node::start(true).await;
    let f = faces(&node);
    let admin = account(&node, "foo", "boss", "user", &["admin"]).await;
    let generate = proto::GenerateRequest {
        id: "bob".into(),
        scopes: vec!["x".into()],
        ..Default::default()
    };
    let made = f.auth.generate(ask(&admin, generate)).await.unwrap();
    let made = made.into_inner().account.unwrap();
    assert_eq!(
        (made.issuer.as_str(), made.r#type.as_str()),
        ("foo", "user")
    );
    assert!(!made.secret.is_empty(), "shown once");

    // Without a caller: anonymous, in `micro`.
    let token = proto::TokenRequest {
        id: "admin".into(),
        secret: "micro".into(),
        token_expiry: 60,
        ..Default::default()
    };
    let token = f.auth.token(Request::new(token)).await.unwrap();
    let token = token.into_inner().token.unwrap();
    assert_eq!(token.expiry - token.created, 60);
    let inspect = proto::InspectRequest {
        token: token.access_token,
        options: None,
    };
    let whose = f.auth.inspect(Request::new(inspect)).await.unwrap();
    let whose = whose.into_inner().account.unwrap();
    assert_eq!(
        (whose.issuer.as_str(), whose.secret.as_str()),
        ("micro", "")
    );

    let list = proto::ListAccountsRequest { options: None };
    let listed = f.accounts.list(ask(&admin, list)).await.unwrap();
    let listed: Vec<_> = listed.into_inner().accounts;
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|a| a.secret.is_empty()));

    let created = proto::CreateRequest {
        rule: Some(rule_of("r")),
        options: None,
    };
    f.rules.create(ask(&admin, created)).await.unwrap();
    let list = proto::ListRequest {
        options: option("foo"),
    };
    let rules = f.rules.list(ask(&admin, list)).await.unwrap();
    let rules = rules.into_inner().rules;
    assert_eq!(rules.len(), 2);
    assert_eq!(rules[1], rule_of("r"));
}

#[tokio::test]
async fn only_the_trusted_change_a_secret_without_knowing_it() {
    let node = Node::start(true).await;
    let f = faces(&node);
    let plain = account(&node, "foo", "plain", "user", &[]).await;
    let admin = account(&node, "foo", "boss", "user", &["admin"]).await;
    let service = account(&node, "foo", "svc", "service", &["service"]).await;
    let operator = account(&node, "micro", "op", "user", &["admin"]).await;
    let outsider = account(&node, "bar", "boss", "user", &["admin"]).await;
    let robot = Caller {
        account: Some(Arc::new(Account {
            kind: "robot".into(),
            ..Account::clone(plain.account().unwrap())
        })),
        namespace: ns("foo"),
    };
    let change = |old: &str| proto::ChangeSecretRequest {
        id: "plain".into(),
        old_secret: old.into(),
        new_secret: "secret".into(),
        options: option("foo"),
    };
    for (caller, blind, knowing) in [
        (&plain, 400, 0),
        (&admin, 400, 0),
        (&service, 0, 0),
        (&operator, 0, 0),
        (&outsider, 403, 403),
        (&robot, 403, 403),
        (&Caller::anonymous(ns("foo")), 401, 401),
    ] {
        for (old, expected) in [("wrong", blind), ("secret", knowing)] {
            let result = f.accounts.change_secret(ask(caller, change(old))).await;
            let code = result.map_or_else(|s| to_wire(&s).code, |_| 0);
            assert_eq!(code, expected, "{caller:?} {old}");
        }
    }
}

#[tokio::test]
async fn all_three_services_can_be_mounted() {
    let node = Node::start(true).await;
    let _ = node.service.grpc();
}
