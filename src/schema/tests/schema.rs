//! A schema from descriptors: look-ups, value trees, JSON both ways, pairs and flags.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "protos/fixture.rs"]
mod shop;

use micro_core::Fault as _;
use micro_schema::{Codec, Error, Schema};
use serde_json::{Value, json};
use shop::{method, shop};

fn message(json: &Value) -> Result<bytes::Bytes, Error> {
    method("Shop.PlaceOrder").message_from_json(json.to_string().as_bytes())
}

fn round_trip(json: &Value) -> Value {
    let bytes = message(json).unwrap();
    let back = method("Shop.PlaceOrder").json_from_message(&bytes).unwrap();
    serde_json::from_slice(&back).unwrap()
}

#[test]
fn methods_are_found_by_endpoint_and_by_path() {
    let schema = shop();
    assert_eq!(
        schema.service_names().collect::<Vec<_>>(),
        ["shop.v1.Shop", "shop.v1.MyStock"]
    );
    let place = schema.method("Shop.PlaceOrder").unwrap();
    assert_eq!(place.path, "/shop.v1.Shop/PlaceOrder");
    assert_eq!(place.codec, Codec::Proto);
    assert_eq!(place.doc, "Puts an order\ninto the book.");
    for name in [
        "shop.placeorder",
        "Shop.Place-Order",
        "shop.v1.Shop.PlaceOrder",
    ] {
        assert_eq!(
            schema.method(name).unwrap().endpoint,
            "Shop.PlaceOrder",
            "{name}"
        );
    }
    assert_eq!(
        schema.method("My-Stock.get_it").unwrap().endpoint,
        "MyStock.GetIt"
    );
    for path in [
        "/shop.v1.Shop/Follow",
        "/shop.Shop/Follow",
        "/Shop/Follow",
        "/a.b.Shop/Follow",
    ] {
        assert!(
            schema.method_by_path(path).unwrap().server_streaming,
            "{path}"
        );
    }
    for path in [
        "",
        "/",
        "Shop/Follow",
        "/Shop",
        "/Shop/",
        "//Follow",
        "/Shop/Nothing",
        "/x.shop/Follow",
    ] {
        assert!(schema.method_by_path(path).is_none(), "{path}");
    }
    assert!(schema.method("Shop.Nothing").is_none());
}

