//! A feed against a script of connections, on a clock that tests move.

use std::sync::{Arc, Mutex};

use tokio_stream::StreamExt as _;

use super::*;

type Script = VecDeque<Result<Vec<Result<u32, Status>>, Status>>;

/// Connections one after the other; after the last one, silence.
struct Scripted {
    connections: Script,
    opened: Arc<Mutex<Vec<Instant>>>,
}

impl Source for Scripted {
    type Message = u32;
    type Item = u32;

    fn what(&self) -> String {
        "follow the script".to_owned()
    }

    fn open(&mut self) -> Opening<u32> {
        self.opened.lock().unwrap().push(Instant::now());
        let connection = self.connections.pop_front();
        Box::pin(async move {
            match connection {
                Some(Ok(messages)) => Ok(Box::pin(tokio_stream::iter(messages)) as Messages<u32>),
                Some(Err(status)) => Err(status),
                None => Ok(Box::pin(tokio_stream::pending()) as Messages<u32>),
            }
        })
    }

    fn take(&mut self, message: u32, items: &mut Items<u32>) {
        items.push_back(Ok(message));
    }
}

fn feed(connections: impl Into<Script>) -> (Feed<u32>, Arc<Mutex<Vec<Instant>>>) {
    let opened = Arc::default();
    let source = Scripted {
        connections: connections.into(),
        opened: Arc::clone(&opened),
    };
    (Feed::new(source), opened)
}

fn away() -> Status {
    Status::unavailable("the server stops")
}

#[tokio::test(start_paused = true)]
async fn a_feed_goes_on_after_a_break_an_end_and_a_refused_connection() {
    let (mut feed, opened) = feed([
        Ok(vec![Ok(1), Err(away())]),
        Err(away()),
        Ok(vec![Ok(2)]),
        Ok(vec![Ok(3), Err(Status::unknown("h2 protocol error"))]),
        Ok(vec![Ok(4)]),
    ]);
    for expected in 1..=4 {
        assert_eq!(feed.next().await.unwrap().unwrap(), expected);
    }
    assert_eq!(opened.lock().unwrap().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_to_a_limit_and_begin_again_after_a_success() {
    let mut script: Script = (0..12).map(|_| Err(away())).collect();
    script.push_back(Ok(vec![Ok(1)]));
    script.push_back(Ok(vec![Ok(2)]));
    let (mut feed, opened) = feed(script);
    assert_eq!(feed.next().await.unwrap().unwrap(), 1);
    assert_eq!(feed.next().await.unwrap().unwrap(), 2);
    let opened = opened.lock().unwrap().clone();
    let pauses: Vec<Duration> = opened.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(
        pauses[0] <= FIRST_PAUSE + Duration::from_millis(1),
        "{pauses:?}"
    );
    assert!(pauses[2] > FIRST_PAUSE * 2, "{pauses:?}");
    assert!(pauses[10] >= LONGEST_PAUSE / 4 * 3, "{pauses:?}");
    let most = LONGEST_PAUSE + Duration::from_millis(1);
    assert!(pauses.iter().all(|pause| *pause <= most), "{pauses:?}");
    assert!(
        pauses[12] <= FIRST_PAUSE + Duration::from_millis(1),
        "{pauses:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_ends_the_feed() {
    let (mut feed, opened) = feed([Err(Status::permission_denied("not yours"))]);
    let error = feed.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert_eq!(
        error.to_string(),
        "cannot follow the script: not yours",
        "{error}"
    );
    assert!(feed.next().await.is_none());
    assert_eq!(opened.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_known_any_more_is_no_end() {
    let refused = || Status::unauthenticated("who are you");
    let (mut fresh, _) = feed([Err(refused())]);
    assert!(fresh.next().await.unwrap().is_err());
    assert!(fresh.next().await.is_none());

    let (mut proven, _) = feed([Ok(vec![Ok(1)]), Err(refused()), Ok(vec![Ok(2)])]);
    assert_eq!(proven.next().await.unwrap().unwrap(), 1);
    assert_eq!(proven.next().await.unwrap().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_told_and_the_feed_goes_on() {
    let slow = Status::resource_exhausted("the subscriber was too slow");
    let (mut feed, _) = feed([Ok(vec![Ok(1), Err(slow)]), Ok(vec![Ok(2)])]);
    assert_eq!(feed.next().await.unwrap().unwrap(), 1);
    let lost = feed.next().await.unwrap().unwrap_err();
    assert_eq!(lost.kind(), Kind::Exhausted);
    assert_eq!(feed.next().await.unwrap().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_is_kept_when_nobody_waits_for_it() {
    let (mut feed, opened) = feed([Err(away()), Err(away()), Ok(vec![Ok(1)])]);
    // Gives up several times while the feed pauses, and still comes to the third connection.
    let mut turns = 0;
    let item = loop {
        turns += 1;
        let wait = Duration::from_millis(20);
        if let Ok(item) = tokio::time::timeout(wait, feed.next()).await {
            break item;
        }
    };
    assert_eq!(item.unwrap().unwrap(), 1);
    assert!(turns > 3, "{turns}");
    assert_eq!(opened.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_feed_is_a_stream() {
    let (feed, _) = feed([Ok(vec![Ok(1), Ok(2)]), Err(Status::not_found("gone"))]);
    let items: Vec<_> = feed.0.collect().await;
    assert_eq!(items.len(), 3);
    assert!(items[2].is_err());
}
