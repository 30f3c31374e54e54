//! What streams promise, asked in process.

use std::time::Duration;

use micro_core::{Fault as _, Kind, Timestamp};
use micro_events::{Answers, Consume, Error, Retention, Start};

use crate::node::{Node, ask, event, ns, payload, silent};

fn within(ms: u64) -> Answers {
    Answers::Within(Duration::from_millis(ms))
}

#[tokio::test]
async fn published_events_have_offsets_and_are_read_in_order() {
    let node = Node::start();
    for n in 0..5 {
        assert_eq!(node.publish("foo", "orders", &n.to_string()).await, n);
    }
    let all = node.handle.read(&ns("foo"), "orders", 0, 0).await.unwrap();
    let payloads: Vec<String> = all.iter().map(payload).collect();
    assert_eq!(payloads, ["0", "1", "2", "3", "4"]);
    assert_eq!(all[3].offset, 3);
    assert_eq!(all[3].timestamp, 1_700_000_000);
    assert_eq!(all[3].metadata["key"], "value");
    let some = node.handle.read(&ns("foo"), "orders", 1, 2).await.unwrap();
    assert_eq!(some.iter().map(payload).collect::<Vec<_>>(), ["1", "2"]);
    let none = node.handle.read(&ns("foo"), "nothing", 0, 0).await.unwrap();
    assert!(none.is_empty());
}

#[tokio::test]
async fn a_batch_is_published_whole_or_not_at_all() {
    let node = Node::start();
    let events = vec![event("a", "1"), event("b", "2"), event("a", "3")];
    let published = node.handle.publish(&ns("foo"), events).await.unwrap();
    let offsets: Vec<u64> = published.iter().map(|p| p.offset).collect();
    assert_eq!(offsets, [0, 0, 1]);
    let events = vec![event("a", "4"), event("", "5")];
    let error = node.handle.publish(&ns("foo"), events).await.unwrap_err();
    assert_eq!(error.to_string(), "Missing topic");
    let kept = node.handle.read(&ns("foo"), "a", 0, 0).await.unwrap();
    assert_eq!(kept.len(), 2);
}

#[tokio::test]
async fn many_publishers_make_one_topic() {
    let node = Node::start();
    let publish = |n: usize| {
        let handle = node.handle.clone();
        async move {
            let events = vec![event(["new", "newer"][n % 2], &n.to_string())];
            handle.publish(&ns("foo"), events).await.unwrap()
        }
    };
    futures_util::future::join_all((0..64).map(publish)).await;
    let topics = node.handle.topics(&ns("foo")).unwrap();
    let names: Vec<(&str, u64)> = topics
        .iter()
        .map(|topic| (topic.name.as_str(), topic.bounds.next))
        .collect();
    assert_eq!(names, [("new", 32), ("newer", 32)]);
}

#[tokio::test]
async fn consumers_without_a_group_get_every_event() {
    let node = Node::start();
    node.publish("foo", "orders", "before").await;
    let mut first = node.consume("foo", ask("orders", "")).await;
    let mut second = node.consume("foo", ask("orders", "")).await;
    node.publish("foo", "orders", "after").await;
    assert_eq!(first.done().await, "after");
    assert_eq!(second.done().await, "after");
    assert!(node.handle.groups(&ns("foo"), None).unwrap().is_empty());
}

#[tokio::test]
async fn each_event_goes_to_one_member_of_a_group() {
    let node = Node::start();
    let mut first = node.consume("foo", ask("orders", "g")).await;
    let mut second = node.consume("foo", ask("orders", "g")).await;
    for n in 0..10 {
        node.publish("foo", "orders", &n.to_string()).await;
    }
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(first.done().await);
        all.push(second.done().await);
    }
    all.sort();
    assert_eq!(all.len(), 10);
    all.dedup();
    assert_eq!(all.len(), 10);
    first.nothing().await;
    let group = node.group("foo", |group| group.position == 10).await;
    assert_eq!((group.lag, group.consumers), (0, 2));
}

