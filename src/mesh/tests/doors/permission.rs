//! Who gets in, and what the others are told.

use micro_core::WireError;

use crate::{backend::Backend, fixture::Fixture, raw::Client};

async fn told(raw: &mut Client, path: &str, headers: &[(&str, &str)]) -> (i32, WireError) {
    let (code, message) = raw.call(path, headers, b"").await.status();
    (code, WireError::parse(&message).expect(&message))
}

#[tokio::test]
async fn rules_refuse_with_micros_words() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let mut raw = Client::connect(fixture.address).await;
    let delete = "/runtime.Runtime/Delete";

    let (code, error) = told(&mut raw, delete, &[]).await;
    assert_eq!((code, error.code, error.id.as_str()), (16, 401, "runtime"));
    assert_eq!(
        error.detail,
        "Unauthorized call made to runtime:Runtime.Delete"
    );
    // A token that proves nothing is no token.
    let wrong = [("authorization", "Bearer nonsense")];
    assert_eq!(told(&mut raw, delete, &wrong).await.1, error);

    let guest = [("authorization", "Bearer guest@micro")];
    let (code, error) = told(&mut raw, delete, &guest).await;
    assert_eq!((code, error.code), (7, 403));
    assert_eq!(
        error.detail,
        "Forbidden call made to runtime:Runtime.Delete by guest"
    );

    let alice = [("authorization", "Bearer alice@micro")];
    assert_eq!(raw.call(delete, &alice, b"").await.status().0, 0);

    let page = fixture.pipeline.metrics();
    assert!(
        page.contains("micro_requests_refused_total{door=\"proxy\",code=\"unauthenticated\"} 2"),
        "{page}"
    );
}

#[tokio::test]
async fn no_spelling_of_a_path_gets_around_a_rule() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::with(
        vec![crate::fixture::spec("jobs", &[instance.address])],
        None,
    )
    .await;
    let mut raw = Client::connect(fixture.address).await;
    for path in [
        "/jobs.Runtime/Delete",
        "/runtime.Runtime/Delete",
        "/jobs.runtime/delete",
        "/jobs.Run-time/De_lete",
    ] {
        let (code, message) = raw.call(path, &[], b"").await.status();
        assert_ne!(code, 0, "{path}: {message}");
    }
}

#[tokio::test]
async fn an_account_stays_in_its_namespace_unless_it_is_the_operator() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let mut raw = Client::connect(fixture.address).await;
    let read = "/runtime.Runtime/Read";

    let foreign = [
        ("authorization", "Bearer alice@foo"),
        ("micro-namespace", "micro"),
    ];
    let (code, error) = told(&mut raw, read, &foreign).await;
    assert_eq!((code, error.code, error.id.as_str()), (7, 403, "runtime"));
    assert_eq!(error.detail, "access denied to namespace");

    // The service is not in its own namespace either.
    let home = [("authorization", "Bearer alice@foo")];
    let (_, error) = told(&mut raw, read, &home).await;
    assert_eq!(error.detail, "service runtime: route not found");

    // The operator goes anywhere; here there is nothing.
    let operator = [
        ("authorization", "Bearer admin@micro"),
        ("micro-namespace", "foo"),
    ];
    let (_, error) = told(&mut raw, read, &operator).await;
    assert_eq!(error.detail, "service runtime: route not found");
    let own = [("authorization", "Bearer admin@micro")];
    assert_eq!(raw.call(read, &own, b"").await.status().0, 0);
}

#[tokio::test]
async fn impossible_headers_are_named() {
    let backend = Backend::new("one");
    let instance = backend.start().await;
    let fixture = Fixture::service(&[instance.address]).await;
    let mut raw = Client::connect(fixture.address).await;
    let read = "/runtime.Runtime/Read";
    let (code, error) = told(&mut raw, read, &[("authorization", "Basic eDp5")]).await;
    assert_eq!((code, error.code, error.id.as_str()), (16, 401, "runtime"));
    assert_eq!(
        error.detail,
        "invalid authorization header. expected Bearer schema"
    );
    let (code, error) = told(&mut raw, read, &[("micro-namespace", "../x")]).await;
    assert_eq!((code, error.code), (3, 400));
    assert!(error.detail.contains("invalid namespace"), "{error:?}");
}
