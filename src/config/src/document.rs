//! The tree that a document is: members above, leaves below. It knows no disk, no key and no time.
//!
//! A leaf is a scalar or a whole array, kept as compact JSON; a secret leaf is kept encrypted. The
//! members of an object are shared between copies of a tree, so that a copy costs next to nothing
//! and what did not change is seen to be the same without looking into it. Trees are at most
//! [`DEPTH`] deep, which bounds every recursion here.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::{
    Error,
    path::{DEPTH, Path},
    secrets::Sealed,
};

/// What masks a secret, as JSON.
pub(crate) const MASK: &str = "\"[secret]\"";
/// What a path without a value reads as.
pub(crate) const NOTHING: &str = "null";

/// A document, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// An object.
    Map(Arc<BTreeMap<Box<str>, Node>>),
    /// Compact JSON of anything else.
    Leaf(Arc<str>),
    /// The same, encrypted.
    Secret(Arc<Sealed>),
}

/// What was somewhere before a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) path: Vec<Box<str>>,
    /// `None`: nothing was there.
    pub(crate) before: Option<Node>,
}

impl Node {
    /// An object without members.
    pub(crate) fn empty() -> Self {
        Self::Map(Arc::default())
    }

    /// Reads the JSON that is to be put at `path`.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            let text = error.to_string();
            // The parser has a limit of its own, beyond ours.
            if text.starts_with("recursion limit") {
                Error::TooDeep
            } else {
                Error::InvalidJson(text)
            }
        })?;
        if path.is_root() && !value.is_object() {
            return Err(Error::NoObject);
        }
        if path.segments().len() + depth(&value) > DEPTH {
            return Err(Error::TooDeep);
        }
        Ok(Self::of(value))
    }

    fn of(value: Value) -> Self {
        match value {
            Value::Object(members) => Self::Map(Arc::new(
                members
                    .into_iter()
                    .map(|(name, value)| (name.into(), Self::of(value)))
                    .collect(),
            )),
            leaf => Self::Leaf(leaf.to_string().into()),
        }
    }

    /// What is at `path` below this.
    pub(crate) fn get(&self, path: &[Box<str>]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| match node {
            Self::Map(members) => members.get(name),
            Self::Leaf(_) | Self::Secret(_) => None,
        })
    }

    /// Puts `value` at `path`: objects are merged member by member, everything else is replaced.
    pub(crate) fn merge(&mut self, path: &[Box<str>], value: Self) {
        match (path, value) {
            ([], Self::Map(new)) if matches!(self, Self::Map(_)) => self.change(|members| {
                for (name, value) in new.iter() {
                    match members.get_mut(name) {
                        Some(node) => node.merge(&[], value.clone()),
                        None => drop(members.insert(name.clone(), value.clone())),
                    }
                }
            }),
            ([], value) => *self = value,
            ([name, below @ ..], value) => self.change(|members| {
                members
                    .entry(name.clone())
                    .or_insert_with(Self::empty)
                    .merge(below, value);
            }),
        }
    }

    /// Takes away what is at `path`, which is not empty. What is around it stays, even when empty.
    pub(crate) fn remove(&mut self, path: &[Box<str>]) {
        if self.get(path).is_none() {
            return;
        }
        match path {
            [] => {}
            [name] => self.change(|members| drop(members.remove(name))),
            [name, below @ ..] => self.change(|members| {
                if let Some(node) = members.get_mut(name) {
                    node.remove(below);
                }
            }),
        }
    }

    /// Replaces what is at `path` without merging.
    fn replace(&mut self, path: &[Box<str>], value: Self) {
        match path {
            [] => *self = value,
            [name, below @ ..] => self.change(|members| {
                members
                    .entry(name.clone())
                    .or_insert_with(Self::empty)
                    .replace(below, value);
            }),
        }
    }

    /// Changes the members; what is no object becomes one.
    fn change(&mut self, edit: impl FnOnce(&mut BTreeMap<Box<str>, Self>)) {
        let mut members = match std::mem::replace(self, Self::empty()) {
            Self::Map(members) => members,
            Self::Leaf(_) | Self::Secret(_) => Arc::default(),
        };
        edit(Arc::make_mut(&mut members));
        *self = Self::Map(members);
    }

    /// The same tree with each leaf replaced by what `change` makes of it. `at` is where the tree
    /// lies in its document.
    pub(crate) fn map(
        &self,
        at: &mut Vec<Box<str>>,
        change: &mut impl FnMut(&[Box<str>], &Self) -> Result<Self, Error>,
    ) -> Result<Self, Error> {
        match self {
            Self::Map(members) => {
                let mut out = BTreeMap::new();
                for (name, node) in members.iter() {
                    at.push(name.clone());
                    let node = node.map(at, change);
                    at.pop();
                    out.insert(name.clone(), node?);
                }
                Ok(Self::Map(Arc::new(out)))
            }
            leaf => change(at, leaf),
        }
    }

    /// Compact JSON with sorted members and every secret masked.
    pub(crate) fn masked(&self) -> String {
        let mut out = String::new();
        // Masking cannot fail.
        let _ = self.write(&mut out, &mut Vec::new(), &mut |_, _, out| {
            out.push_str(MASK);
            Ok(())
        });
        out
    }

    /// Compact JSON with sorted members; `open` writes the secrets.
    pub(crate) fn write(
        &self,
        out: &mut String,
        at: &mut Vec<Box<str>>,
        open: &mut impl FnMut(&[Box<str>], &Sealed, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match self {
            Self::Leaf(json) => out.push_str(json),
            Self::Secret(sealed) => open(at, sealed, out)?,
            Self::Map(members) => {
                let mut before = '{';
                for (name, node) in members.iter() {
                    out.push(before);
                    before = ',';
                    out.push_str(&Value::from(&**name).to_string());
                    out.push(':');
                    at.push(name.clone());
                    let written = node.write(out, at, open);
                    at.pop();
                    written?;
                }
                if members.is_empty() {
                    out.push('{');
                }
                out.push('}');
            }
        }
        Ok(())
    }
}

/// How many objects and arrays lie around the deepest value, `value` included.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// What has to be put back to make `old` out of `new`.
pub(crate) fn difference(old: Option<&Node>, new: Option<&Node>) -> Vec<Edit> {
    let mut edits = Vec::new();
    compare(old, new, &mut Vec::new(), &mut edits);
    edits
}

fn compare(old: Option<&Node>, new: Option<&Node>, at: &mut Vec<Box<str>>, edits: &mut Vec<Edit>) {
    match (old, new) {
        (Some(Node::Map(a)), Some(Node::Map(b))) => {
            if Arc::ptr_eq(a, b) {
                return;
            }
            let added = b.keys().filter(|name| !a.contains_key(*name));
            for name in a.keys().chain(added) {
                at.push(name.clone());
                compare(a.get(name), b.get(name), at, edits);
                at.pop();
            }
        }
        (old, new) if old == new => {}
        (old, _) => edits.push(Edit {
            path: at.clone(),
            before: old.cloned(),
        }),
    }
}

/// Puts back what `edits` remember.
pub(crate) fn undo(document: &mut Option<Node>, edits: &[Edit]) {
    for edit in edits {
        match (&edit.before, edit.path.as_slice()) {
            (before, []) => document.clone_from(before),
            (Some(before), path) => document
                .get_or_insert_with(Node::empty)
                .replace(path, before.clone()),
            (None, path) => {
                if let Some(node) = document {
                    node.remove(path);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