#[tokio::test]
async fn a_group_keeps_its_place_while_its_consumers_are_away() {
    let node = Node::start();
    let mut consumer = node.consume("foo", ask("orders", "g")).await;
    node.publish("foo", "orders", "1").await;
    assert_eq!(consumer.done().await, "1");
    node.group("foo", |group| group.position == 1).await;
    drop(consumer);
    node.group("foo", |group| group.consumers == 0).await;
    node.publish("foo", "orders", "2").await;
    let mut consumer = node.consume("foo", ask("orders", "g")).await;
    assert_eq!(consumer.done().await, "2");
}

#[tokio::test]
async fn a_group_keeps_its_place_over_a_restart() {
    let node = Node::start();
    let mut consumer = node.consume("foo", ask("orders", "g")).await;
    for n in 0..6 {
        node.publish("foo", "orders", &n.to_string()).await;
    }
    let events = {
        let mut events = Vec::new();
        for _ in 0..6 {
            events.push(consumer.next().await);
        }
        events
    };
    for at in [0, 1, 3] {
        consumer.answer(&events[at], true);
    }
    node.group("foo", |group| group.lag == 3).await;
    let node = node.restart().await;
    assert!(matches!(consumer.end().await, Error::Stopping));
    let group = node.group("foo", |_| true).await;
    assert_eq!((group.position, group.lag, group.consumers), (2, 3, 0));
    node.publish("foo", "orders", "6").await;
    let mut consumer = node.consume("foo", ask("orders", "g")).await;
    let mut again = Vec::new();
    for _ in 0..4 {
        let event = consumer.next().await;
        again.push((payload(&event), event.delivery));
    }
    let expected = [("2", 2), ("4", 2), ("5", 2), ("6", 1)];
    assert_eq!(again, expected.map(|(p, d)| (p.to_owned(), d)));
}

#[tokio::test]
async fn a_new_group_begins_where_it_is_told() {
    let node = Node::start();
    for n in 0..5 {
        node.publish("foo", "orders", &n.to_string()).await;
        node.clock.advance(Duration::from_secs(10));
    }
    for (start, first) in [
        (Start::From(2), "2"),
        (Start::From(0), "0"),
        (Start::At(Timestamp(1_700_000_025_000)), "3"),
        (Start::At(Timestamp(1)), "0"),
    ] {
        for group in ["", &format!("{start:?}")] {
            let consume = Consume {
                start,
                ..ask("orders", group)
            };
            let mut consumer = node.consume("foo", consume).await;
            assert_eq!(consumer.payload().await, first, "{start:?} {group}");
        }
    }
    let consume = Consume {
        start: Start::From(99),
        ..ask("orders", "")
    };
    let mut consumer = node.consume("foo", consume).await;
    consumer.nothing().await;
    node.publish("foo", "orders", "5").await;
    assert_eq!(consumer.payload().await, "5");
}

#[tokio::test]
async fn silence_and_no_bring_an_event_back() {
    let node = Node::start();
    let consume = Consume {
        answers: within(100),
        ..ask("orders", "g")
    };
    let mut consumer = node.consume("foo", consume).await;
    node.publish("foo", "orders", "1").await;
    let first = consumer.next().await;
    let second = consumer.next().await;
    assert_eq!((first.delivery, second.delivery), (1, 2));
    assert_eq!(first.id, second.id);
    consumer.answer(&second, false);
    let third = consumer.next().await;
    assert_eq!(third.delivery, 3);
    consumer.answer(&third, true);
    node.group("foo", |group| group.position == 1).await;
    consumer.nothing().await;
}

