//! Whatever comes in, nothing panics, and what was understood comes back the same.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "protos/fixture.rs"]
mod shop;

use std::collections::HashMap;

use micro_proto::registry::{Endpoint, Value as Tree};
use micro_schema::{Method, Schema};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A Go service that registers the same order.
fn go_method() -> Method {
    let place = &shop::shop().endpoints().first().unwrap().clone();
    let schema = Schema::from_endpoints(vec![place.clone()]);
    schema.methods().first().unwrap().clone()
}

fn methods() -> Vec<Method> {
    ["Shop.PlaceOrder", "Shop.Ping", "MyStock.GetIt"]
        .map(shop::method)
        .into_iter()
        .chain([go_method()])
        .collect()
}

/// Names that exist, nearly exist, or do not.
fn name() -> impl Strategy<Value = String> {
    let known = shop::method("Shop.PlaceOrder").flags();
    let mut names: Vec<String> = known.into_iter().map(|f| f.name).collect();
    names.extend(
        [
            "items",
            "options",
            "labels[a]",
            "tags[]",
            "items[0].name",
            "userId",
            "shelf[1]",
            "at",
            "@type",
            "left",
        ]
        .map(str::to_owned),
    );
    prop_oneof![4 => proptest::sample::select(names), 1 => "[a-z_.\\[\\]-]{0,12}", 1 => ".{0,8}"]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-5i64..70).prop_map(Value::from),
        ".{0,10}".prop_map(Value::from),
        proptest::sample::select(vec![
            "1",
            "0x1f",
            "GRANTED",
            "true",
            "aGk=",
            "2026-01-31T12:00:00Z",
            "1.5s",
            "NaN",
            "-0",
            "0b",
            "9223372036854775808",
            "type.googleapis.com/shop.v1.Item"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((name(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// An order as the strict reading writes it.
fn order() -> impl Strategy<Value = Value> {
    let texts = proptest::collection::vec(".{0,6}", 0..3);
    let labels = proptest::collection::btree_map(".{0,4}", ".{0,4}", 0..3);
    (
        (".{0,12}", any::<bool>(), any::<i32>(), any::<i64>(), any::<u32>(), any::<u64>()),
        (texts, labels, proptest::sample::select(vec!["ACCESS_UNKNOWN", "GRANTED", "DENIED"])),
        (any::<i64>(), any::<i32>(), ".{0,5}"),
    )
        .prop_map(|((name, urgent, count, total, small, big), (tags, labels, access), (ttl, price, domain))| {
            json!({
                "name": name, "urgent": urgent, "count": count, "total": total.to_string(),
                "small": small, "big": big.to_string(), "tags": tags, "labels": labels,
                "access": access,
                "options": {"ttl": ttl.to_string(), "domain": domain},
                "items": [{"name": domain, "price": price}], "shelf": {"-1": {"name": name, "price": price}},
            })
        })
}

/// Whether everything in `sent` is in `back`.
fn contains(back: &Value, sent: &Value) -> bool {
    match (back, sent) {
        (Value::Object(back), Value::Object(sent)) => sent
            .iter()
            .all(|(key, value)| back.get(key).is_some_and(|back| contains(back, value))),
        (Value::Array(back), Value::Array(sent)) => {
            back.len() == sent.len() && back.iter().zip(sent).all(|(b, s)| contains(b, s))
        }
        _ => back == sent,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_bytes_make_the_reading_of_json_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        for method in methods() {
            let _ = method.message_from_json(&bytes);
            let _ = method.message_from_response_json(&bytes);
            let _ = method.json_from_message(&bytes);
            let _ = method.request_json_from_message(&bytes);
        }
    }

    #[test]
    fn no_json_makes_it_panic_and_what_is_read_can_be_written(value in json_value()) {
        let text = value.to_string();
        for method in methods() {
            if let Ok(message) = method.message_from_json(text.as_bytes()) {
                let _ = method.request_json_from_message(&message);
            }
        }
    }

    #[test]
    fn no_pairs_make_it_panic(pairs in proptest::collection::vec((name(), ".{0,12}|[0-9,]{0,6}|[a-z]=[0-9]|\\{\\}|\\[1,2\\]"), 0..6)) {
        for method in methods() {
            for json in [method.request_json_from_pairs(&pairs), method.request_json_from_query(&pairs)].into_iter().flatten() {
                let _ = method.message_from_json(json.to_string().as_bytes());
            }
        }
    }

    #[test]
    fn no_descriptors_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Schema::from_descriptor_set(&bytes);
    }

    #[test]
    fn damaged_descriptors_are_read_or_refused(at in any::<proptest::sample::Index>(), bit in 0u8..8) {
        let mut set = shop::set_once().to_vec();
        let at = at.index(set.len());
        set[at] ^= 1 << bit;
        if let Ok(schema) = Schema::from_descriptor_set(&set) {
            let _ = schema.endpoints();
            for method in schema.methods() {
                let _ = method.flags();
                let _ = method.message_from_json(b"{\"name\":1,\"options\":{\"ttl\":2}}");
                let _ = method.json_from_message(b"\x0a\x01a");
            }
        }
    }

    #[test]
    fn any_names_of_methods_are_looked_up(text in ".{0,30}") {
        let schema = shop::shop();
        let _ = schema.method(&text);
        let _ = schema.method_by_path(&text);
        let _ = schema.method_by_path(&format!("/{text}"));
    }

    #[test]
    fn any_value_tree_is_a_schema(kind in "\\PC{0,20}|\\[\\]string|map\\[string\\]int64|map\\[", name in ".{0,10}", json in json_value()) {
        let tree = Tree { name: name.clone(), r#type: kind.clone(), values: vec![Tree { name: "a".into(), r#type: kind, values: vec![] }] };
        let schema = Schema::from_endpoints(vec![Endpoint { name: "S.M".into(), request: Some(tree), response: None, metadata: HashMap::new() }]);
        for method in schema.methods() {
            let _ = method.flags();
            let _ = method.message_from_json(json.to_string().as_bytes());
            let _ = method.request_json_from_pairs(&[(name.clone(), "1".into()), ("a".into(), "x=1".into())]);
        }
    }

    #[test]
    fn an_order_comes_back_as_it_went(order in order()) {
        let method = shop::method("Shop.PlaceOrder");
        let message = method.message_from_json(order.to_string().as_bytes()).unwrap();
        let back: Value = serde_json::from_slice(&method.json_from_message(&message).unwrap()).unwrap();
        prop_assert!(contains(&back, &order), "{back} lacks {order}");
        let again = method.message_from_json(back.to_string().as_bytes()).unwrap();
        let twice: Value = serde_json::from_slice(&method.json_from_message(&again).unwrap()).unwrap();
        prop_assert_eq!(back, twice);
    }
}
