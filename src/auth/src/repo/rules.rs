//! The tables of rules.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use micro_core::Namespace;
use micro_storage::rusqlite::{self, Connection, Row, Transaction};

use super::{Answer, namespace_of};
use crate::{
    Error,
    rules::{self, Access, Resource, Rule},
};

/// Rules of one namespace, at most: each request walks them.
const MOST_RULES: u32 = 1000;

/// All rules of all namespaces that differ from the default, in the order of the decision.
#[derive(Debug, Default)]
pub(crate) struct RuleBook(HashMap<Namespace, Arc<[Rule]>>);

impl RuleBook {
    /// The rules of `namespace`.
    pub(crate) fn of(&self, namespace: &Namespace) -> &Arc<[Rule]> {
        self.0.get(namespace).unwrap_or_else(|| rules::untouched())
    }
}

fn rule_of(row: &Row<'_>) -> rusqlite::Result<Rule> {
    let granted: bool = row.get(6)?;
    Ok(Rule {
        id: row.get(1)?,
        scope: row.get(2)?,
        resource: Resource {
            kind: row.get(3)?,
            name: row.get(4)?,
            endpoint: row.get(5)?,
        },
        access: if granted {
            Access::Granted
        } else {
            Access::Denied
        },
        priority: row.get(7)?,
    })
}

/// Reads the whole book.
pub(crate) fn load(c: &Connection) -> rusqlite::Result<RuleBook> {
    // Namespace to rules, and whether the default one was deleted there.
    let mut found: BTreeMap<Namespace, (Vec<Rule>, bool)> = BTreeMap::new();
    let mut rules = c.prepare(
        "SELECT namespace, id, scope, kind, name, endpoint, granted, priority FROM auth_rules",
    )?;
    for row in rules.query_map([], |row| Ok((namespace_of(row, 0)?, rule_of(row)?)))? {
        let (namespace, rule) = row?;
        found.entry(namespace).or_default().0.push(rule);
    }
    let mut without = c.prepare("SELECT namespace FROM auth_no_default_rule")?;
    for namespace in without.query_map([], |row| namespace_of(row, 0))? {
        found.entry(namespace?).or_default().1 = true;
    }
    let book = found.into_iter().map(|(namespace, (mut list, deleted))| {
        if !deleted && !list.iter().any(|rule| rule.id == rules::DEFAULT) {
            list.push(Rule::everything_is_public());
        }
        rules::order(&mut list);
        (namespace, list.into())
    });
    Ok(RuleBook(book.collect()))
}

/// Adds a rule. One with the id of the default rule takes its place.
pub(crate) fn insert(tx: &Transaction<'_>, namespace: &Namespace, rule: &Rule) -> Answer<()> {
    let (count, taken): (u32, bool) = tx.query_row(
        "SELECT count(*), ifnull(max(id = ?2), 0) FROM auth_rules WHERE namespace = ?1",
        (namespace.as_str(), &rule.id),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if taken {
        return Ok(Err(Error::RuleExists));
    }
    if count >= MOST_RULES {
        return Ok(Err(Error::Full {
            what: "rules",
            namespace: namespace.as_str().into(),
            limit: MOST_RULES,
        }));
    }
    tx.execute(
        "INSERT INTO auth_rules (namespace, id, scope, kind, name, endpoint, granted, priority)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        (
            namespace.as_str(),
            &rule.id,
            &rule.scope,
            &rule.resource.kind,
            &rule.resource.name,
            &rule.resource.endpoint,
            rule.access == Access::Granted,
            rule.priority,
        ),
    )?;
    Ok(Ok(()))
}

/// Deletes a rule, if there is one. The default rule stays deleted.
pub(crate) fn delete(
    tx: &Transaction<'_>,
    namespace: &Namespace,
    id: &str,
) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM auth_rules WHERE namespace = ?1 AND id = ?2",
        (namespace.as_str(), id),
    )?;
    if id == rules::DEFAULT {
        tx.execute(
            "INSERT OR IGNORE INTO auth_no_default_rule (namespace) VALUES (?1)",
            [namespace.as_str()],
        )?;
    }
    Ok(())
}
