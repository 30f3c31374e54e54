//! Identity, namespace, rules and route at the gateway.

use http::HeaderMap;
use micro_core::Namespace;
use micro_pipeline::{Ask, Door, Protocol};

use crate::fixture::{Asked, Fixture, headers, spec};

fn asked(fixture: &Fixture) -> Asked {
    fixture.rules.0.lock().unwrap().last().cloned().unwrap()
}

#[tokio::test]
async fn rules_see_the_real_name_however_it_was_spelled() {
    let fixture = Fixture::grpc(&[]);
    for endpoint in ["Runtime.Delete", "runtime.delete", "Run-Time.De_Lete"] {
        let error = fixture
            .ask("jobs", endpoint, &HeaderMap::new())
            .err()
            .expect("refused");
        assert_eq!(error.code, 401, "{endpoint}");
        assert_eq!(asked(&fixture).3, "Runtime.Delete");
    }
    // By its proto name it is the same service.
    let admitted = fixture.admit("runtime", "Runtime.Read");
    assert_eq!(asked(&fixture).2, "jobs");
    assert_eq!(admitted.method().unwrap().path, "/runtime.Runtime/Read");
}

#[tokio::test]
async fn the_namespace_is_named_or_implied_or_the_accounts_own() {
    let fixture = Fixture::grpc(&[]);
    let foo = Namespace::parse("foo").unwrap();
    let mut in_foo = spec("jobs", Protocol::Grpc, &[]);
    in_foo.namespace = foo.clone();
    fixture
        .router
        .update(vec![in_foo, spec("jobs", Protocol::Grpc, &[])]);
    let ask = |headers: &HeaderMap, host: Option<&str>| {
        fixture
            .pipeline
            .admit(&Ask {
                door: Door::Gateway,
                headers,
                token: None,
                namespace: host,
                service: "jobs",
                endpoint: "Runtime.Read",
            })
            .map(|a| a.caller.namespace)
    };
    let alice = headers(&[("authorization", "Bearer alice@foo")]);
    assert_eq!(ask(&HeaderMap::new(), None).unwrap(), Namespace::operator());
    assert_eq!(ask(&alice, None).unwrap(), foo);
    assert_eq!(ask(&HeaderMap::new(), Some("foo")).unwrap(), foo);
    let named = headers(&[
        ("micro-namespace", "micro"),
        ("authorization", "Bearer alice@foo"),
    ]);
    assert_eq!(ask(&named, Some("foo")).unwrap(), Namespace::operator());
    assert_eq!(asked(&fixture).0, None, "a stranger to the rules of micro");
    let bad = headers(&[("micro-namespace", "No Such")]);
    assert_eq!(ask(&bad, None).unwrap_err().code, 400);
}

#[tokio::test]
async fn other_schemes_and_cookies() {
    let fixture = Fixture::grpc(&[]);
    let basic = headers(&[("authorization", "Basic eDp5")]);
    assert!(fixture.ask("jobs", "Runtime.Read", &basic).is_ok());
    assert_eq!(asked(&fixture).0, None);
    let none = HeaderMap::new();
    let ask = Ask {
        door: Door::Gateway,
        headers: &none,
        token: Some("bob@micro"),
        namespace: None,
        service: "jobs",
        endpoint: "Runtime.Delete",
    };
    let admitted = fixture.pipeline.admit(&ask).unwrap();
    assert_eq!(admitted.caller.account.unwrap().id.as_str(), "bob");
}

#[tokio::test]
async fn an_unknown_service_is_not_found_in_the_gateways_words() {
    let fixture = Fixture::grpc(&[]);
    let error = fixture
        .ask("nobody", "Foo.Bar", &HeaderMap::new())
        .err()
        .unwrap();
    assert_eq!(
        error.to_json(),
        r#"{"id":"go.micro.api","code":404,"detail":"service not found","status":"Not Found"}"#
    );
}
