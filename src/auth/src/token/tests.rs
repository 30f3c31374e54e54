//! Tokens: what is accepted, and what is not.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};

use super::*;
use crate::keys::tests::pair;

fn account() -> Account {
    Account {
        id: AccountId::parse("bob").unwrap(),
        kind: "user".into(),
        issuer: Namespace::parse("foo").unwrap(),
        scopes: vec!["admin".into()],
        name: "Bob".into(),
        metadata: [("created".into(), "1".into())].into(),
    }
}

const NOW: Timestamp = Timestamp(1_000_000);

#[test]
fn a_token_says_whose_it_is_until_it_expires() {
    let signer = Signer::new(pair());
    let again = Signer::new(pair());
    let claims = Claims::of(&account(), Timestamp(2_000_000), Some((7, 1)));
    let token = signer.sign(&claims).unwrap();
    let read = again.check(&token, NOW).unwrap();
    assert_eq!(
        (read.exp, read.generation, read.turn),
        (2000, Some(7), Some(1))
    );
    assert_eq!(read.account(), Some(account()));
    assert!(signer.check(&token, Timestamp(1_999_999)).is_some());
    assert!(signer.check(&token, Timestamp(2_000_000)).is_none());
}

#[test]
fn it_has_the_claims_of_micro_and_no_more_for_accounts_that_are_not_stored() {
    let signer = Signer::new(pair());
    let token = signer
        .sign(&Claims::of(&account(), Timestamp(2_000_000), None))
        .unwrap();
    let parts: Vec<_> = token.split('.').map(|p| B64.decode(p).unwrap()).collect();
    assert_eq!(parts[0], br#"{"typ":"JWT","alg":"RS256"}"#);
    let body: serde_json::Value = serde_json::from_slice(&parts[1]).unwrap();
    assert_eq!(
        body,
        serde_json::json!({"type":"user","scopes":["admin"],"metadata":{"created":"1"},
            "name":"Bob","exp":2000,"iss":"foo","sub":"bob"})
    );
}

#[test]
fn what_go_writes_for_nothing_is_read() {
    let claims: Claims = serde_json::from_str(
        r#"{"type":"service","scopes":null,"metadata":null,"exp":9,"iss":"foo","sub":"x","aud":""}"#,
    )
    .unwrap();
    let account = claims.account().unwrap();
    assert_eq!(account.name, "x");
    assert!(account.scopes.is_empty());
    let bad = r#"{"type":"user","exp":9,"iss":"../etc","sub":"x"}"#;
    let bad: Claims = serde_json::from_str(bad).unwrap();
    assert_eq!(bad.account(), None);
}

#[test]
fn forgeries_are_refused() {
    let signer = Signer::new(pair());
    let claims = Claims::of(&account(), Timestamp(2_000_000), None);
    let token = signer.sign(&claims).unwrap();
    let parts: Vec<_> = token.split('.').collect();
    let body = serde_json::to_vec(&claims).unwrap();
    let other = String::from_utf8(body.clone())
        .unwrap()
        .replace("foo", "micro");
    let header = |alg: &str| B64.encode(format!(r#"{{"typ":"JWT","alg":"{alg}"}}"#));
    // The public key as an HMAC secret: the classic confusion.
    let hmac = {
        let message = format!("{}.{}", header("HS256"), parts[1]);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, pair().public_der());
        let mac = ring::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", B64.encode(mac.as_ref()))
    };
    let forged = [
        format!("{}.{}.{}", parts[0], B64.encode(other), parts[2]),
        format!("{}.{}.", header("none"), parts[1]),
        format!("{}.{}.{}", header("RS512"), parts[1], parts[2]),
        format!("{}.{}.{}x", parts[0], parts[1], parts[2]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}.x"),
        hmac,
        "..".into(),
        String::new(),
        "a.b.c".into(),
        "x".repeat(MAX_TOKEN) + "..",
    ];
    for token in forged {
        assert!(signer.check(&token, NOW).is_none(), "{token}");
    }
}
