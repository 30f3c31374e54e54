//! The tree against the plainest model there is: JSON values, changed by hand.

use proptest::{collection::vec, prelude::*};
use serde_json::{Map, json};

use super::*;
use crate::{path::Path, record};

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn node(value: &Value) -> Node {
    Node::of(value.clone())
}

/// What `set` means, on a plain value.
fn model_set(document: &mut Value, path: &[Box<str>], value: Value) {
    match path.split_first() {
        Some((name, below)) => {
            if !document.is_object() {
                *document = json!({});
            }
            let members = document.as_object_mut().unwrap();
            let member = members.entry(name.to_string()).or_insert(json!({}));
            model_set(member, below, value);
        }
        None => match (document, value) {
            (Value::Object(old), Value::Object(new)) => {
                for (name, value) in new {
                    let member = old.entry(name).or_insert(Value::Null);
                    model_set(member, &[], value);
                }
            }
            (document, value) => *document = value,
        },
    }
}

fn model_get<'a>(document: &'a Value, path: &[Box<str>]) -> Option<&'a Value> {
    path.iter()
        .try_fold(document, |value, name| value.as_object()?.get(&**name))
}

fn model_delete(document: &mut Value, path: &[Box<str>]) {
    let Some((last, above)) = path.split_last() else {
        return;
    };
    let found = above.iter().try_fold(document, |value, name| {
        value.as_object_mut()?.get_mut(&**name)
    });
    if let Some(Value::Object(members)) = found {
        members.remove(&**last);
    }
}

fn name() -> impl Strategy<Value = Box<str>> {
    prop_oneof![4 => "[abc]", 1 => "[<>&\"\\\\ é]{1,2}"].prop_map(Into::into)
}

fn places(most: usize) -> impl Strategy<Value = Vec<Box<str>>> {
    vec(name(), 1..=most)
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e6..1e6_f64).prop_map(Value::from),
        "[a-z<>&\"\\\\\n\u{e9}\u{1f600}]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            2 => vec((name(), inner.clone()), 0..4).prop_map(|members| {
                let members = members.into_iter().map(|(n, v)| (n.to_string(), v));
                Value::Object(members.collect::<Map<_, _>>())
            }),
            1 => vec(inner, 0..4).prop_map(Value::from),
        ]
    })
}

