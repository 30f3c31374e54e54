//! Who changed what, and the way back.
//!
//! Each change keeps what has to be put back to undo it, and nothing else. An earlier document is
//! made from the present one by undoing the changes since, the newest first; so that is also where
//! the values before and after a change come from.

use micro_core::Timestamp;
use micro_storage::{Batch, Range, Space};

use crate::{
    Error,
    document::{self, NOTHING, Node},
    path::Path,
    record::{self, Change, HISTORY, Head, TABLE},
    service::Stored,
};

/// Changes that are kept in a namespace.
pub(crate) const KEPT: u64 = 1000;
/// Their bytes in a namespace. The newest change is kept in any case.
pub(crate) const KEPT_BYTES: u64 = 8 * 1024 * 1024;
/// What one answer holds, so that every client can read it. The newest change is in it in any case.
const ANSWER_BYTES: usize = 1024 * 1024;
/// Changes in an answer when the question names no number.
const USUAL: usize = 50;
/// Changes that are read at once.
const PAGE: usize = 64;

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Merged a value in.
    Set,
    /// Took something away.
    Delete,
    /// Went back to a version.
    Revert,
}

impl Action {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Delete => "delete",
            Self::Revert => "revert",
        }
    }

    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Set => 1,
            Self::Delete => 2,
            Self::Revert => 3,
        }
    }

    pub(crate) const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Set),
            2 => Some(Self::Delete),
            3 => Some(Self::Revert),
            _ => None,
        }
    }
}

/// One change as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Of the document after the change.
    pub version: u64,
    /// What happened.
    pub action: Action,
    /// Where; empty for the whole document.
    pub path: String,
    /// Id of the account.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// JSON of what was at the path, `null` for nothing, secrets masked.
    pub before: String,
    /// The same after the change.
    pub after: String,
}

/// The changes that are kept, the newest first.
struct Walk<'a> {
    space: &'a Space,
    /// The version whose change comes next; the one of the document that is at hand.
    version: u64,
    page: std::vec::IntoIter<(u64, Change)>,
}

impl<'a> Walk<'a> {
    fn new(space: &'a Space, version: u64) -> Self {
        Self {
            space,
            version,
            page: Vec::new().into_iter(),
        }
    }

    /// The change that made the version that the walk is at; then it is at the version before.
    fn step(&mut self) -> Result<Option<(u64, Change)>, Error> {
        if self.version == 0 {
            return Ok(None);
        }
        let next = match self.page.next() {
            Some(next) => Some(next),
            None => {
                // The key itself is left out, so the page begins below the version after.
                let above = record::history_key(self.version.saturating_add(1));
                let rows = self.space.scan(
                    TABLE,
                    Range::prefix(HISTORY).after(&above).limit(PAGE).reverse(),
                )?;
                let mut page = Vec::with_capacity(rows.len());
                for row in rows {
                    if let Some(version) = record::version_of(&row.key) {
                        page.push((version, record::decode_change(&row.value)?));
                    }
                }
                self.page = page.into_iter();
                self.page.next()
            }
        };
        // A gap is where the history ends: older changes were dropped meanwhile.
        Ok(next
            .filter(|(version, _)| *version == self.version)
            .inspect(|(version, _)| {
                self.version = version.saturating_sub(1);
            }))
    }
}

/// The changes of what is at `path`, the newest first. Blocks.
pub(crate) fn entries(
    space: &Space,
    stored: &Stored,
    path: &Path,
    limit: u64,
) -> Result<Vec<Entry>, Error> {
    let limit = match usize::try_from(limit) {
        Ok(0) => USUAL,
        Ok(limit) => limit,
        Err(_) => usize::MAX,
    };
    let mut root = stored.root.clone();
    let mut walk = Walk::new(space, stored.head.version);
    let (mut entries, mut bytes) = (Vec::new(), 0_usize);
    while entries.len() < limit {
        let Some((version, change)) = walk.step()? else {
            break;
        };
        let later = root.clone();
        document::undo(&mut root, &change.edits);
        if part(later.as_ref(), path) == part(root.as_ref(), path) {
            continue;
        }
        let at = Path::parse(&change.path)?;
        let (before, after) = (masked(root.as_ref(), &at), masked(later.as_ref(), &at));
        bytes = bytes.saturating_add(before.len() + after.len() + change.path.len());
        if bytes > ANSWER_BYTES && !entries.is_empty() {
            break;
        }
        entries.push(Entry {
            version,
            action: change.action,
            path: change.path,
            by: change.by,
            at: change.at,
            before,
            after,
        });
    }
    Ok(entries)
}

fn part<'a>(root: Option<&'a Node>, path: &Path) -> Option<&'a Node> {
    root.and_then(|root| root.get(path.segments()))
}

fn masked(root: Option<&Node>, path: &Path) -> String {
    part(root, path).map_or_else(|| NOTHING.to_owned(), Node::masked)
}

/// The document as it was after `wanted`. Blocks.
pub(crate) fn at_version(
    space: &Space,
    stored: &Stored,
    wanted: u64,
) -> Result<Option<Node>, Error> {
    let newest = stored.head.version;
    // The change before the oldest one is gone, but its outcome is what that one undoes to.
    let oldest = stored.head.oldest.saturating_sub(1).max(1);
    let gone = Error::Version {
        wanted,
        oldest,
        newest,
    };
    if newest == 0 {
        return Err(Error::NotFound);
    }
    if wanted < oldest || wanted > newest {
        return Err(gone);
    }
    let mut root = stored.root.clone();
    let mut walk = Walk::new(space, newest);
    while walk.version > wanted {
        let (_, change) = walk.step()?.ok_or_else(|| gone.clone())?;
        document::undo(&mut root, &change.edits);
    }
    Ok(root)
}

/// Adds a change to `batch` and drops those that are too many by then. `head` has the version
/// that the change makes.
pub(crate) fn add(
    space: &Space,
    batch: &mut Batch,
    head: &mut Head,
    change: &Change,
) -> Result<(), Error> {
    let row = record::encode_change(change);
    head.history_bytes = head.history_bytes.saturating_add(row.len() as u64);
    batch.put(TABLE, record::history_key(head.version), row);
    head.oldest = head.oldest.max(1);
    while head.oldest < head.version
        && (head.history_bytes > KEPT_BYTES || head.version - head.oldest >= KEPT)
    {
        let key = record::history_key(head.oldest);
        let dropped = space.get(TABLE, &key)?.map_or(0, |row| row.value.len());
        head.history_bytes = head.history_bytes.saturating_sub(dropped as u64);
        head.oldest += 1;
        batch.delete(TABLE, key);
    }
    Ok(())
}
