//! Commands of services, on schemas as the registry hands them out.

use micro_proto::registry::{Endpoint, Value};

use super::*;

fn found(name: &str, endpoints: Vec<Endpoint>) -> Found {
    Found {
        name: name.into(),
        namespace: "micro".into(),
        schema: Schema::from_endpoints(endpoints),
        protocol: "grpc".into(),
    }
}

fn field(name: &str, kind: &str, values: Vec<Value>) -> Value {
    Value {
        name: name.into(),
        r#type: kind.into(),
        values,
    }
}

fn endpoint(name: &str, fields: Vec<Value>) -> Endpoint {
    Endpoint {
        name: name.into(),
        request: Some(field("Request", "Request", fields)),
        ..Endpoint::default()
    }
}

fn helloworld() -> Found {
    found(
        "helloworld",
        vec![
            endpoint(
                "Helloworld.Call",
                vec![
                    field("name", "string", vec![]),
                    field("count", "int64", vec![]),
                    field("loud", "bool", vec![]),
                    field("tags", "[]string", vec![]),
                    field(
                        "options",
                        "Options",
                        vec![field("domain", "string", vec![])],
                    ),
                ],
            ),
            endpoint("Helloworld.Stream", vec![]),
        ],
    )
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn words_find_their_method() {
    let service = helloworld();
    for said in [
        &[][..],
        &["call"],
        &["helloworld", "call"],
        &["Helloworld.Call"],
    ] {
        assert_eq!(
            method(&service, &words(said)).unwrap().endpoint,
            "Helloworld.Call"
        );
    }
    let error = method(&service, &words(&["foo"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Endpoint Helloworld.Foo not found for service helloworld"
    );
    assert_eq!(error.exit(), 128);
    assert!(method(&service, &words(&["a", "b", "c"])).is_err());
}

#[test]
fn a_type_with_another_name_is_found_by_its_method() {
    let service = found("hello-v2", vec![endpoint("Greeter.SayHello", vec![])]);
    assert_eq!(
        method(&service, &words(&["say-hello"])).unwrap().endpoint,
        "Greeter.SayHello"
    );
    assert_eq!(method(&service, &[]).unwrap().endpoint, "Greeter.SayHello");
    let hyphened = found(
        "my-svc",
        vec![endpoint("MySvc.GetIt", vec![]), endpoint("A.B", vec![])],
    );
    assert_eq!(
        method(&hyphened, &words(&["get-it"])).unwrap().endpoint,
        "MySvc.GetIt"
    );
}

#[test]
fn flags_become_typed_json() {
    let service = helloworld();
    let call = method(&service, &[]).unwrap();
    let body = request(
        &service,
        call,
        &pairs(&[
            ("name", "12"),
            ("count", "3"),
            ("loud", ""),
            ("tags", "a"),
            ("tags", "b"),
            ("options-domain", "x"),
        ]),
    )
    .unwrap();
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(value["name"], "12");
    assert_eq!(value["loud"], true);
    assert_eq!(value["tags"], serde_json::json!(["a", "b"]));
    assert_eq!(value["options"]["domain"], "x");
}

#[test]
fn a_wrong_flag_names_the_right_one() {
    let service = helloworld();
    let call = method(&service, &[]).unwrap();
    let error = request(&service, call, &pairs(&[("nmae", "x")])).unwrap_err();
    assert_eq!(error.to_string(), "Unknown flag: nmae");
    assert_eq!(error.hint().as_deref(), Some("did you mean --name?"));
    let error = request(&service, call, &pairs(&[("count", "many")])).unwrap_err();
    assert!(error.to_string().starts_with("--count must be "), "{error}");
}

#[test]
fn help_has_micros_layout() {
    let service = helloworld();
    assert_eq!(
        help::service(&service, "latest"),
        "NAME:\n\tmicro helloworld\n\nVERSION:\n\tlatest\n\nUSAGE:\n\tmicro helloworld [command]\n\nCOMMANDS:\n\tcall\n\tstream\n"
    );
    let plain = found(
        "helloworld",
        vec![endpoint(
            "Helloworld.Call",
            vec![field("name", "string", vec![])],
        )],
    );
    assert_eq!(
        help::method(&plain, method(&plain, &[]).unwrap()),
        "NAME:\n\tmicro helloworld call\n\nUSAGE:\n\tmicro helloworld call [flags]\n\nFLAGS:\n\t--name string\n"
    );
    let other = found("x", vec![endpoint("Greeter.Hello", vec![])]);
    assert!(help::service(&other, "v1").ends_with("COMMANDS:\n\tgreeter hello\n"));
}

#[test]
fn an_example_call_is_made_from_the_schema() {
    let (words, path) = example(&helloworld()).unwrap();
    assert_eq!(words, "helloworld call --name=Alice");
    assert_eq!(path, "/call?name=Alice");
}

#[test]
fn a_mistyped_command_is_told_without_a_server() {
    let down = || Error::Connect {
        address: "127.0.0.1:1".into(),
        reason: "connection refused".into(),
    };
    let error = explain(down(), "statuss");
    assert_eq!(error.exit(), 4);
    assert!(error.hint().unwrap().contains("`micro status`"));
    assert!(matches!(
        explain(down(), "helloworld"),
        Error::Connect { .. }
    ));
}