#[derive(Debug, Clone)]
enum Op {
    Set(Vec<Box<str>>, Value),
    Delete(Vec<Box<str>>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => (places(4), values()).prop_map(|(path, value)| Op::Set(path, value)),
        1 => places(4).prop_map(Op::Delete),
    ];
    vec(op, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_document_is_what_the_model_is_and_every_step_can_be_undone(
        ops in ops(),
        asked in vec(places(3), 4),
    ) {
        let (mut model, mut root) = (json!({}), Node::empty());
        let mut past: Vec<(Node, Vec<Edit>)> = Vec::new();
        for op in ops {
            let before = root.clone();
            match op {
                Op::Set(path, value) => {
                    root.merge(&path, node(&value));
                    model_set(&mut model, &path, value);
                }
                Op::Delete(path) => {
                    root.remove(&path);
                    model_delete(&mut model, &path);
                }
            }
            prop_assert_eq!(root.masked(), model.to_string());
            for path in &asked {
                let (ours, theirs) = (root.get(path), model_get(&model, path));
                prop_assert_eq!(ours.map(Node::masked), theirs.map(Value::to_string));
            }
            let stored = record::decode_document(&record::encode_document(&root)).unwrap();
            prop_assert_eq!(&stored, &root);
            let edits = difference(Some(&before), Some(&root));
            prop_assert_eq!(edits.is_empty(), before == root);
            past.push((before, edits));
        }
        let mut root = Some(root);
        while let Some((before, edits)) = past.pop() {
            undo(&mut root, &edits);
            prop_assert_eq!(root.as_ref(), Some(&before));
        }
    }

    #[test]
    fn what_was_set_is_read_again_where_it_was_set(path in places(4), value in values(), old in values()) {
        let mut root = Node::empty();
        root.merge(&path, node(&old));
        root.merge(&path, node(&value));
        if !(old.is_object() && value.is_object()) {
            prop_assert_eq!(root.get(&path).map(Node::masked), Some(value.to_string()));
        }
    }
}

/// Sets each pair and reads the document.
fn after(changes: &[(&str, &str)]) -> String {
    let mut root = Node::empty();
    for (at, value) in changes {
        let at = path(at);
        root.merge(at.segments(), Node::parse(value, &at).unwrap());
    }
    root.masked()
}

#[test]
fn objects_are_merged_and_everything_else_is_replaced() {
    for (changes, expected) in [
        (vec![("a", "1"), ("a", "false")], r#"{"a":false}"#),
        (
            vec![
                ("a", r#"{"x":1}"#),
                ("a", r#"{"y":{"z":2}}"#),
                ("a", r#"{"y":{"w":3}}"#),
            ],
            r#"{"a":{"x":1,"y":{"w":3,"z":2}}}"#,
        ),
        (vec![("a", "[1,2]"), ("a", "[3]")], r#"{"a":[3]}"#),
        // A scalar over a map, and back.
        (vec![("a.b.c", "1"), ("a.b", "2")], r#"{"a":{"b":2}}"#),
        (vec![("a.b", "2"), ("a.b.c", "1")], r#"{"a":{"b":{"c":1}}}"#),
        (vec![("a", "1"), ("a", r#"{"b":2}"#)], r#"{"a":{"b":2}}"#),
        (vec![("a.b", "1"), ("a", "{}")], r#"{"a":{"b":1}}"#),
        (vec![("a", "{}")], r#"{"a":{}}"#),
        (
            vec![("a", "1"), ("", r#"{"b":{"c":2}}"#)],
            r#"{"a":1,"b":{"c":2}}"#,
        ),
        // Arrays are leaves: what is in them is not looked into.
        (
            vec![("a", r#"[{"z":1,"b":[{"x":2},{"y":3}]},{"c":4}]"#)],
            r#"{"a":[{"b":[{"x":2},{"y":3}],"z":1},{"c":4}]}"#,
        ),
        (
            vec![("a", "\"<b>&'\u{2028}\"")],
            "{\"a\":\"<b>&'\u{2028}\"}",
        ),
        (vec![("", r#"{"x.y":{"z":1}}"#)], r#"{"x.y":{"z":1}}"#),
        (
            vec![("a", "[9007199254740993,18446744073709551615,1.5]")],
            r#"{"a":[9007199254740993,18446744073709551615,1.5]}"#,
        ),
    ] {
        assert_eq!(after(&changes), expected, "{changes:?}");
    }
}

#[test]
fn values_that_cannot_be_set_are_refused_with_the_reason() {
    let refused = |at: &str, value: &str| Node::parse(value, &path(at)).unwrap_err();
    for value in ["", "{", "hello", "1 2", "{\"a\":1,}", "NaN", "1e999"] {
        let text = refused("a", value).to_string();
        assert!(
            text.starts_with("Request is invalid JSON: "),
            "{value:?}: {text}"
        );
    }
    for value in ["1", "[]", "null", "\"x\""] {
        assert!(matches!(refused("", value), Error::NoObject), "{value}");
    }
    let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    assert!(Node::parse(&nested(31), &path("a")).is_ok());
    assert!(matches!(refused("a", &nested(32)), Error::TooDeep));
    assert!(matches!(refused("a", &nested(500_000)), Error::TooDeep));
    let deep = ["a"; 32].join(".");
    assert!(Node::parse("1", &path(&deep)).is_ok());
    assert!(matches!(refused(&deep, "{}"), Error::TooDeep));
}

#[test]
fn removing_leaves_what_is_around() {
    let mut root = node(&json!({"a": {"b": 1}, "c": 2}));
    root.remove(path("a.x.y").segments());
    root.remove(path("c.x").segments());
    root.remove(path("a.b").segments());
    assert_eq!(root.masked(), r#"{"a":{},"c":2}"#);
}

#[test]
fn a_difference_names_no_more_than_what_changed() {
    let old = node(&json!({"a": {"x": 1, "y": 2}, "b": [1], "c": {}}));
    let mut new = old.clone();
    new.merge(path("a.y").segments(), node(&json!(3)));
    new.merge(path("c.d.e").segments(), node(&json!(4)));
    let edits = difference(Some(&old), Some(&new));
    let places: Vec<String> = edits.iter().map(|edit| edit.path.join(".")).collect();
    assert_eq!(places, ["a.y", "c.d"]);
    assert!(edits[1].before.is_none());
    let mut back = Some(new);
    undo(&mut back, &edits);
    assert_eq!(back, Some(old.clone()));
    // The document itself comes and goes.
    let edits = difference(Some(&old), None);
    let mut back = None;
    undo(&mut back, &edits);
    assert_eq!(back, Some(old.clone()));
    undo(&mut back, &difference(None, Some(&old)));
    assert_eq!(back, None);
}
