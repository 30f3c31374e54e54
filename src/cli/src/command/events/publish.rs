//! `micro events publish`.

use std::{
    collections::HashMap,
    io::{self, BufRead as _},
    thread,
};

use micro_proto::events::{PublishBatchRequest, PublishRequest};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    command::call,
    command_line::EventsPublish,
    context::Context,
    error::{Error, Result},
    input,
    session::Session,
};

/// Events of one batch, and bytes after which it is full.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// Publishes one event, or one for each line of stdin.
pub(super) async fn run(context: &Context, args: EventsPublish) -> Result<()> {
    let metadata = call::pairs(&args.metadata)?.into_iter().collect();
    if args.batch_lines {
        if !args.payload.is_empty() && args.payload != ["-"] {
            return Err(Error::usage("--batch-lines takes the events from stdin")
                .with_hint("leave the payload out, or leave out --batch-lines"));
        }
        return lines(context, &args.topic, &metadata).await;
    }
    if args.payload.is_empty() {
        return Err(Error::usage("Topic and Payload args are required").with_hint(
            "write it like: micro events publish TOPIC '{\"id\": 1}', where the payload - reads stdin",
        ));
    }
    let payload = input::bytes(&args.payload)?;
    let session = Session::open(context).await?;
    let request = session.request(PublishRequest {
        topic: args.topic,
        metadata,
        payload,
        timestamp: 0,
        namespace: session.namespace.to_string(),
    });
    let answer = session.events().publish(request).await;
    let event = answer.map_err(|s| session.failure(s))?.into_inner();
    if context.printer.is_json() {
        return context
            .printer
            .json(&json!({ "id": event.id, "offset": event.offset }));
    }
    Ok(())
}

/// Publishes lines as they come: those that came while a batch was under way are the next one.
async fn lines(context: &Context, topic: &str, metadata: &HashMap<String, String>) -> Result<()> {
    let session = Session::open(context).await?;
    let (sender, mut lines) = mpsc::channel(BATCH);
    thread::spawn(move || read(&sender));
    let mut published = 0;
    while let Some(first) = lines.recv().await {
        let first = first?;
        let mut bytes = first.len();
        let mut batch = vec![first];
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Ok(line) = lines.try_recv() else { break };
            let line = line?;
            bytes += line.len();
            batch.push(line);
        }
        let count = batch.len();
        let events = batch
            .into_iter()
            .map(|payload| PublishRequest {
                topic: topic.into(),
                metadata: metadata.clone(),
                payload,
                ..PublishRequest::default()
            })
            .collect();
        let request = session.request(PublishBatchRequest {
            events,
            namespace: session.namespace.to_string(),
        });
        let answer = session.events().publish_batch(request).await;
        answer.map_err(|s| {
            let error = session.failure(s);
            let hint = error_hint(&error, published);
            error.with_hint(hint)
        })?;
        published += count;
    }
    if context.printer.is_json() {
        return context.printer.json(&json!({ "published": published }));
    }
    context
        .printer
        .note(&format!("published {published} events"));
    Ok(())
}

/// How far it went, so that the rest can be sent again.
fn error_hint(error: &Error, published: usize) -> String {
    use micro_core::Fault as _;
    let far = format!("{published} events were published, the lines after them were not");
    match error.hint() {
        Some(hint) => format!("{far}; {hint}"),
        None => far,
    }
}

fn read(sender: &mpsc::Sender<Result<Vec<u8>>>) {
    let mut stdin = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let read = match stdin.read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => Ok(trimmed(line)),
            Err(e) => Err(Error::file("read", "stdin")(e)),
        };
        if read.as_ref().is_ok_and(Vec::is_empty) {
            continue;
        }
        let is_end = read.is_err();
        // Nobody takes more after a failure.
        if sender.blocking_send(read).is_err() || is_end {
            return;
        }
    }
}

/// The line without its end.
fn trimmed(mut line: Vec<u8>) -> Vec<u8> {
    for end in [b'\n', b'\r'] {
        if line.last() == Some(&end) {
            line.pop();
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_only_their_end() {
        for (line, payload) in [
            (&b"a\n"[..], &b"a"[..]),
            (b"a\r\n", b"a"),
            (b" a ", b" a "),
            (b"\n", b""),
            (b"a\n\n", b"a\n"),
        ] {
            assert_eq!(trimmed(line.into()), payload);
        }
    }
}
