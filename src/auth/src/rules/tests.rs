//! The decision: examples, and a comparison with a slow, literal reading of the contract.

use std::collections::BTreeMap;

use micro_core::AccountId;
use proptest::prelude::*;

use super::*;

fn account(issuer: &str, scopes: &[&str]) -> Account {
    Account {
        id: AccountId::parse("bob").unwrap(),
        kind: "user".into(),
        issuer: Namespace::parse(issuer).unwrap(),
        scopes: scopes.iter().map(|s| (*s).into()).collect(),
        name: "bob".into(),
        metadata: BTreeMap::new(),
    }
}

fn rule(id: &str, scope: &str, resource: &str, access: Access, priority: i32) -> Rule {
    let mut parts = resource.splitn(3, ':').map(str::to_owned);
    Rule {
        id: id.into(),
        scope: scope.into(),
        resource: Resource {
            kind: parts.next().unwrap(),
            name: parts.next().unwrap(),
            endpoint: parts.next().unwrap(),
        },
        access,
        priority,
    }
}

fn ask(rules: &[Rule], account: Option<&Account>, endpoint: &str) -> Result<(), Denied> {
    let mut rules = rules.to_vec();
    order(&mut rules);
    decide(
        &rules,
        account,
        &Namespace::parse("foo").unwrap(),
        "helloworld",
        endpoint,
    )
}

#[test]
fn everybody_may_call_in_an_untouched_namespace_and_nobody_without_rules() {
    assert_eq!(ask(untouched(), None, "Helloworld.Call"), Ok(()));
    assert_eq!(ask(&[], None, "X.Y"), Err(Denied::Unauthorized));
    assert_eq!(
        ask(&[], Some(&account("foo", &["admin"])), "X.Y"),
        Err(Denied::Forbidden)
    );
}

#[test]
fn a_locked_down_namespace_lets_its_own_accounts_in() {
    let rules = [rule("inside", "*", "*:*:*", Access::Granted, 0)];
    assert_eq!(
        ask(&rules, None, "X.Y"),
        Err(Denied::Unauthorized),
        "anonymous callers skip it"
    );
    assert_eq!(ask(&rules, Some(&account("foo", &[])), "X.Y"), Ok(()));
    assert_eq!(
        ask(&rules, Some(&account("bar", &[])), "X.Y"),
        Err(Denied::Forbidden)
    );
    let across = [rule("across", "+", "*:*:*", Access::Granted, 0)];
    assert_eq!(ask(&across, Some(&account("bar", &[])), "X.Y"), Ok(()));
}

#[test]
fn an_outsider_is_stopped_by_the_first_rule_about_insiders() {
    let rules = [
        rule("a", "staff", "*:*:*", Access::Granted, 1),
        rule("b", "", "*:*:*", Access::Granted, 0),
    ];
    assert_eq!(
        ask(&rules, Some(&account("bar", &["staff"])), "X.Y"),
        Err(Denied::Forbidden)
    );
    assert_eq!(ask(&rules, None, "X.Y"), Ok(()), "anonymous goes on to b");
    assert_eq!(ask(&rules, Some(&account("foo", &[])), "X.Y"), Ok(()));
}

#[test]
fn the_higher_priority_wins_and_among_equals_the_first_id() {
    let deny = rule("z", "", "service:helloworld:*", Access::Denied, 1);
    let grant = rule("a", "", "*:*:*", Access::Granted, 0);
    assert_eq!(
        ask(&[grant.clone(), deny], None, "X.Y"),
        Err(Denied::Unauthorized)
    );
    let deny = rule("b", "", "*:*:*", Access::Denied, 0);
    assert_eq!(ask(&[deny, grant], None, "X.Y"), Ok(()));
}

#[test]
fn case_does_not_matter_and_paths_are_covered_by_their_components() {
    let may = |pattern: &str, endpoint: &str| {
        let rules = [rule(
            "r",
            "",
            &format!("Service:HelloWorld:{pattern}"),
            Access::Granted,
            0,
        )];
        ask(&rules, None, endpoint).is_ok()
    };
    assert!(may("helloworld.CALL", "Helloworld.Call"));
    for pattern in ["/*", "/a/*", "/A/b/*", "/a/b"] {
        assert!(may(pattern, "/a/b"), "{pattern}");
    }
    for pattern in ["/a/b/c/*", "/b/*", "a/*", "/a*", "/*/b", "*/*"] {
        assert!(!may(pattern, "/a/b"), "{pattern}");
    }
    assert!(!may("Hello/*", "Hello"), "no path, no wildcard");
    assert!(may("a/*", "a/b") && !may("/*", "a/b"));
}

