//! Reading everything, saying what is damaged. Nothing is repaired here.

use std::{path::Path, sync::Arc};

use super::{Topics, record, recorded::Recorded, segment::Step, topic::Topic};
use crate::{Error, disk::Disk};

/// What [`check`] read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Topics.
    pub(crate) topics: u64,
    /// Events that are as they were written.
    pub(crate) entries: u64,
}

/// Reads all events that the index knows in `directory`, and tells each `problem` in a sentence.
/// The log may hold further ones; those are its own to check.
///
/// # Errors
/// `Internal` when a file cannot be read at all.
pub(crate) fn check(
    disk: Arc<dyn Disk>,
    directory: &Path,
    recorded: Vec<Recorded>,
    mut problem: impl FnMut(String),
) -> Result<Checked, Error> {
    let topics = Topics::restore(disk, directory, recorded.clone(), false);
    let mut checked = Checked::default();
    for recorded in recorded {
        checked.topics = checked.topics.saturating_add(1);
        let Some(topic) = topics.find(&recorded.namespace, &recorded.topic) else {
            continue;
        };
        let entries = topics.check_topic(&topic, &mut problem)?;
        checked.entries = checked.entries.saturating_add(entries);
    }
    Ok(checked)
}

impl Topics {
    fn check_topic(&self, topic: &Topic, problem: &mut impl FnMut(String)) -> Result<u64, Error> {
        self.load(topic)?;
        let (segments, stored) = {
            let state = topic.state();
            (state.segments.clone().unwrap_or_default(), state.stored)
        };
        let mut tell = |from: u64, to: u64| {
            problem(format!(
                "events {from} to {} of the topic {:?} in namespace {} cannot be read",
                to.saturating_sub(1),
                topic.name,
                topic.namespace,
            ));
        };
        let mut entries = 0u64;
        // What is kept has to begin in the first segment.
        let begin = segments.front().map_or(stored.end, |s| s.base);
        if begin > stored.first {
            tell(stored.first, begin);
        }
        let mut heads = Vec::new();
        for (i, segment) in segments.iter().enumerate() {
            let behind = segments.get(i.saturating_add(1));
            let end = behind.map_or(stored.end, |s| s.base);
            let Some(open) = self.segment(topic, segment.base)? else {
                tell(segment.base, end);
                continue;
            };
            let head = record::segment_head(
                &topic.namespace,
                &topic.name,
                topic.incarnation,
                segment.base,
            );
            if !open.begins_with(&head)? {
                heads.push(open.path().display().to_string());
            }
            let mut walk = open.walk_all(end);
            loop {
                match walk.next()? {
                    Step::End => break,
                    Step::Damaged { offset, resume } => tell(offset, resume),
                    Step::Event { .. } => entries = entries.saturating_add(1),
                }
            }
        }
        for path in heads {
            problem(format!("the head of {path} is damaged"));
        }
        Ok(entries)
    }
}
