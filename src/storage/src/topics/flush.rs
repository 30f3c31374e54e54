//! From memory into segment files: mark, write, sync, confirm.
//!
//! Nothing is taken for written before the index has it: a flush that failed, or whose ends never
//! reached the index, is done again from memory.

use std::sync::Arc;

use micro_core::{Namespace, Timestamp};

use super::{
    Topics,
    files::{Dirty, Doomed},
    lock,
    recorded::Recorded,
    topic::{Removed, Topic},
    write::Written,
};
use crate::Error;

/// The mark of a checkpoint: everything that was appended, retained or removed before it. Keep it
/// until [`Topics::confirm`]; [`Topics::flush`] may be tried again with the same one.
#[must_use = "what it covers would not be written before the next append"]
pub(crate) struct Frozen {
    marks: Vec<Mark>,
    removed: Vec<Removed>,
}

/// What has become durable, for the index: first `removed` go, then `recorded` are put.
#[derive(Debug, Default)]
pub(crate) struct Flushed {
    /// Topics that the index shall forget.
    pub(crate) removed: Vec<(Namespace, String)>,
    /// Topics that changed.
    pub(crate) recorded: Vec<Recorded>,
}

/// How far a topic reached when the mark was made.
struct Mark {
    topic: Arc<Topic>,
    end: u64,
    time: i64,
    /// What the attempt that goes on has written.
    fresh: Option<Written>,
    /// What is synced.
    written: Option<Written>,
}

impl Frozen {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.removed.is_empty()
    }
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frozen")
            .field("changed", &self.marks.len())
            .field("removed", &self.removed.len())
            .finish()
    }
}

impl Topics {
    /// Makes the mark. To be called where no append happens, at the position of the log that will be
    /// stored with it. Quick: nothing is written.
    pub(crate) fn freeze(&self) -> Frozen {
        let changed = std::mem::take(&mut *lock(&self.changed));
        let removed = std::mem::take(&mut *lock(&self.removed));
        let mut marks = Vec::with_capacity(changed.len());
        for topic in changed {
            let mut state = topic.state();
            state.marked();
            if state.gone {
                continue;
            }
            let (end, time) = (state.next, state.time);
            drop(state);
            marks.push(Mark {
                topic,
                end,
                time,
                fresh: None,
                written: None,
            });
        }
        Frozen { marks, removed }
    }

    /// Writes everything that the mark covers into segment files and syncs them. Appends and reads go
    /// on meanwhile, and nothing leaves memory.
    ///
    /// # Errors
    /// `Exhausted` when the disk is full, `Internal` otherwise. Nothing is lost: try again.
    pub(crate) fn flush(&self, frozen: &mut Frozen) -> Result<Flushed, Error> {
        let mut dirty = Dirty::new(&self.disk, &self.directory);
        let mut written = Ok(());
        for mark in &mut frozen.marks {
            // Those that an earlier attempt has synced are there already.
            if mark.written.is_none() {
                match self.write(&mark.topic, mark.end, &mut dirty) {
                    Ok(done) => mark.fresh = Some(done),
                    Err(error) => {
                        written = Err(error);
                        break;
                    }
                }
            }
        }
        let written = written.and_then(|()| dirty.sync());
        for mark in &mut frozen.marks {
            let fresh = mark.fresh.take();
            if written.is_ok() && fresh.is_some() {
                mark.written = fresh;
            }
        }
        written?;
        let mut flushed = Flushed::default();
        for gone in &frozen.removed {
            let key = (gone.namespace.clone(), gone.name.to_string());
            flushed.removed.push(key);
        }
        for mark in &frozen.marks {
            let Some(written) = &mark.written else {
                continue;
            };
            flushed.recorded.push(Recorded {
                namespace: mark.topic.namespace.clone(),
                topic: mark.topic.name.to_string(),
                incarnation: mark.topic.incarnation,
                time: Timestamp(mark.time),
                stored: written.stored,
            });
        }
        Ok(flushed)
    }

    /// The index has what [`Topics::flush`] gave: the events leave memory, and files that nothing
    /// needs any more go.
    pub(crate) fn confirm(&self, frozen: Frozen) {
        let mut doomed = Vec::new();
        for mark in frozen.marks {
            let Some(written) = mark.written else {
                continue;
            };
            let incarnation = mark.topic.incarnation;
            let directory = mark.topic.directory(&self.directory);
            for segment in &written.expired {
                self.open.forget(incarnation, segment.base);
                doomed.push(Doomed::Segment(directory.clone(), segment.base));
            }
            mark.topic.confirm(written);
        }
        for gone in frozen.removed {
            self.open.forget_all(gone.incarnation);
            doomed.push(Doomed::Topic(gone.directory));
        }
        self.discard(doomed);
    }
}
