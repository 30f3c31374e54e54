//! Store, blobs and config, as people type them.

use crate::{Bench, interrupt, lines};

pub(crate) fn store_speaks_as_micro(bench: &Bench) {
    bench.login();
    let (text, code) = bench.fails(&["store", "read", "somekey"]);
    assert!(
        text.starts_with("Not found\nhint: there is no record"),
        "{text}"
    );
    assert_eq!(code, 1);
    assert_eq!(bench.ok(&["store", "write", "somekey", "val1"]), "");
    assert_eq!(bench.ok(&["store", "read", "somekey"]), "val1\n");
    bench.ok(&["store", "write", "-e", "90s", "somekey2", "two", "words"]);
    assert_eq!(
        bench.ok(&["store", "read", "--prefix", "somekey"]),
        "val1\ntwo words\n"
    );
    assert_eq!(
        bench.ok(&["store", "read", "-v", "-prefix", "somekey"]),
        "KEY        VALUE       EXPIRY\nsomekey    val1        None\nsomekey2   two words   1 minute from now\n"
    );
    assert_eq!(
        bench.ok(&["store", "read", "--output", "json", "somekey"]),
        "[\n  {\n    \"key\": \"somekey\",\n    \"value\": \"dmFsMQ==\",\n    \"metadata\": {}\n  }\n]\n"
    );
    assert_eq!(bench.ok(&["store", "list"]), "somekey\nsomekey2\n");
    assert_eq!(
        bench.ok(&["store", "list", "--output", "json"]),
        "[\n  \"somekey\",\n  \"somekey2\"\n]\n"
    );
    bench.ok(&[
        "store", "list", "-l", "5", "-o", "2", "--order", "desc", "--prefix", "some",
    ]);
    bench.ok(&[
        "store", "read", "-p", "-t", "users", "-d", "blue", "-o", "3", "x",
    ]);
    {
        let seen = bench.seen.lock().unwrap();
        let list = seen.state.lists.last().unwrap();
        assert_eq!(
            (
                list.limit,
                list.offset,
                list.order.as_str(),
                list.prefix.as_str()
            ),
            (5, 2, "desc", "some")
        );
        assert_eq!(
            (list.database.as_str(), list.table.as_str()),
            ("micro", "micro")
        );
        let read = seen.state.reads.last().unwrap().options.clone().unwrap();
        assert_eq!(
            (read.database.as_str(), read.table.as_str(), read.offset),
            ("blue", "users", 3)
        );
    }
    let value = b"\xff\x00\n";
    let out = bench.micro(
        &["--namespace", "blue", "store", "write", "binary", "-"],
        value,
    );
    assert!(out.status.success(), "{out:?}");
    assert_eq!(
        bench
            .seen
            .lock()
            .unwrap()
            .state
            .places
            .last()
            .unwrap()
            .database,
        "blue"
    );
    let out = bench.micro(&["store", "read", "binary", "--output", "raw"], "");
    assert_eq!(out.stdout, value);
    assert_eq!(bench.ok(&["store", "delete", "somekey"]), "");
    assert_eq!(bench.ok(&["store", "databases"]), "blue\nmicro\n");
    assert_eq!(bench.ok(&["store", "tables", "-d", "x"]), "one of x\n");
    for (args, message) in [
        (&["store", "read"][..], "Key arg is required\nhint: "),
        (
            &["store", "write", "x"],
            "Key and Value args are required\nhint: ",
        ),
        (&["store", "delete"], "Key is required\nhint: "),
        (
            &["store", "write", "x", "y", "-e", "soon"],
            "Expiry flag is invalid: ",
        ),
        (
            &["store", "write", "full", "y"],
            "Cannot write: the disk is full\nhint: make room",
        ),
        (
            &["store", "list", "some"],
            "\"some\" may be the beginning or the end",
        ),
        (
            &["store", "sync"],
            "Unrecognized subcommand for micro store: sync. Please refer to 'micro store --help'",
        ),
    ] {
        let (text, code) = bench.fails(args);
        assert!(text.starts_with(message), "{args:?}: {text}");
        assert_eq!(code, 1, "{args:?}");
    }
    let (text, _) = bench.fails(&["store", "read", "x", "-o", "json"]);
    assert!(
        text.contains("-o is --offset here, as in Micro; write --output json"),
        "{text}"
    );
    let (text, _) = bench.fails(&["store", "read", "x", "--order", "up"]);
    assert!(text.contains("[possible values: asc, desc]"), "{text}");
}

pub(crate) fn records_are_watched(bench: &Bench) {
    bench.login();
    let mut child = bench.start(&bench.home, &["store", "watch", "--prefix", "x"]);
    assert_eq!(
        lines(&mut child, 4),
        [
            "written\tb\tvalue of b",
            "written\ta\tvalue of a",
            "written\tc\tvalue of c",
            "deleted\tb"
        ]
    );
    assert_eq!(
        interrupt(child),
        "lost the server (the server stops); waiting until it is back\nconnected again\n"
    );
    let seen = bench.seen.lock().unwrap();
    let asked: Vec<_> = seen.state.watches.iter().map(|w| w.changes_only).collect();
    assert_eq!(asked, [true, false]);
    assert_eq!(seen.state.watches[0].prefix, "x");
}

