//! Where a group is when its first consumer comes: as its row says, or, when it is new, as the
//! consumer asks.

use micro_storage::{Bounds, Expect, Topic};

use super::{GROUPS, Key, Start, load, position::Position, row_key};
use crate::{Error, topics::Topics};

/// The position of the group, which has a row from now on, and the bounds of its topic.
pub(super) async fn position(
    topics: &Topics,
    key: &Key,
    start: Start,
) -> Result<(Position, Bounds), Error> {
    let entries = topics.entries(&key.topic);
    let bounds = entries.bounds()?;
    let saved = match key.named() {
        Some(group) => load(topics.space(), &key.topic, group)?,
        None => None,
    };
    let mut position = match saved {
        Some(position) => position,
        None => {
            let position = Position::at(begin(entries, start, bounds).await?);
            if let Some(group) = key.named() {
                let row = row_key(&key.topic, group);
                let mut batch = topics.space().batch();
                batch
                    .expect(GROUPS, &row, Expect::Absent)
                    .put(GROUPS, &row, position.encode());
                batch.commit().await?;
            }
            position
        }
    };
    if position.next > bounds.next {
        tracing::warn!(namespace = %topics.space().namespace(), topic = %key.topic,
            position = position.next, end = bounds.next,
            "A group was ahead of its topic, and is set to its end.");
        position.next = bounds.next;
        position.open.retain(|(offset, _)| *offset < bounds.next);
    }
    Ok((position, bounds))
}

/// Where a new group begins.
async fn begin(entries: Topic, start: Start, bounds: Bounds) -> Result<u64, Error> {
    match start {
        Start::Now => Ok(bounds.next),
        Start::From(offset) => Ok(offset.clamp(bounds.first, bounds.next)),
        Start::At(time) => {
            match tokio::task::spawn_blocking(move || entries.offset_at(time)).await {
                Ok(offset) => Ok(offset?),
                Err(_) => Err(Error::Stopping),
            }
        }
    }
}