#[tokio::test]
async fn an_event_that_nobody_can_handle_goes_to_the_dead() {
    let node = Node::start();
    let consume = Consume {
        retries: Some(1),
        ..ask("orders", "g")
    };
    let mut consumer = node.consume("foo", consume).await;
    node.publish("foo", "orders", "bad").await;
    node.publish("foo", "orders", "good").await;
    let mut deliveries = Vec::new();
    let id = loop {
        let event = consumer.next().await;
        deliveries.push(payload(&event));
        consumer.answer(&event, payload(&event) == "good");
        if event.delivery == 2 {
            break event.id;
        }
    };
    assert_eq!(deliveries, ["bad", "good", "bad"]);
    let group = node.group("foo", |group| group.position == 2).await;
    assert_eq!((group.dead, group.lag), (1, 0));
    let dead = node
        .handle
        .read(&ns("foo"), "orders.dead", 0, 0)
        .await
        .unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(payload(&dead[0]), "bad");
    assert_ne!(dead[0].id, id);
    for (key, value) in [
        ("key", "value"),
        ("dead-topic", "orders"),
        ("dead-group", "g"),
        ("dead-id", &id),
        ("dead-offset", "0"),
        ("dead-deliveries", "2"),
    ] {
        assert_eq!(dead[0].metadata[key], value, "{key}");
    }
    // From there it goes no further.
    let consume = Consume {
        retries: Some(0),
        start: Start::From(0),
        ..ask("orders.dead", "g")
    };
    let mut mourner = node.consume("foo", consume).await;
    for delivery in 1..=2 {
        let event = mourner.next().await;
        assert_eq!(event.delivery, delivery);
        mourner.answer(&event, false);
    }
    let topics = node.handle.topics(&ns("foo")).unwrap();
    assert_eq!(topics.len(), 2, "{topics:?}");
}

#[tokio::test]
async fn who_leaves_leaves_its_events_to_the_others_at_once() {
    let node = Node::start();
    let mut first = node.consume("foo", ask("orders", "g")).await;
    for n in 0..4 {
        node.publish("foo", "orders", &n.to_string()).await;
    }
    assert_eq!(first.payload().await, "0");
    assert_eq!(first.payload().await, "1");
    node.group("foo", |group| group.in_flight == 4).await;
    let mut second = node.consume("foo", ask("orders", "g")).await;
    second.nothing().await;
    drop(first);
    let mut all = Vec::new();
    for _ in 0..4 {
        let event = second.next().await;
        second.answer(&event, true);
        all.push((payload(&event), event.delivery));
    }
    let expected = [("0", 2), ("1", 2), ("2", 1), ("3", 1)];
    assert_eq!(all, expected.map(|(p, d)| (p.to_owned(), d)));
}

#[tokio::test]
async fn a_consumer_holds_no_more_than_it_may() {
    let node = Node::start();
    let consume = Consume {
        in_flight: 3,
        ..ask("orders", "g")
    };
    let mut consumer = node.consume("foo", consume).await;
    for n in 0..10 {
        node.publish("foo", "orders", &n.to_string()).await;
    }
    node.group("foo", |group| group.in_flight == 3).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(consumer.next().await);
    }
    consumer.nothing().await;
    consumer.answer(&seen[1], true);
    assert_eq!(consumer.payload().await, "3");
    consumer.nothing().await;
}

#[tokio::test]
async fn large_events_wait_on_disk_for_a_slow_consumer() {
    let node = Node::start();
    let mut slow = node.consume("foo", ask("orders", "g")).await;
    let large = "x".repeat(400 << 10);
    for _ in 0..10 {
        node.publish("foo", "orders", &large).await;
    }
    let group = node.group("foo", |group| group.in_flight > 0).await;
    assert!(group.in_flight <= 4, "{group:?}");
    for _ in 0..10 {
        assert_eq!(slow.done().await.len(), large.len());
    }
    node.group("foo", |group| group.position == 10).await;
}

#[tokio::test]
async fn without_answers_events_are_done_when_they_are_sent() {
    let node = Node::start();
    let consume = Consume {
        answers: Answers::No,
        ..ask("orders", "g")
    };
    let mut consumer = node.consume("foo", consume.clone()).await;
    for n in 0..4 {
        node.publish("foo", "orders", &n.to_string()).await;
    }
    assert_eq!(consumer.payload().await, "0");
    assert_eq!(consumer.payload().await, "1");
    node.group("foo", |group| group.position == 2).await;
    drop(consumer);
    // What was not sent is not lost.
    let mut consumer = node.consume("foo", consume).await;
    assert_eq!(consumer.payload().await, "2");
    assert_eq!(consumer.payload().await, "3");
}

