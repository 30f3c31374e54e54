//! Several changes of one database that happen together, each on a condition if wanted.

use std::collections::HashSet;

use micro_core::Timestamp;
use micro_storage::{Expect, Revision};

use crate::{
    Database, Error, Write,
    database::TRIES,
    draft::{Draft, Refused},
    place::{self, RECORDS},
    record::{self, Stored},
};

/// The most operations of one commit.
const OPERATIONS: usize = 10_000;

/// What happens to one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<'a> {
    /// It is written.
    Write(Write<'a>),
    /// It is deleted, if there is one.
    Delete(&'a str),
    /// Nothing; only the condition counts.
    Check(&'a str),
}

/// What a record must be like before anything happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// There is none.
    Absent,
    /// There is one.
    Present,
    /// It is the one of this revision.
    At(Revision),
}

/// One change, and its condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation<'a> {
    /// The table.
    pub table: &'a str,
    /// What happens.
    pub change: Change<'a>,
    /// On which condition.
    pub condition: Option<Condition>,
}

impl Operation<'_> {
    fn key(&self) -> &str {
        match &self.change {
            Change::Write(write) => write.key,
            Change::Delete(key) | Change::Check(key) => key,
        }
    }
}

/// An operation that has been looked at once, however often it is tried.
struct Step<'a> {
    table: &'a str,
    place: Vec<u8>,
    kind: Kind,
    condition: Option<Condition>,
}

enum Kind {
    Write {
        bytes: Vec<u8>,
        deadline: Option<Timestamp>,
    },
    Delete,
    Check,
}

/// Makes all of the operations, or none.
pub(crate) async fn commit(
    database: &Database,
    operations: &[Operation<'_>],
) -> Result<Revision, Error> {
    let steps = steps(database, operations)?;
    let mut tries = TRIES;
    loop {
        let mut draft = Draft::new(&database.shared, &database.space);
        let mut expired = Vec::new();
        for step in &steps {
            if let Some(condition) = step.condition {
                let expect = expectation(database, step, condition)?;
                if condition == Condition::Absent && expect != Expect::Absent {
                    expired.push(step.place.as_slice());
                }
                draft.expect(&step.place, expect);
            }
            match &step.kind {
                Kind::Write { bytes, deadline } => {
                    draft.write(step.table, &step.place, bytes, *deadline)?;
                }
                Kind::Delete => draft.delete(step.table, &step.place)?,
                Kind::Check => {}
            }
        }
        tries -= 1;
        match draft.commit().await {
            Ok(revision) => return Ok(revision),
            Err(Refused::Stale) if tries > 0 => {}
            // The sweep took what had expired, or somebody wrote it anew: look again.
            Err(Refused::Conflict { place, .. })
                if tries > 0 && expired.contains(&place.as_slice()) => {}
            Err(refused) => return Err(failure(refused)),
        }
    }
}

fn steps<'a>(database: &Database, operations: &'a [Operation<'a>]) -> Result<Vec<Step<'a>>, Error> {
    if operations.len() > OPERATIONS {
        let count = operations.len();
        return Err(Error::Operation(format!(
            "{count} operations are too many; the most are {OPERATIONS}"
        )));
    }
    let mut steps = Vec::with_capacity(operations.len());
    for operation in operations {
        let table = place::table(operation.table)?;
        let place = place::record(table, operation.key())?;
        let kind = match &operation.change {
            Change::Write(write) => {
                let deadline = database.deadline(write.ttl);
                Kind::Write {
                    bytes: record::encode(write.value, deadline, write.metadata.clone()),
                    deadline,
                }
            }
            Change::Delete(_) => Kind::Delete,
            Change::Check(key) if operation.condition.is_none() => {
                return Err(Error::Operation(format!(
                    "the check of {key:?} in table {table} has no condition"
                )));
            }
            Change::Check(_) => Kind::Check,
        };
        steps.push(Step {
            table,
            place,
            kind,
            condition: operation.condition,
        });
    }
    let mut seen = HashSet::with_capacity(steps.len());
    for (step, operation) in steps.iter().zip(operations) {
        if !seen.insert(step.place.as_slice()) {
            return Err(Error::Operation(format!(
                "the record {:?} of table {} is named twice",
                operation.key(),
                step.table
            )));
        }
    }
    drop(seen);
    Ok(steps)
}

/// What storage is to expect of the row. A record that has expired is not there, though its row may
/// be.
fn expectation(
    database: &Database,
    step: &Step<'_>,
    condition: Condition,
) -> Result<Expect, Error> {
    let shared = &database.shared;
    let expiring = shared.tables.is_expiring(&database.space, step.table)?;
    let row = if expiring == Some(true) {
        database.space.get(RECORDS, &step.place)?
    } else {
        None
    };
    let over = match row {
        Some(row) => Stored::decode(row.value)?
            .is_over(shared.clock.now())
            .then_some(row.revision),
        None => None,
    };
    match (condition, over) {
        (Condition::Absent, Some(revision)) => Ok(Expect::At(revision)),
        (Condition::Absent, None) => Ok(Expect::Absent),
        (Condition::Present | Condition::At(_), Some(_)) => Err(conflict(&step.place, None)),
        (Condition::Present, None) => Ok(Expect::Present),
        (Condition::At(revision), None) => Ok(Expect::At(revision)),
    }
}

fn conflict(place: &[u8], found: Option<Revision>) -> Error {
    match place::parts(place) {
        Some((table, key)) => Error::Conflict {
            table: table.to_owned(),
            key: key.to_owned(),
            found,
        },
        None => Error::Broken,
    }
}

/// What a refusal is to the caller.
pub(crate) fn failure(refused: Refused) -> Error {
    match refused {
        // Each time another table was made in between: unheard of.
        Refused::Stale => Error::Abandoned,
        Refused::Conflict { place, found } => conflict(&place, found),
        Refused::Failed(error) => error,
    }
}
