use std::task::{Context, Waker};

use futures_util::{FutureExt as _, StreamExt as _};

use super::{mailbox::MESSAGES, *};

fn namespace(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

fn message(body: &str) -> Message {
    Message {
        header: HashMap::new(),
        body: body.as_bytes().to_vec(),
    }
}

/// What waits for a subscriber now.
fn waiting(subscription: &mut Subscription) -> Vec<String> {
    std::iter::from_fn(|| subscription.next().now_or_never().flatten())
        .map(|message| String::from_utf8(message.unwrap().body).unwrap())
        .collect()
}

#[test]
fn everybody_who_listens_gets_a_message() {
    let (broker, foo) = (Broker::default(), namespace("foo"));
    let mut first = broker.subscribe(&foo, "a", "").unwrap();
    let mut second = broker.subscribe(&foo, "a", "").unwrap();
    let mut other = broker.subscribe(&foo, "b", "").unwrap();
    broker.publish(&foo, "a", &message("1")).unwrap();
    assert_eq!(waiting(&mut first), ["1"]);
    assert_eq!(waiting(&mut second), ["1"]);
    assert!(waiting(&mut other).is_empty());
}

#[test]
fn namespaces_do_not_hear_each_other() {
    let broker = Broker::default();
    let mut theirs = broker.subscribe(&namespace("bar"), "a", "").unwrap();
    broker
        .publish(&namespace("foo"), "a", &message("secret"))
        .unwrap();
    assert!(waiting(&mut theirs).is_empty());
    assert_eq!(broker.subscribers(&namespace("foo")), 0);
    assert_eq!(broker.subscribers(&namespace("bar")), 1);
}

#[test]
fn a_queue_shares_its_messages() {
    let (broker, foo) = (Broker::default(), namespace("foo"));
    let mut first = broker.subscribe(&foo, "a", "q").unwrap();
    let mut second = broker.subscribe(&foo, "a", "q").unwrap();
    let mut alone = broker.subscribe(&foo, "a", "other").unwrap();
    for n in 0..4 {
        broker.publish(&foo, "a", &message(&n.to_string())).unwrap();
    }
    assert_eq!(waiting(&mut first), ["0", "2"]);
    assert_eq!(waiting(&mut second), ["1", "3"]);
    assert_eq!(waiting(&mut alone).len(), 4);
}

#[test]
fn a_slow_subscriber_is_dropped_and_told_so() {
    let (broker, foo) = (Broker::default(), namespace("foo"));
    let mut slow = broker.subscribe(&foo, "a", "").unwrap();
    let mut quick = broker.subscribe(&foo, "a", "").unwrap();
    for _ in 0..=MESSAGES {
        broker.publish(&foo, "a", &message("x")).unwrap();
        assert_eq!(waiting(&mut quick), ["x"]);
    }
    let error = slow.next().now_or_never().flatten().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the subscriber of a was too slow: {MESSAGES} messages behind")
    );
    assert!(slow.next().now_or_never().unwrap().is_none());
    assert_eq!(broker.subscribers(&foo), 1);
}

#[test]
fn bytes_count_too() {
    let (broker, foo) = (Broker::default(), namespace("foo"));
    let mut slow = broker.subscribe(&foo, "a", "").unwrap();
    let large = Message {
        body: vec![0; 3 << 20],
        ..Message::default()
    };
    broker.publish(&foo, "a", &large).unwrap();
    broker.publish(&foo, "a", &large).unwrap();
    let error = slow.next().now_or_never().flatten().unwrap().unwrap_err();
    assert!(error.to_string().contains("1 messages behind"), "{error}");
}

#[test]
fn a_full_member_of_a_queue_leaves_its_share_to_others() {
    let (broker, foo) = (Broker::default(), namespace("foo"));
    let mut full = broker.subscribe(&foo, "a", "q").unwrap();
    for _ in 0..MESSAGES {
        broker.publish(&foo, "a", &message("x")).unwrap();
    }
    let mut other = broker.subscribe(&foo, "a", "q").unwrap();
    for _ in 0..10 {
        broker.publish(&foo, "a", &message("y")).unwrap();
    }
    assert_eq!(waiting(&mut other).len(), 10);
    assert_eq!(waiting(&mut full).len(), MESSAGES);
}

#[test]
fn who_leaves_is_forgotten_with_its_topic() {
    let (broker, foo) = (Broker::default(), namespace("foo"));
    let first = broker.subscribe(&foo, "a", "q").unwrap();
    let second = broker.subscribe(&foo, "a", "").unwrap();
    assert_eq!(broker.subscribers(&foo), 2);
    drop((first, second));
    assert_eq!(broker.subscribers(&foo), 0);
    assert!(lock(&broker.known(&foo).unwrap()).is_empty());
    broker.publish(&foo, "a", &message("nobody")).unwrap();
}

#[test]
fn everybody_is_told_that_the_server_stops() {
    let (broker, foo) = (Broker::default(), namespace("foo"));
    let mut first = broker.subscribe(&foo, "a", "q").unwrap();
    broker.stop();
    let error = first.next().now_or_never().flatten().unwrap().unwrap_err();
    assert!(matches!(error, Error::Stopping));
    assert!(matches!(
        broker.subscribe(&foo, "a", ""),
        Err(Error::Stopping)
    ));
}

#[test]
fn a_subscriber_is_woken_by_a_message() {
    let (broker, foo) = (Broker::default(), namespace("foo"));
    let mut subscription = broker.subscribe(&foo, "a", "").unwrap();
    let mut context = Context::from_waker(Waker::noop());
    assert!(subscription.poll_next_unpin(&mut context).is_pending());
    broker.publish_internal(&foo, "a", &message("1"));
    assert!(subscription.poll_next_unpin(&mut context).is_ready());
}
