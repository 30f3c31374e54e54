//! Compiling the `.proto` files of a release, however they are laid out.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, path::Path};

use micro_schema::{Error, Schema, protos};

const SERVICE: &str = "service Greeter { rpc Hello(Request) returns (Request); }\n";

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("syntax = \"proto3\";\n{text}")).unwrap();
}

fn compile(files: &[(&str, &str)]) -> Result<Option<Schema>, Error> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write(dir.path(), name, text);
    }
    let set = protos::compile_dir(dir.path())?;
    set.map(|set| Schema::from_descriptor_set(&set)).transpose()
}

fn assert_greets(files: &[(&str, &str)]) {
    let schema = compile(files).unwrap().unwrap();
    assert!(schema.method("Greeter.Hello").is_some(), "{files:?}");
}

#[test]
fn a_release_without_services_has_no_descriptors() {
    assert!(compile(&[]).unwrap().is_none());
    assert!(
        compile(&[("a.proto", "message Request {}")])
            .unwrap()
            .is_none()
    );
}

#[test]
fn imports_are_found_from_the_root_beside_and_in_include_folders() {
    let request = "package x; message Request { string name = 1; }";
    for (path, import) in [
        ("proto/common.proto", "proto/common.proto"),
        ("proto/common.proto", "common.proto"),
        ("third_party/x/common.proto", "x/common.proto"),
        ("api/x/v1/common.proto", "x/v1/common.proto"),
    ] {
        let service = format!("package x; import \"{import}\"; {SERVICE}");
        assert_greets(&[(path, request), ("proto/greeter.proto", &service)]);
    }
}

#[test]
fn the_nearest_of_two_files_is_imported() {
    let service = format!("package a; import \"common.proto\"; {SERVICE}");
    assert_greets(&[
        ("a/common.proto", "package a; message Request {}"),
        ("a/greeter.proto", &service),
        ("b/common.proto", "package b; message Other {}"),
    ]);
}

#[test]
fn well_known_imports_need_no_file() {
    let service = format!(
        "import \"google/protobuf/timestamp.proto\"; message Request {{ google.protobuf.Timestamp at = 1; }} {SERVICE}"
    );
    assert_greets(&[("greeter.proto", &service)]);
}

#[test]
fn what_is_broken_is_named_with_its_place() {
    let text = |files: &[(&str, &str)]| compile(files).unwrap_err().to_string();
    let error = text(&[("api/greeter.proto", "message Request { string name = ; }")]);
    assert!(error.contains("api/greeter.proto"), "{error}");
    let service = format!("import \"not/there.proto\"; message Request {{}} {SERVICE}");
    let error = text(&[("greeter.proto", &service)]);
    assert!(error.contains("not/there.proto"), "{error}");
    let error = text(&[(
        "greeter.proto",
        "service S { rpc M(Nothing) returns (Nothing); }",
    )]);
    assert!(error.contains("Nothing"), "{error}");
}

#[test]
fn other_peoples_files_and_unused_broken_imports_do_not_matter() {
    let good = format!("message Request {{}} {SERVICE}");
    assert_greets(&[
        ("greeter.proto", &good),
        ("node_modules/x/broken.proto", "message {"),
        (".cache/broken.proto", "message {"),
        (
            "unused.proto",
            "import \"not/there.proto\"; message Lonely {}",
        ),
    ]);
}
