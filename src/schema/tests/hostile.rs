//! Descriptors and messages that are made to do harm.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;

use micro_schema::{Error, Method, Schema, protos};
use prost::Message as _;
use prost_types::{Any, FileDescriptorSet};

fn compile(text: &str) -> FileDescriptorSet {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("a.proto"),
        format!("syntax = \"proto3\";\n{text}"),
    )
    .unwrap();
    let set = protos::compile_dir(dir.path()).unwrap().unwrap();
    FileDescriptorSet::decode(set.as_slice()).unwrap()
}

fn read(set: &FileDescriptorSet) -> Result<Schema, Error> {
    Schema::from_descriptor_set(&set.encode_to_vec())
}

fn method(set: &FileDescriptorSet) -> Method {
    read(set).unwrap().methods().first().unwrap().clone()
}

const SERVICE: &str = "service S { rpc M(R) returns (R); }\n";

#[test]
fn entries_of_maps_that_are_none_are_refused() {
    let good = compile(&format!(
        "message R {{ map<string, string> m = 1; }} {SERVICE}"
    ));
    assert!(read(&good).is_ok());
    let damage: [fn(&mut prost_types::DescriptorProto); 4] = [
        |entry| entry.field.truncate(1),
        |entry| entry.field.clear(),
        |entry| entry.field[0].set_type(prost_types::field_descriptor_proto::Type::Double),
        |entry| entry.field[1].set_label(prost_types::field_descriptor_proto::Label::Repeated),
    ];
    for change in damage {
        let mut set = good.clone();
        let message = &mut set.file.last_mut().unwrap().message_type[0];
        change(&mut message.nested_type[0]);
        let error = read(&set).unwrap_err();
        assert!(matches!(error, Error::Descriptors(_)), "{error}");
    }
}

#[test]
fn well_known_types_of_another_shape_are_refused() {
    let set = compile(&format!(
        "import \"google/protobuf/timestamp.proto\"; message R {{ google.protobuf.Timestamp at = 1; }} {SERVICE}"
    ));
    let mut other = set.clone();
    for file in &mut other.file {
        if file.name() == "google/protobuf/timestamp.proto" {
            let seconds = &mut file.message_type[0].field[0];
            seconds.set_type(prost_types::field_descriptor_proto::Type::String);
        }
    }
    assert_ne!(set, other);
    assert!(read(&set).is_ok());
    assert!(
        read(&other)
            .unwrap_err()
            .to_string()
            .contains("google.protobuf.Timestamp")
    );
}

#[test]
fn any_in_any_does_not_use_up_the_stack() {
    let set = compile(&format!(
        "import \"google/protobuf/any.proto\"; message R {{ google.protobuf.Any a = 1; string s = 2; }} {SERVICE}"
    ));
    let method = method(&set);
    let nested = |depth: usize| {
        let mut any = Any {
            type_url: "x/R".into(),
            value: b"\x12\x01x".to_vec(),
        };
        for _ in 0..depth {
            any = Any {
                type_url: "x/google.protobuf.Any".into(),
                value: any.encode_to_vec(),
            };
        }
        let mut message = vec![0x0a];
        prost::encoding::encode_varint(any.encoded_len() as u64, &mut message);
        any.encode(&mut message).unwrap();
        message
    };
    let json = method.json_from_message(&nested(2)).unwrap();
    assert!(
        String::from_utf8(json.clone())
            .unwrap()
            .contains("\"s\":\"x\"")
    );
    assert!(!method.message_from_json(&json).unwrap().is_empty());
    let error = method.json_from_message(&nested(3_000)).unwrap_err();
    assert!(error.to_string().contains("Any in Any"), "{error}");
}

#[test]
fn json_nested_without_end_is_refused() {
    let set = compile(&format!(
        "import \"google/protobuf/struct.proto\"; message R {{ R r = 1; google.protobuf.Value v = 2; }} {SERVICE}"
    ));
    let method = method(&set);
    for (open, close) in [("{\"r\":", "}"), ("{\"v\":", "}")] {
        let deep = format!("{}{{}}{}", open.repeat(50_000), close.repeat(50_000));
        assert!(method.message_from_json(deep.as_bytes()).is_err());
    }
    let deep = format!("{{\"v\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    assert!(method.message_from_json(deep.as_bytes()).is_err());
}

#[test]
fn defaults_of_millions_of_empty_messages_do_not_use_up_the_memory() {
    let fields: String = (1..=500)
        .map(|i| format!("string a_field_with_a_name_{i} = {i};"))
        .collect();
    let set = compile(&format!(
        "message Wide {{ {fields} }} message R {{ repeated Wide w = 1; }} {SERVICE}"
    ));
    let message = b"\x0a\x00".repeat(100_000);
    let error = method(&set).json_from_message(&message).unwrap_err();
    assert!(error.to_string().contains("bytes"), "{error}");
}

#[test]
fn types_that_contain_each_other_are_described_within_bounds() {
    let fields: String = (1..=200).map(|i| format!("R f{i} = {i};")).collect();
    let set = compile(&format!("message R {{ {fields} }} {SERVICE}"));
    let schema = read(&set).unwrap();
    assert!(schema.endpoints()[0].encoded_len() < 4 * 1024 * 1024);
    assert!(schema.methods()[0].flags().len() <= 2_000);
    let long = "f1_".repeat(150);
    let pairs = [(long, "x".to_owned())];
    assert!(schema.methods()[0].request_json_from_pairs(&pairs).is_err());
}