pub(crate) fn blobs_are_streamed(bench: &Bench) {
    bench.login();
    let content: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
    std::fs::write(bench.home.join("in"), &content).unwrap();
    let write = [
        "blob",
        "write",
        "logo",
        "in",
        "--public",
        "--content-type",
        "image/png",
    ];
    assert_eq!(bench.ok(&write), "");
    let out = bench.micro(&["blob", "write", "text", "-"], "from stdin");
    assert!(out.status.success(), "{out:?}");
    {
        let seen = bench.seen.lock().unwrap();
        let (options, blob) = &seen.state.blobs["logo"];
        assert_eq!(
            (
                options.public,
                options.content_type.as_str(),
                options.namespace.as_str()
            ),
            (true, "image/png", "micro")
        );
        assert!(*blob == content);
    }
    assert_eq!(bench.ok(&["blob", "read", "text"]), "from stdin");
    bench.ok(&["blob", "read", "logo", "out"]);
    assert!(std::fs::read(bench.home.join("out")).unwrap() == content);
    assert!(bench.micro(&["blob", "read", "logo", "-"], "").stdout == content);
    assert_eq!(bench.ok(&["blob", "list"]), "logo\ntext\n");
    assert_eq!(
        bench.ok(&["blob", "list", "--prefix", "l", "-v"]),
        "KEY  SIZE     TYPE      PUBLIC MODIFIED\nlogo 2.86 MiB image/png yes    2023-11-14T22:13:20Z\n"
    );
    bench.seen.lock().unwrap().state.blobs.insert(
        "torn".into(),
        (micro_proto::store::BlobOptions::default(), content),
    );
    // What was there stays when the new one does not come whole.
    std::fs::write(bench.home.join("old"), "old").unwrap();
    let (_, code) = bench.fails(&["blob", "read", "torn", "old"]);
    assert_ne!(code, 0);
    assert_eq!(std::fs::read(bench.home.join("old")).unwrap(), b"old");
    let left: Vec<_> = std::fs::read_dir(&bench.home)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_str().unwrap().contains(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    bench.ok(&["blob", "delete", "logo"]);
    for (args, message) in [
        (
            &["blob", "read", "logo"][..],
            "Blob not found\nhint: there is no blob \"logo\"",
        ),
        (
            &["blob", "write", "x", "nothing"],
            "cannot read nothing: no such file",
        ),
        (&["blob", "write", "x", "."], ". is a folder\nhint: "),
        (&["blob", "read", "text", "."], ". is a folder\nhint: "),
        (
            &["blob", "write", "toobig", "in"],
            "the blob is too large\n",
        ),
    ] {
        let (text, code) = bench.fails(args);
        assert!(text.starts_with(message), "{args:?}: {text}");
        assert_ne!(code, 0);
    }
}

pub(crate) fn config_speaks_as_micro(bench: &Bench) {
    bench.login();
    for (args, output) in [
        (&["config", "get", "text"][..], "line\\nbreak\n"),
        (&["config", "get", "--all"], "{\"a\":1,\"b\":\"x\"}\n"),
        (&["config", "get", "key"], "[secret]\n"),
        (&["config", "get", "-s", "key"], "s3cret\n"),
        (&["config", "set", "n", "42"], ""),
        (&["config", "set", "--secret", "t", "two words"], ""),
        (&["config", "del", "n"], ""),
    ] {
        assert_eq!(bench.ok(args), output, "{args:?}");
    }
    let out = bench.micro(&["config", "set", "pem", "-", "--text"], "12\n34\n");
    assert!(out.status.success(), "{out:?}");
    let sent: Vec<_> = bench
        .seen
        .lock()
        .unwrap()
        .state
        .settings
        .iter()
        .map(|set| {
            (
                set.path.clone(),
                set.value.clone().unwrap().data,
                set.options.unwrap().secret,
            )
        })
        .collect();
    assert_eq!(
        sent,
        [
            ("n".into(), "42".into(), false),
            ("t".into(), "\"two words\"".into(), true),
            ("pem".into(), "\"12\\n34\"".into(), false),
        ]
    );
    for path in ["gone", "empty.document"] {
        let (text, code) = bench.fails(&["config", "get", path]);
        assert!(text.starts_with("Not found\nhint: "), "{text}");
        assert_eq!(code, 1);
    }
    for (args, message) in [
        (&["config", "set", "x"][..], "Missing path or value\nhint: "),
        (&["config", "set", "x", ""], "Missing path or value\nhint: "),
        (
            &["config", "set", "--json", "x", "{a"],
            "the value is not JSON: ",
        ),
        (
            &["config", "gett"],
            "Unrecognized subcommand for micro config: gett. Please refer to 'micro config --help'\nhint: did you mean get?",
        ),
    ] {
        let (text, code) = bench.fails(args);
        assert!(text.starts_with(message), "{args:?}: {text}");
        assert_eq!(code, 1, "{args:?}");
    }
    for help in [
        &["config", "get"][..],
        &["config", "set"],
        &["config", "del"],
    ] {
        assert!(bench.ok(help).contains("Usage: micro config"), "{help:?}");
    }
}

pub(crate) fn config_has_a_history(bench: &Bench) {
    bench.login();
    assert_eq!(
        bench.ok(&["config", "history", "a"]),
        "VERSION AT                   BY    ACTION PATH BEFORE AFTER\n3       2023-11-14T22:13:20Z admin set    a    n/a    1\n"
    );
    let json = bench.ok(&["config", "history", "a", "-o", "json"]);
    assert!(json.contains("\"after\": 1"), "{json}");
    let out = bench.micro(&["config", "revert", "3"], "");
    assert_eq!(
        String::from_utf8(out.stderr).unwrap(),
        "everything is as it was after version 3; this is version 9\n"
    );
    assert_eq!(bench.seen.lock().unwrap().state.reverts, [3]);
    assert_eq!(
        bench.ok(&["config", "rotate", "-o", "json"]),
        "{\n\t\"secrets\": 2\n}\n"
    );
    // A server that refuses is not asked again.
    let out = bench.micro(&["config", "watch", "a"], "");
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "one\nnull\n");
    assert_eq!(String::from_utf8(out.stderr).unwrap(), "not any more\n");
    assert_eq!(out.status.code(), Some(127));
}
