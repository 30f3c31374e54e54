//! Events, as people type them.

use crate::{Bench, interrupt, lines};

pub(crate) fn events_are_published(bench: &Bench) {
    bench.login();
    let publish = [
        "events",
        "publish",
        "orders",
        "{\"id\":1}",
        "--metadata",
        "k=v",
    ];
    assert_eq!(bench.ok(&publish), "");
    let json = bench.ok(&["events", "publish", "orders", "-5", "-o", "json"]);
    assert_eq!(json, "{\n\t\"id\": \"id-1\",\n\t\"offset\": 1\n}\n");
    let out = bench.micro(&["events", "publish", "orders", "-"], b"\xff\n");
    assert!(out.status.success(), "{out:?}");
    {
        let mut seen = bench.seen.lock().unwrap();
        let sent = std::mem::take(&mut seen.state.published);
        assert_eq!(sent[0].payload, b"{\"id\":1}");
        assert_eq!(sent[0].metadata["k"], "v");
        assert_eq!(sent[0].namespace, "micro");
        assert_eq!(sent[1].payload, b"-5");
        assert_eq!(sent[2].payload, b"\xff\n");
    }
    let input: String = (0..2_000).map(|n| format!("line {n}\n\n")).collect();
    let out = bench.micro(&["events", "publish", "orders", "--batch-lines"], input);
    assert_eq!(
        String::from_utf8(out.stderr).unwrap(),
        "published 2000 events\n"
    );
    {
        let seen = bench.seen.lock().unwrap();
        assert_eq!(seen.state.batches.iter().sum::<usize>(), 2_000);
        assert!(seen.state.batches.iter().all(|count| *count <= 512));
        assert_eq!(seen.state.published[1999].payload, b"line 1999");
    }
    let out = bench.micro(&["events", "publish", "orders", "--batch-lines"], "bad\n");
    assert_eq!(
        String::from_utf8(out.stderr).unwrap(),
        "this one is bad\nhint: 0 events were published, the lines after them were not\n"
    );
    let (text, _) = bench.fails(&["events", "publish", "orders"]);
    assert!(
        text.starts_with("Topic and Payload args are required\nhint: "),
        "{text}"
    );
    let (text, _) = bench.fails(&["events", "publish", "orders", "x", "--metadata", "k"]);
    assert!(
        text.starts_with("\"k\" is not of the form key=value"),
        "{text}"
    );
}

pub(crate) fn consumers_outlive_the_server(bench: &Bench) {
    bench.login();
    let consume = [
        "events",
        "consume",
        "orders",
        "--group",
        "g",
        "--from",
        "beginning",
        "-n",
        "5",
    ];
    let out = bench.micro(&consume, "");
    assert!(out.status.success(), "{out:?}");
    assert_eq!(
        String::from_utf8(out.stdout).unwrap(),
        "event 0\nevent 1\nevent 2\nevent 3\nevent 4\n"
    );
    assert_eq!(
        String::from_utf8(out.stderr).unwrap(),
        "lost the server (the server stops); waiting until it is back\nconnected again\n"
    );
    {
        let mut seen = bench.seen.lock().unwrap();
        let asked = std::mem::take(&mut seen.state.consumers);
        // The group knows its place after a restart.
        assert_eq!(asked[0].from, Some(0));
        assert_eq!(asked[1].from, None);
        assert!(!asked[0].auto_ack);
        assert_eq!(
            (asked[0].ack_wait, asked[0].retry_limit),
            (30_000_000_000, -1)
        );
        let acks = std::mem::take(&mut seen.state.acks);
        let acks: Vec<_> = acks
            .iter()
            .map(|ack| (ack.id.as_str(), ack.success))
            .collect();
        let expected = ["id-0", "id-1", "id-2", "id-3", "id-4"].map(|id| (id, true));
        assert_eq!(acks, expected);
    }
    // Without a group it is us who know the place, and the end of the topic is where it begins.
    bench.seen.lock().unwrap().state.consumers =
        vec![micro_proto::events::ConsumeRequest::default()];
    let mut child = bench.start(
        &bench.home,
        &["events", "consume", "orders", "--from", "4", "-o", "json"],
    );
    let shown = lines(&mut child, 2);
    assert!(
        shown[1].ends_with("\"metadata\":{},\"payload\":\"event 5\"}"),
        "{shown:?}"
    );
    assert_eq!(interrupt(child), "");
    let child = bench.start(&bench.home, &["events", "consume", "orders"]);
    while bench.seen.lock().unwrap().state.consumers.len() < 3 {
        std::thread::yield_now();
    }
    interrupt(child);
    let (text, code) = bench.fails(&["events", "consume", "forbidden"]);
    assert_eq!((text.as_str(), code), ("access denied to namespace\n", 127));
    let seen = bench.seen.lock().unwrap();
    let from: Vec<_> = seen
        .state
        .consumers
        .iter()
        .skip(1)
        .map(|c| c.from)
        .collect();
    assert_eq!(from, [Some(4), Some(6)]);
    assert!(seen.state.acks.is_empty());
}

pub(crate) fn topics_and_groups_are_shown(bench: &Bench) {
    bench.login();
    assert_eq!(
        bench.ok(&["events", "topics"]),
        "TOPIC  FIRST NEXT EVENTS SIZE     KEPT\norders 2     6    4      2.00 KiB 1d\n"
    );
    let names = |text: String| -> Vec<String> {
        let rows = text.lines().skip(1);
        rows.map(|row| row.split_whitespace().nth(1).unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(bench.ok(&["events", "groups"])), ["a", "b"]);
    assert_eq!(names(bench.ok(&["events", "lag", "orders"])), ["b", "a"]);
    assert_eq!(bench.ok(&["events", "retention", "orders"]), "1d\n");
    assert_eq!(
        bench.ok(&["events", "retention", "orders", "--size", "1GB"]),
        ""
    );
    let retention = bench.seen.lock().unwrap().state.retention.unwrap();
    assert_eq!((retention.age, retention.bytes), (86_400, 1 << 30));
    let (text, code) = bench.fails(&["events", "retention", "gone", "--age", "7d"]);
    assert!(
        text.starts_with("there is no topic gone in namespace micro\nhint: "),
        "{text}"
    );
    assert_eq!(code, 1);
    assert_eq!(
        bench.ok(&["events", "read", "orders", "--limit", "3", "--offset", "1"]),
        "event 1\nevent 2\nevent 3\n"
    );
    bench.ok(&["events", "delete", "orders", "--group", "g"]);
    bench.ok(&["events", "delete", "orders"]);
    assert_eq!(
        bench
            .fails(&["events", "delete", "orders", "--group", ""])
            .1,
        1
    );
    assert_eq!(
        bench.seen.lock().unwrap().state.deleted,
        [
            ("orders".into(), "g".into()),
            ("orders".into(), String::new())
        ]
    );
}