#[test]
fn value_trees_have_the_names_of_gos_generated_code() {
    let schema = shop();
    let place = &schema.endpoints()[0];
    assert_eq!(place.name, "Shop.PlaceOrder");
    assert!(place.metadata.is_empty());
    let request = place.request.as_ref().unwrap();
    assert_eq!(
        (request.name.as_str(), request.r#type.as_str()),
        ("Order", "Order")
    );
    let type_of = |name: &str| {
        let value = request.values.iter().find(|v| v.name == name);
        value.map(|v| v.r#type.clone()).unwrap_or_default()
    };
    for (field, go) in [
        ("name", "string"),
        ("urgent", "bool"),
        ("count", "int32"),
        ("total", "int64"),
        ("small", "uint32"),
        ("big", "uint64"),
        ("rate", "float32"),
        ("share", "float64"),
        ("raw", "[]uint8"),
        ("access", "Access"),
        ("options", "Options"),
        ("tags", "[]string"),
        ("sizes", "[]int64"),
        ("items", "[]Item"),
        ("labels", "map[string]string"),
        ("shelf", "map[int32]Item"),
        ("grants", "[]Access"),
        ("blobs", "[][]uint8"),
        ("at", "Timestamp"),
        ("extra", "Struct"),
        ("limit", "Int64Value"),
        ("nick", "string"),
        ("card", "string"),
        ("cash", "Money"),
        ("delta", "int64"),
        ("mark", "uint64"),
        ("low", "int32"),
        ("user_id", "string"),
        ("kind", "Item_Kind"),
    ] {
        assert_eq!(type_of(field), go, "{field}");
    }
    let options = request.values.iter().find(|v| v.name == "options").unwrap();
    assert_eq!(options.values[2].r#type, "Options_Deep");
    assert_eq!(options.values[2].values[0].name, "user_name");
    let items = request.values.iter().find(|v| v.name == "items").unwrap();
    assert!(
        items.values.is_empty(),
        "the elements of a list are not described"
    );
}

#[test]
fn streaming_endpoints_say_so_and_have_their_request() {
    let schema = shop();
    for (name, streams) in [
        ("Shop.PlaceOrder", false),
        ("Shop.Follow", true),
        ("Shop.Upload", true),
        ("Shop.Chat", true),
    ] {
        let endpoint = schema.endpoints().iter().find(|e| e.name == name).unwrap();
        assert_eq!(
            endpoint.metadata.get("stream").is_some_and(|v| v == "true"),
            streams,
            "{name}"
        );
    }
    let follow = schema
        .endpoints()
        .iter()
        .find(|e| e.name == "Shop.Follow")
        .unwrap();
    assert_eq!(follow.request.as_ref().unwrap().values[0].name, "id");
}

#[test]
fn a_type_that_contains_itself_is_described_six_levels_deep() {
    let schema = shop();
    let endpoint = schema
        .endpoints()
        .iter()
        .find(|e| e.name == "MyStock.GetIt")
        .unwrap();
    let mut level = endpoint.response.as_ref().unwrap();
    let mut depth = 0;
    while let Some(next) = level.values.iter().find(|v| v.name == "left") {
        level = next;
        depth += 1;
    }
    assert_eq!(depth, 5);
}

#[test]
fn json_comes_back_as_micro_writes_it() {
    let sent = json!({
        "name": "ann", "urgent": true, "count": -3, "total": "9007199254740993", "small": 7,
        "big": "18446744073709551615", "rate": 0.5, "share": 0.25, "raw": "aGk=", "access": "GRANTED",
        "options": {"ttl": "5", "domain": "foo", "deep": {"user_name": "x"}},
        "tags": ["a", "b"], "sizes": ["1", "2"], "items": [{"name": "i", "price": 4}],
        "labels": {"k": "v"}, "shelf": {"3": {"name": "s", "price": 1}}, "grants": ["DENIED"],
        "blobs": ["AA=="], "at": "2026-01-31T12:00:00Z", "wait": "1.500s", "extra": {"a": [1.0, null, "x"]},
        "any_json": [true], "limit": "9", "note": "n", "nick": "", "cash": {"currency": "EUR", "units": "3"},
        "delta": "-4", "mark": "8", "low": -9, "user_id": "u", "kind": "BOOK"
    });
    assert_eq!(round_trip(&sent), sent);
}

#[test]
fn defaults_are_written_out() {
    let back = round_trip(&json!({}));
    for (field, value) in [
        ("name", json!("")),
        ("urgent", json!(false)),
        ("count", json!(0)),
        ("total", json!("0")),
        ("raw", json!("")),
        ("access", json!("ACCESS_UNKNOWN")),
        ("tags", json!([])),
        ("labels", json!({})),
        ("user_id", json!("")),
    ] {
        assert_eq!(back[field], value, "{field}");
    }
    assert!(
        back.get("card").is_none() && back.get("cash").is_none(),
        "no member of a oneof"
    );
}

#[test]
fn nothing_and_null_are_the_empty_message() {
    let place = method("Shop.PlaceOrder");
    for empty in ["", " ", "null", "\n null ", "{}"] {
        assert!(
            place
                .message_from_json(empty.as_bytes())
                .unwrap()
                .is_empty(),
            "{empty:?}"
        );
    }
}

#[test]
fn both_spellings_of_a_name_are_read() {
    assert_eq!(round_trip(&json!({"userId": "a"}))["user_id"], "a");
    assert_eq!(round_trip(&json!({"user_id": "a"}))["user_id"], "a");
    assert_eq!(round_trip(&json!({"user-id": "a"}))["user_id"], "a");
}

#[test]
fn what_is_plainly_meant_is_coerced() {
    for (sent, field, want) in [
        (json!({"name": 123}), "name", json!("123")),
        (json!({"name": true}), "name", json!("true")),
        (json!({"count": "12"}), "count", json!(12)),
        (json!({"count": " 0x10"}), "count", json!(16)),
        (json!({"count": 2.0, "name": 1}), "count", json!(2)),
        (json!({"total": "-5", "name": 1}), "total", json!("-5")),
        (json!({"share": "0.5"}), "share", json!(0.5)),
        (json!({"urgent": "true"}), "urgent", json!(true)),
        (json!({"urgent": 1}), "urgent", json!(true)),
        (json!({"access": "granted"}), "access", json!("GRANTED")),
        (json!({"access": "2"}), "access", json!("DENIED")),
        (json!({"access": 1}), "access", json!("GRANTED")),
        (json!({"tags": "one"}), "tags", json!(["one"])),
        (json!({"tags": [1, 2]}), "tags", json!(["1", "2"])),
        (json!({"labels": {"a": 1}}), "labels", json!({"a": "1"})),
        (
            json!({"items": [{"name": 5}]}),
            "items",
            json!([{"name": "5", "price": 0}]),
        ),
        (json!({"limit": 7}), "limit", json!("7")),
        (json!({"note": 7}), "note", json!("7")),
    ] {
        assert_eq!(round_trip(&sent)[field], want, "{sent}");
    }
}

#[test]
fn a_wrong_field_is_named_with_the_fields_there_are() {
    let error = message(&json!({"options": {"domian": "x"}})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Options has no field `options.domian`; it has ttl, domain, deep"
    );
    assert_eq!(error.hint().as_deref(), Some("did you mean `domain`?"));
    assert_eq!(error.kind(), micro_core::Kind::Invalid);
}

#[test]
fn a_wrong_value_is_named_with_what_is_wanted() {
    for (sent, parts) in [
        (
            json!({"count": "many"}),
            ["`count`", "whole number", "many"],
        ),
        (json!({"count": 1.5}), ["`count`", "whole number", "1.5"]),
        (
            json!({"count": 3_000_000_000u64}),
            ["`count`", "32 bits", "3000000000"],
        ),
        (json!({"big": -1}), ["`big`", "not negative", "-1"]),
        (
            json!({"access": "SOME"}),
            ["`access`", "GRANTED, DENIED", "SOME"],
        ),
        (json!({"raw": "%%"}), ["`raw`", "base64", "%%"]),
        (
            json!({"items": [{"price": "x"}]}),
            ["`items[0].price`", "whole number", "x"],
        ),
        (
            json!({"labels": {"k": {}}}),
            ["`labels[k]`", "a text", "an object"],
        ),
        (json!({"options": "x"}), ["`options`", "an object", "x"]),
        (
            json!({"urgent": "perhaps"}),
            ["`urgent`", "true or false", "perhaps"],
        ),
    ] {
        let text = message(&sent).unwrap_err().to_string();
        for part in parts {
            assert!(text.contains(part), "{sent}: {text} lacks {part}");
        }
    }
    let text = method("Shop.PlaceOrder")
        .message_from_json(b"{\"name\":")
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("shop.v1.Order") && text.contains("column"),
        "{text}"
    );
}

#[test]
fn a_message_that_does_not_fit_is_an_error() {
    let error = method("Shop.PlaceOrder")
        .json_from_message(b"\xff\xff")
        .unwrap_err();
    assert!(matches!(error, Error::Message { .. }), "{error}");
}

#[test]
fn the_inverse_pair_reads_what_the_first_pair_writes() {
    let follow = method("Shop.Follow");
    let request = follow.message_from_json(br#"{"id":"7"}"#).unwrap();
    assert_eq!(
        follow.request_json_from_message(&request).unwrap(),
        br#"{"id":"7"}"#
    );
    let response = follow
        .message_from_response_json(br#"{"name":"x"}"#)
        .unwrap();
    let json: Value =
        serde_json::from_slice(&follow.json_from_message(&response).unwrap()).unwrap();
    assert_eq!(json["name"], "x");
    let ping = method("Shop.Ping");
    let text = ping.message_from_response_json(br#""pong""#).unwrap();
    assert_eq!(ping.json_from_message(&text).unwrap(), br#""pong""#);
}

fn pairs(list: &[(&str, &str)]) -> Result<Value, Error> {
    let pairs: Vec<(String, String)> = list
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let json = method("Shop.PlaceOrder").request_json_from_pairs(&pairs)?;
    // Whatever comes out must be a request that the strict reading takes.
    message(&json)?;
    Ok(json)
}

#[test]
fn pairs_become_typed_json() {
    let json = pairs(&[
        ("name", "123"),
        ("urgent", ""),
        ("count", "-4"),
        ("total", "0x10"),
        ("share", "0.5"),
        ("access", "granted"),
        ("raw", "aGk="),
        ("at", "2026-01-31T12:00:00Z"),
        ("limit", "3"),
    ])
    .unwrap();
    assert_eq!(
        json,
        json!({"name": "123", "urgent": true, "count": -4, "total": 16, "share": 0.5,
               "access": "GRANTED", "raw": "aGk=", "at": "2026-01-31T12:00:00Z", "limit": 3})
    );
}

#[test]
fn nested_names_may_be_written_in_every_common_way() {
    for key in [
        "options.domain",
        "options[domain]",
        "options-domain",
        "options_domain",
        "Options-Domain",
    ] {
        assert_eq!(
            pairs(&[(key, "x")]).unwrap(),
            json!({"options": {"domain": "x"}}),
            "{key}"
        );
    }
    for key in [
        "options.deep.user_name",
        "options[deep][userName]",
        "options-deep-user_name",
        "options_deep_user_name",
        "options-deep-user-name",
    ] {
        assert_eq!(
            pairs(&[(key, "x")]).unwrap(),
            json!({"options": {"deep": {"user_name": "x"}}}),
            "{key}"
        );
    }
    for key in ["user_id", "user-id", "userId", "USER_ID"] {
        assert_eq!(
            pairs(&[(key, "x")]).unwrap(),
            json!({"user_id": "x"}),
            "{key}"
        );
    }
    assert_eq!(
        pairs(&[("options", r#"{"ttl":"5"}"#), ("options.domain", "x")]).unwrap(),
        json!({"options": {"ttl": 5, "domain": "x"}})
    );
}

#[test]
fn lists_are_given_by_repetition_brackets_commas_or_json() {
    for list in [
        &[("tags", "a"), ("tags", "b")][..],
        &[("tags[]", "a"), ("tags[]", "b")],
        &[("tags", "a,b")],
        &[("tags", r#"["a","b"]"#)],
        &[("tags[0]", "a"), ("tags[1]", "b")],
    ] {
        assert_eq!(
            pairs(list).unwrap(),
            json!({"tags": ["a", "b"]}),
            "{list:?}"
        );
    }
    assert_eq!(
        pairs(&[("tags[]", "a,b")]).unwrap(),
        json!({"tags": ["a,b"]})
    );
    assert_eq!(
        pairs(&[("sizes", "1,2")]).unwrap(),
        json!({"sizes": [1, 2]})
    );
    assert_eq!(
        pairs(&[("grants", "denied,1")]).unwrap(),
        json!({"grants": ["DENIED", 1]})
    );
    assert_eq!(
        pairs(&[
            ("items[0].name", "a"),
            ("items[0].price", "3"),
            ("items", r#"{"name":"b"}"#)
        ])
        .unwrap(),
        json!({"items": [{"name": "a", "price": 3}, {"name": "b"}]})
    );
    assert!(pairs(&[("tags[5]", "a")]).is_err(), "a list has no gaps");
}

#[test]
fn maps_are_given_by_key_by_entry_or_as_json() {
    for list in [
        &[("labels[a]", "1"), ("labels[b.c]", "2")][..],
        &[("labels", "a=1,b.c=2")],
        &[("labels", "a=1"), ("labels", "b.c=2")],
        &[("labels", r#"{"a":1,"b.c":"2"}"#)],
    ] {
        assert_eq!(
            pairs(list).unwrap(),
            json!({"labels": {"a": "1", "b.c": "2"}}),
            "{list:?}"
        );
    }
    assert_eq!(
        pairs(&[("shelf[3].price", "9")]).unwrap(),
        json!({"shelf": {"3": {"price": 9}}})
    );
}

#[test]
fn unknown_and_unreadable_pairs_are_refused_by_name() {
    let text = |list: &[(&str, &str)]| pairs(list).unwrap_err().to_string();
    assert!(text(&[("nmae", "x")]).starts_with("Order has no field `nmae`; it has name, urgent,"));
    assert!(text(&[("count", "x")]).contains("`count`"));
    assert!(text(&[("sizes", "1,x")]).contains("\"x\""));
    assert!(text(&[("options", "x")]).contains("an object"));
    assert!(text(&[("labels", "x")]).contains("`labels`"));
    assert!(text(&[("", "x")]).contains("no field"));
}

#[test]
fn flags_are_the_leaves_with_types_and_comments() {
    let flags = method("Shop.PlaceOrder").flags();
    let flag = |name: &str| flags.iter().find(|f| f.name == name).unwrap();
    assert_eq!(flags[0].name, "name");
    assert_eq!(flags[0].doc, "Who wants it.");
    assert_eq!(flag("options-deep-user_name").type_name, "string");
    assert!(flag("tags").repeated && flag("tags").type_name == "[]string");
    assert!(flag("labels").is_map && flag("labels").type_name == "map[string]string");
    assert_eq!(
        flag("access").enum_values,
        ["ACCESS_UNKNOWN", "GRANTED", "DENIED"]
    );
    assert_eq!(flag("at").type_name, "Timestamp");
    assert_eq!(flag("cash-units").type_name, "int64");
    assert!(flags.iter().all(|f| f.name != "options"));
    assert!(method("Shop.Ping").flags().is_empty());
}

#[test]
fn sets_may_lack_the_well_known_imports() {
    use prost::Message as _;
    let mut set = prost_types::FileDescriptorSet::decode(shop::set_once()).unwrap();
    set.file
        .retain(|f| !f.name().starts_with("google/protobuf/"));
    let schema = Schema::from_descriptor_set(&set.encode_to_vec()).unwrap();
    let again = Schema::from_descriptor_set(schema.descriptor_set().unwrap()).unwrap();
    assert_eq!(again.methods().len(), 6);
}

#[test]
fn bytes_that_are_no_descriptors_are_refused() {
    for bytes in [&b"\xff\xff\xff"[..], b"nonsense", &[10, 3, 10, 1, 255]] {
        let error = Schema::from_descriptor_set(bytes).unwrap_err();
        assert!(matches!(error, Error::Descriptors(_)), "{error}");
    }
    assert!(Schema::from_descriptor_set(b"").unwrap().is_empty());
}

#[test]
fn the_platforms_own_descriptors_are_a_schema() {
    let schema = Schema::from_descriptor_set(micro_proto::DESCRIPTOR_SET).unwrap();
    let get = schema
        .method_by_path("/registry.Registry/GetService")
        .unwrap();
    assert_eq!(get.endpoint, "Registry.GetService");
    assert!(schema.method("Registry.Watch").unwrap().client_streaming);
}