#[test]
fn a_last_slash_is_no_way_around_a_refusal() {
    let public = rule("public", "", "*:*:*", Access::Granted, 0);
    for (refused, endpoint) in [
        ("/admin", "/admin/"),
        ("/admin/", "/admin"),
        ("/Admin", "/admin/"),
    ] {
        let deny = rule(
            "deny",
            "",
            &format!("service:*:{refused}"),
            Access::Denied,
            1,
        );
        let rules = [deny, public.clone()];
        assert_eq!(
            ask(&rules, None, endpoint),
            Err(Denied::Unauthorized),
            "{refused}"
        );
        assert_eq!(ask(&rules, None, "/admin/x"), Ok(()));
        let grant = [rule(
            "grant",
            "",
            &format!("service:*:{refused}"),
            Access::Granted,
            1,
        )];
        assert!(ask(&grant, None, endpoint).is_err(), "granted as written");
    }
}

/// The contract word by word, and refusals of pages with or without a last slash: build every accepted text, filter, sort, walk.
fn literal(
    rules: &[Rule],
    account: Option<&Account>,
    namespace: &str,
    service: &str,
    endpoint: &str,
) -> bool {
    let mut endpoints = vec!["*".to_owned(), endpoint.to_owned()];
    if endpoint.contains('/') {
        let components: Vec<&str> = endpoint.split('/').collect();
        for n in 1..=components.len() {
            endpoints.push(format!("{}/*", components[..n].join("/")));
        }
    }
    let among = |text: &str, accepted: &[String]| {
        accepted
            .iter()
            .any(|a| a.to_lowercase() == text.to_lowercase())
    };
    // Stored in the order of their ids.
    let mut kept: Vec<&Rule> = rules.iter().collect();
    kept.sort_by_key(|r| r.id.clone());
    kept.retain(|r| {
        among(&r.resource.kind, &["*".into(), "service".into()])
            && among(&r.resource.name, &["*".into(), service.into()])
            && (among(&r.resource.endpoint, &endpoints)
                || (r.access == Access::Denied
                    && endpoint.starts_with('/')
                    && r.resource.endpoint.starts_with('/')
                    && (among(&format!("{}/", r.resource.endpoint), &[endpoint.to_owned()])
                        || among(&r.resource.endpoint, &[format!("{endpoint}/")]))))
    });
    kept.sort_by_key(|r| std::cmp::Reverse(r.priority));
    for rule in kept {
        let granted = rule.access == Access::Granted;
        if rule.scope.is_empty() {
            return granted;
        }
        let Some(account) = account else { continue };
        if rule.scope != "+" && account.issuer.as_str() != namespace {
            return false;
        }
        if rule.scope == "+" || rule.scope == "*" {
            return granted;
        }
        if account.scopes.contains(&rule.scope) {
            return granted;
        }
    }
    false
}

fn word(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(words).prop_map(str::to_owned)
}

const ENDPOINTS: &[&str] = &[
    "*", "/*", "/a/*", "/A/b/*", "a/*", "/a", "/a/b", "a/b", "a.B", "A.b", "", "/", "//*", "*/*",
    "é/*", "É/b", "/a/",
];

fn any_rule() -> impl Strategy<Value = Rule> {
    (
        word(&["a", "b", "c", "default"]),
        word(&["", "*", "+", "x", "y", "*x"]),
        word(&["*", "service", "SERVICE", "topic", ""]),
        word(&["*", "svc", "SVC", "other", ""]),
        word(ENDPOINTS),
        prop::bool::ANY,
        -1..2i32,
    )
        .prop_map(
            |(id, scope, kind, name, endpoint, granted, priority)| Rule {
                id,
                scope,
                resource: Resource {
                    kind,
                    name,
                    endpoint,
                },
                access: if granted {
                    Access::Granted
                } else {
                    Access::Denied
                },
                priority,
            },
        )
}

fn any_account() -> impl Strategy<Value = Option<Account>> {
    prop::option::of(
        (
            word(&["foo", "bar", "micro"]),
            prop::collection::vec(prop::sample::select(vec!["x", "y", "*", ""]), 0..3),
        )
            .prop_map(|(issuer, scopes)| account(&issuer, &scopes)),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn it_decides_as_the_contract_reads(
        mut rules in prop::collection::vec(any_rule(), 0..6),
        account in any_account(),
        endpoint in word(ENDPOINTS),
    ) {
        // Ids are unique in a namespace.
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        rules.dedup_by(|a, b| a.id == b.id);
        let expected = literal(&rules, account.as_ref(), "foo", "svc", &endpoint);
        order(&mut rules);
        let namespace = Namespace::parse("foo").unwrap();
        let decided = decide(&rules, account.as_ref(), &namespace, "svc", &endpoint);
        prop_assert_eq!(decided.is_ok(), expected);
        if let Err(denied) = decided {
            prop_assert_eq!(denied == Denied::Unauthorized, account.is_none());
        }
    }
}
