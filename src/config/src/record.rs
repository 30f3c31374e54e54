//! Documents and their history as bytes. Each row begins with the number of its format; the numbers
//! of fields are never reused.
//!
//! A tree is stored as the list of its leaves in order, each with as much of its path as differs
//! from the leaf before it.

use std::sync::Arc;

use micro_core::Timestamp;
use prost::Message;

use crate::{
    Error,
    document::{Edit, Node},
    history::Action,
    secrets::Sealed,
};

/// Where everything of this crate is kept.
pub(crate) const TABLE: &str = "config";
/// What is known of a document without reading it.
pub(crate) const HEAD: &[u8] = b"head";
/// The document.
pub(crate) const DOCUMENT: &[u8] = b"document";
/// Before the version of each change.
pub(crate) const HISTORY: &[u8] = b"history/";
/// The format of every row.
const FORMAT: u8 = 1;

/// What every change rewrites, so that its revision is the revision of everything else.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Head {
    /// Changes so far.
    #[prost(uint64, tag = "1")]
    pub(crate) version: u64,
    #[prost(bool, tag = "2")]
    pub(crate) exists: bool,
    /// Version of the oldest change that is kept.
    #[prost(uint64, tag = "3")]
    pub(crate) oldest: u64,
    /// Of all changes that are kept.
    #[prost(uint64, tag = "4")]
    pub(crate) history_bytes: u64,
    /// Time of the last change.
    #[prost(int64, tag = "5")]
    pub(crate) changed_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Leaf {
    /// Members that the path has in common with the leaf before.
    #[prost(uint32, tag = "1")]
    shared: u32,
    #[prost(string, repeated, tag = "2")]
    path: Vec<String>,
    /// Neither of the two: an object without members.
    #[prost(string, optional, tag = "3")]
    json: Option<String>,
    #[prost(bytes = "vec", optional, tag = "4")]
    sealed: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Tree {
    #[prost(message, repeated, tag = "1")]
    leaves: Vec<Leaf>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredEdit {
    #[prost(string, repeated, tag = "1")]
    path: Vec<String>,
    /// Nothing was there.
    #[prost(message, optional, tag = "2")]
    before: Option<Tree>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredChange {
    #[prost(uint32, tag = "1")]
    action: u32,
    #[prost(string, tag = "2")]
    path: String,
    #[prost(string, tag = "3")]
    by: String,
    #[prost(int64, tag = "4")]
    at_ms: i64,
    #[prost(message, repeated, tag = "5")]
    edits: Vec<StoredEdit>,
}

/// One change as it is kept: how to undo it, and who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) action: Action,
    pub(crate) path: String,
    pub(crate) by: String,
    pub(crate) at: Timestamp,
    pub(crate) edits: Vec<Edit>,
}

/// The key of the change that made `version`.
pub(crate) fn history_key(version: u64) -> Vec<u8> {
    [HISTORY, &version.to_be_bytes()].concat()
}

/// The version that a key of the history stands for.
pub(crate) fn version_of(key: &[u8]) -> Option<u64> {
    let bytes = key.strip_prefix(HISTORY)?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

pub(crate) fn encode_head(head: &Head) -> Vec<u8> {
    row(head)
}

pub(crate) fn decode_head(bytes: &[u8]) -> Result<Head, Error> {
    message(bytes, "the state of the document")
}

pub(crate) fn encode_document(root: &Node) -> Vec<u8> {
    row(&tree_of(root))
}

pub(crate) fn decode_document(bytes: &[u8]) -> Result<Node, Error> {
    const WHAT: &str = "the document";
    node_of(message(bytes, WHAT)?).ok_or(Error::Record(WHAT))
}

pub(crate) fn encode_change(change: &Change) -> Vec<u8> {
    row(&StoredChange {
        action: change.action.number(),
        path: change.path.clone(),
        by: change.by.clone(),
        at_ms: change.at.0,
        edits: change
            .edits
            .iter()
            .map(|edit| StoredEdit {
                path: edit.path.iter().map(|name| name.to_string()).collect(),
                before: edit.before.as_ref().map(tree_of),
            })
            .collect(),
    })
}

pub(crate) fn decode_change(bytes: &[u8]) -> Result<Change, Error> {
    const WHAT: &str = "a change in the history";
    let stored: StoredChange = message(bytes, WHAT)?;
    let edit = |edit: StoredEdit| {
        Some(Edit {
            path: edit.path.into_iter().map(Into::into).collect(),
            before: match edit.before {
                Some(tree) => Some(node_of(tree)?),
                None => None,
            },
        })
    };
    let change = || {
        Some(Change {
            action: Action::from_number(stored.action)?,
            path: stored.path,
            by: stored.by,
            at: Timestamp(stored.at_ms),
            edits: stored.edits.into_iter().map(edit).collect::<Option<_>>()?,
        })
    };
    change().ok_or(Error::Record(WHAT))
}

fn row(message: &impl Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + message.encoded_len());
    out.push(FORMAT);
    // A vector grows as needed, so this cannot fail.
    let _ = message.encode(&mut out);
    out
}

fn message<M: Message + Default>(bytes: &[u8], what: &'static str) -> Result<M, Error> {
    match bytes.split_first() {
        Some((&FORMAT, bytes)) => M::decode(bytes).map_err(|_| Error::Record(what)),
        Some((&format, _)) => Err(Error::Format { what, format }),
        None => Err(Error::Record(what)),
    }
}

fn tree_of(node: &Node) -> Tree {
    let mut tree = Tree::default();
    let mut last = Vec::new();
    flatten(node, &mut Vec::new(), &mut last, &mut tree.leaves);
    tree
}

fn flatten<'a>(
    node: &'a Node,
    at: &mut Vec<&'a str>,
    last: &mut Vec<&'a str>,
    leaves: &mut Vec<Leaf>,
) {
    let (json, sealed) = match node {
        Node::Map(members) if !members.is_empty() => {
            for (name, node) in members.iter() {
                at.push(name);
                flatten(node, at, last, leaves);
                at.pop();
            }
            return;
        }
        Node::Map(_) => (None, None),
        Node::Leaf(json) => (Some(json.to_string()), None),
        Node::Secret(sealed) => (None, Some(sealed.to_bytes())),
    };
    let shared = at.iter().zip(last.iter()).take_while(|(a, b)| a == b);
    let shared = shared.count();
    leaves.push(Leaf {
        shared: u32::try_from(shared).unwrap_or(0),
        path: at
            .iter()
            .skip(shared)
            .map(|name| (*name).to_owned())
            .collect(),
        json,
        sealed,
    });
    last.clone_from(at);
}

fn node_of(tree: Tree) -> Option<Node> {
    let mut root = Node::empty();
    let mut path: Vec<Box<str>> = Vec::new();
    for leaf in tree.leaves {
        path.truncate(usize::try_from(leaf.shared).ok()?);
        path.extend(leaf.path.into_iter().map(String::into_boxed_str));
        let node = match (leaf.json, leaf.sealed) {
            (Some(json), None) => Node::Leaf(json.into()),
            (None, Some(sealed)) => Node::Secret(Arc::new(Sealed::from_bytes(&sealed)?)),
            (None, None) => Node::empty(),
            (Some(_), Some(_)) => return None,
        };
        root.merge(&path, node);
    }
    Some(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Path;

    #[test]
    fn a_change_comes_back_as_it_was_kept() {
        let node = |text| Node::parse(text, &Path::parse("x").unwrap()).unwrap();
        let change = Change {
            action: Action::Delete,
            path: "a.b".into(),
            by: "ann".into(),
            at: Timestamp(5),
            edits: vec![
                Edit {
                    path: vec!["a".into(), "b.c".into()],
                    before: Some(node(r#"{"x":{},"y":[1,{"z":null}],"":0}"#)),
                },
                Edit {
                    path: vec![],
                    before: None,
                },
                Edit {
                    path: vec!["n".into()],
                    before: Some(node("7")),
                },
            ],
        };
        assert_eq!(decode_change(&encode_change(&change)).unwrap(), change);
    }

    #[test]
    fn rows_of_another_format_are_refused_by_name() {
        let mut row = encode_document(&Node::empty());
        assert_eq!(decode_document(&row).unwrap(), Node::empty());
        row[0] = 9;
        let text = decode_document(&row).unwrap_err().to_string();
        assert!(
            text.contains("the document") && text.contains('9'),
            "{text}"
        );
        assert!(decode_head(&[]).is_err());
        assert!(decode_change(&[FORMAT, 0xff]).is_err());
    }

    #[test]
    fn the_key_of_a_change_sorts_as_its_version() {
        assert!(history_key(9) < history_key(10) && history_key(255) < history_key(256));
        assert_eq!(version_of(&history_key(77)), Some(77));
        assert_eq!(version_of(HEAD), None);
    }
}
