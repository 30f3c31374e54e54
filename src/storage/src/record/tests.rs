//! Records written and read again; and records that somebody damaged.

use proptest::prelude::*;

use super::*;

fn ns(text: &str) -> Namespace {
    Namespace::parse(text).unwrap()
}

fn ops(payload: Bytes) -> Vec<Op> {
    let record = Record::parse(payload).unwrap();
    record.operations().map(Result::unwrap).collect()
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let mut writes = Writes::new(&ns("shop"));
    writes.put("t", b"k", b"v");
    writes.append("orders", b"first");
    writes.delete("t", b"gone");
    writes.append("bills", b"second");
    writes.remove_topic("old");
    writes.retain_topic("long", 9);
    writes.stamp(Revision(7), Timestamp(-5));
    let mut asked = Vec::new();
    let given = writes.number(|topic| {
        asked.push(topic.to_owned());
        40 + asked.len() as u64
    });
    assert_eq!(
        (asked, given),
        (vec!["orders".to_owned(), "bills".into()], vec![41, 42])
    );
    assert_eq!(writes.grows(), 2 + 5 + 6);
    let payload = writes.into_payload();
    let record = Record::parse(payload.clone()).unwrap();
    assert_eq!((record.revision, record.time), (Revision(7), Timestamp(-5)));
    assert_eq!(record.namespace, ns("shop"));
    assert_eq!(
        ops(payload),
        [
            Op::Put {
                key: b"\x01t\x04shopk".as_slice().into(),
                value: "v".into()
            },
            Op::Append {
                topic: "orders".into(),
                offset: 41,
                value: "first".into()
            },
            Op::Delete {
                key: b"\x01t\x04shopgone".as_slice().into()
            },
            Op::Append {
                topic: "bills".into(),
                offset: 42,
                value: "second".into()
            },
            Op::Remove {
                topic: "old".into()
            },
            Op::Retain {
                topic: "long".into(),
                first: 9
            },
        ]
    );
}

#[test]
fn what_is_too_large_is_refused_by_name() {
    for (what, mut writes) in [
        ("key", Writes::new(&ns("a"))),
        ("value", Writes::new(&ns("a"))),
    ] {
        match what {
            "key" => writes.put("t", &vec![0; MAX_KEY + 1], b""),
            _ => writes.append("t", &vec![0; MAX_VALUE + 1]),
        }
        writes.put("t", b"fine", b"");
        let text = writes.take_failure().unwrap().to_string();
        assert!(text.contains(what), "{text}");
    }
}

#[test]
fn an_unknown_format_is_told_apart_from_damage() {
    let text = Record::parse(Bytes::from_static(&[9, 0])).unwrap_err();
    assert!(text.contains("format 9"), "{text}");
}

proptest! {
    #[test]
    fn a_damaged_record_is_an_error_and_no_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        cut in 0..60usize,
    ) {
        let mut writes = Writes::new(&ns("a"));
        writes.put("table", b"key", b"value");
        writes.append("topic", b"entry");
        let whole = writes.into_payload();
        for payload in [Bytes::from(bytes), whole.slice(..cut.min(whole.len()))] {
            if let Ok(record) = Record::parse(payload) {
                let _ = record.operations().count();
            }
        }
    }

    #[test]
    fn full_keys_are_taken_apart_again_and_keep_namespaces_apart(
        a in "[a-z]{1,3}", b in "[a-z]{1,3}", key in prop::collection::vec(any::<u8>(), 0..4),
    ) {
        let full = full_key("table", &ns(&a), &key);
        let (table, namespace, rest) = split_key(&full).unwrap();
        prop_assert_eq!((table, namespace, rest), ("table", ns(&a), key.as_slice()));
        prop_assert_eq!(full.starts_with(&full_key("table", &ns(&b), b"")), a == b);
        prop_assert!(full.starts_with(&table_prefix("table")));
        prop_assert!(after(&full_key("table", &ns(&a), b"")).unwrap() > full);
    }
}