#[tokio::test]
async fn a_stuck_consumer_does_not_keep_events_from_others() {
    let node = Node::start();
    let consume = Consume {
        answers: within(100),
        retries: Some(0),
        ..ask("orders", "g")
    };
    // It never asks for anything.
    let stuck = node.consume("foo", consume.clone()).await;
    node.publish("foo", "orders", "1").await;
    node.group("foo", |group| group.in_flight == 1).await;
    let mut other = node.consume("foo", consume).await;
    let event = other.next().await;
    assert_eq!(event.delivery, 1, "the first consumer has not seen it");
    other.answer(&event, true);
    node.group("foo", |group| group.position == 1).await;
    drop(stuck);
}

#[tokio::test]
async fn a_late_consumer_catches_up_in_order() {
    let node = Node::start();
    for page in 0..20 {
        let events = (0..500).map(|n| event("orders", &format!("{}", page * 500 + n)));
        let events = events.collect();
        node.handle.publish(&ns("foo"), events).await.unwrap();
    }
    node.storage.checkpoint().await.unwrap();
    let consume = Consume {
        start: Start::From(0),
        ..ask("orders", "g")
    };
    let mut consumer = node.consume("foo", consume).await;
    for n in 0..10_000 {
        assert_eq!(consumer.done().await, n.to_string());
    }
    let group = node.group("foo", |group| group.position == 10_000).await;
    assert_eq!(group.lag, 0);
}

#[tokio::test]
async fn namespaces_share_nothing() {
    let node = Node::start();
    let mut foo = node.consume("foo", ask("orders", "g")).await;
    let mut bar = node.consume("bar", ask("orders", "g")).await;
    node.publish("foo", "orders", "secret").await;
    assert_eq!(foo.done().await, "secret");
    bar.nothing().await;
    assert!(
        node.handle
            .read(&ns("bar"), "orders", 0, 0)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(node.handle.topics(&ns("bar")).unwrap().is_empty());
    let groups = node.handle.groups(&ns("bar"), None).unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!((groups[0].position, groups[0].lag), (0, 0));
    let error = node
        .handle
        .delete_topic(&ns("bar"), "orders")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(node.handle.topics(&ns("foo")).unwrap().len(), 1);
}

#[tokio::test]
async fn removing_a_topic_ends_its_consumers() {
    let node = Node::start();
    node.publish("foo", "orders", "1").await;
    node.publish("foo", "others", "1").await;
    let mut named = node.consume("foo", ask("orders", "g")).await;
    let mut private = node.consume("foo", ask("orders", "")).await;
    let mut others = node.consume("foo", ask("others", "g")).await;
    node.handle
        .delete_topic(&ns("foo"), "orders")
        .await
        .unwrap();
    for consumer in [&mut named, &mut private] {
        let error = consumer.end().await;
        assert_eq!(error.to_string(), "the topic orders was removed");
        assert_eq!(error.kind(), Kind::NotFound);
    }
    assert_eq!(node.handle.topics(&ns("foo")).unwrap().len(), 1);
    assert_eq!(node.handle.groups(&ns("foo"), Some("orders")).unwrap(), []);
    // It begins anew.
    assert_eq!(node.publish("foo", "orders", "2").await, 0);
    let all = node.handle.read(&ns("foo"), "orders", 0, 0).await.unwrap();
    assert_eq!(all.iter().map(payload).collect::<Vec<_>>(), ["2"]);
    node.publish("foo", "others", "2").await;
    assert_eq!(others.done().await, "2");
}

#[tokio::test]
async fn removing_a_group_ends_its_consumers() {
    let node = Node::start();
    node.publish("foo", "orders", "1").await;
    let mut consumer = node.consume("foo", ask("orders", "g")).await;
    let gone = node
        .handle
        .delete_group(&ns("foo"), "orders", "other")
        .await;
    assert_eq!(gone.unwrap_err().kind(), Kind::NotFound);
    node.handle
        .delete_group(&ns("foo"), "orders", "g")
        .await
        .unwrap();
    let error = consumer.end().await;
    assert_eq!(error.to_string(), "the group g of topic orders was removed");
    assert!(node.handle.groups(&ns("foo"), None).unwrap().is_empty());
    let consume = Consume {
        start: Start::From(0),
        ..ask("orders", "g")
    };
    let mut consumer = node.consume("foo", consume).await;
    assert_eq!(consumer.payload().await, "1");
}

#[tokio::test]
async fn retention_is_per_topic_and_applied() {
    let node = Node::start();
    let missing = node.handle.set_retention(&ns("foo"), "orders", None).await;
    assert_eq!(missing.unwrap_err().kind(), Kind::NotFound);
    node.publish("foo", "orders", "1").await;
    let topic = || node.handle.topics(&ns("foo")).unwrap().remove(0);
    assert_eq!(topic().retention, Retention::default());
    let hour = Retention {
        age: Some(Duration::from_secs(3600)),
        bytes: None,
    };
    node.handle
        .set_retention(&ns("foo"), "orders", Some(hour))
        .await
        .unwrap();
    assert_eq!(topic().retention, hour);
    node.handle.sweep().await.unwrap();
    assert_eq!(topic().bounds.next, 1);
    node.handle
        .set_retention(&ns("foo"), "orders", None)
        .await
        .unwrap();
    assert_eq!(topic().retention, Retention::default());
}

#[tokio::test]
async fn a_group_below_what_is_kept_goes_on_with_the_oldest() {
    let node = Node::start();
    let consumer = node.consume("foo", ask("orders", "g")).await;
    drop(consumer);
    let large = "x".repeat(1 << 20);
    for _ in 0..40 {
        node.publish("foo", "orders", &large).await;
        node.clock.advance(Duration::from_secs(60));
    }
    node.storage.checkpoint().await.unwrap();
    let none = Retention {
        age: None,
        bytes: Some(1),
    };
    node.handle
        .set_retention(&ns("foo"), "orders", Some(none))
        .await
        .unwrap();
    let first = node.handle.topics(&ns("foo")).unwrap()[0].bounds.first;
    assert!(first > 0, "whole segments are dropped");
    let mut consumer = node.consume("foo", ask("orders", "g")).await;
    if first < 40 {
        assert_eq!(consumer.next().await.offset, first);
    }
    node.group("foo", |group| group.position >= first).await;
}

#[tokio::test]
async fn names_are_checked() {
    let node = Node::start();
    for (topic, group, kind) in [
        ("", "g", Kind::Invalid),
        ("a\nb", "g", Kind::Invalid),
        ("a", "g\0", Kind::Invalid),
    ] {
        let consume = ask(topic, group);
        let asked = node.handle.consume(&ns("foo"), consume, silent()).await;
        assert_eq!(asked.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn after_a_stop_nobody_can_consume() {
    let node = Node::start();
    let mut consumer = node.consume("foo", ask("orders", "g")).await;
    node.handle.stop().await;
    assert!(matches!(consumer.end().await, Error::Stopping));
    let again = node.try_consume("foo", ask("orders", "g")).await;
    assert_eq!(again.err().unwrap().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn the_whole_way_of_an_event_is_short() {
    let node = Node::start();
    let mut consumer = node.consume("foo", ask("orders", "g")).await;
    node.publish("foo", "orders", "warm").await;
    consumer.done().await;
    let mut times = Vec::new();
    for n in 0..100 {
        let begun = std::time::Instant::now();
        node.publish("foo", "orders", &n.to_string()).await;
        consumer.done().await;
        times.push(begun.elapsed());
    }
    times.sort();
    // Far above what it takes; a timer or a poll somewhere on the way would show.
    assert!(times[50] < Duration::from_millis(8), "{:?}", times[50]);
}
