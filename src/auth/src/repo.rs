//! The tables of accounts and refresh tokens. Rules are in `repo/rules.rs`.
//!
//! The namespace is the first column of every primary key. Functions take the connection or the
//! transaction they work in; an outer error is the database's, an inner one is ours, and nothing was
//! changed when there is one.

use std::collections::BTreeMap;

use micro_core::{Account, AccountId, Namespace, Timestamp};
use micro_storage::rusqlite::{
    self, Connection, OptionalExtension as _, Row, Transaction, types::Type,
};

use crate::Error;

pub(crate) mod rules;

/// Accounts in one namespace, at most.
const MOST_ACCOUNTS: u32 = 10_000;
/// Refresh tokens of one account, at most: the one that was used longest ago makes room.
const MOST_REFRESH: u32 = 100;

pub(crate) const STEPS: &[&str] = &["
CREATE TABLE auth_accounts (
    namespace  TEXT NOT NULL,
    id         TEXT NOT NULL,
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    scopes     TEXT NOT NULL,              -- JSON list
    metadata   TEXT NOT NULL,              -- JSON object
    hash       TEXT NOT NULL,              -- argon2id, PHC string
    generation INTEGER NOT NULL,           -- random; tokens hold it
    turn       INTEGER NOT NULL DEFAULT 0, -- changes of the secret
    preset     INTEGER NOT NULL DEFAULT 0, -- the default account with its default secret
    PRIMARY KEY (namespace, id),
    UNIQUE (namespace, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE auth_refresh (
    namespace TEXT NOT NULL,
    digest    BLOB NOT NULL,               -- SHA-256 of the token
    account   TEXT NOT NULL,
    used      INTEGER NOT NULL,            -- unix milliseconds, precise to an hour
    PRIMARY KEY (namespace, digest),
    FOREIGN KEY (namespace, account) REFERENCES auth_accounts (namespace, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX auth_refresh_by_account ON auth_refresh (namespace, account, used);

CREATE TABLE auth_rules (
    namespace TEXT NOT NULL,
    id        TEXT NOT NULL,
    scope     TEXT NOT NULL,
    kind      TEXT NOT NULL,
    name      TEXT NOT NULL,
    endpoint  TEXT NOT NULL,
    granted   INTEGER NOT NULL,
    priority  INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT, WITHOUT ROWID;

-- Namespaces whose default rule was deleted; elsewhere it exists without being stored.
CREATE TABLE auth_no_default_rule (
    namespace TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
"];

/// Ours inside the database's.
pub(crate) type Answer<T> = rusqlite::Result<Result<T, Error>>;

/// An account as it is stored.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) account: Account,
    pub(crate) hash: String,
    pub(crate) generation: i64,
    pub(crate) turn: i64,
    pub(crate) preset: bool,
}

const COLUMNS: &str = "namespace, id, kind, name, scopes, metadata, hash, generation, turn, preset";

fn unreadable<E>(column: usize) -> impl FnOnce(E) -> rusqlite::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e))
}

fn unwritable(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

fn namespace_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Namespace> {
    Namespace::parse(&row.get::<_, String>(column)?).map_err(unreadable(column))
}

fn account_id_of(row: &Row<'_>, column: usize) -> rusqlite::Result<AccountId> {
    AccountId::parse(&row.get::<_, String>(column)?).map_err(unreadable(column))
}

fn record_of(row: &Row<'_>) -> rusqlite::Result<Record> {
    let scopes: Vec<String> =
        serde_json::from_str(&row.get::<_, String>(4)?).map_err(unreadable(4))?;
    let metadata: BTreeMap<String, String> =
        serde_json::from_str(&row.get::<_, String>(5)?).map_err(unreadable(5))?;
    Ok(Record {
        account: Account {
            issuer: namespace_of(row, 0)?,
            id: account_id_of(row, 1)?,
            kind: row.get(2)?,
            name: row.get(3)?,
            scopes,
            metadata,
        },
        hash: row.get(6)?,
        generation: row.get(7)?,
        turn: row.get(8)?,
        preset: row.get(9)?,
    })
}

/// Who exists: namespace, id, generation and turn of every account.
pub(crate) fn living(c: &Connection) -> rusqlite::Result<Vec<(Namespace, AccountId, i64, i64)>> {
    c.prepare("SELECT namespace, id, generation, turn FROM auth_accounts")?
        .query_map([], |row| {
            Ok((
                namespace_of(row, 0)?,
                account_id_of(row, 1)?,
                row.get(2)?,
                row.get(3)?,
            ))
        })?
        .collect()
}

/// The account of this id.
pub(crate) fn by_id(
    c: &Connection,
    namespace: &Namespace,
    id: &str,
) -> rusqlite::Result<Option<Record>> {
    c.query_row(
        &format!("SELECT {COLUMNS} FROM auth_accounts WHERE namespace = ?1 AND id = ?2"),
        (namespace.as_str(), id),
        record_of,
    )
    .optional()
}

/// The account of this id, else the one of this name.
pub(crate) fn by_id_or_name(
    c: &Connection,
    namespace: &Namespace,
    text: &str,
) -> rusqlite::Result<Option<Record>> {
    if let Some(record) = by_id(c, namespace, text)? {
        return Ok(Some(record));
    }
    c.query_row(
        &format!("SELECT {COLUMNS} FROM auth_accounts WHERE namespace = ?1 AND name = ?2"),
        (namespace.as_str(), text),
        record_of,
    )
    .optional()
}

/// All accounts of a namespace by id.
pub(crate) fn list(c: &Connection, namespace: &Namespace) -> rusqlite::Result<Vec<Account>> {
    c.prepare(&format!(
        "SELECT {COLUMNS} FROM auth_accounts WHERE namespace = ?1 ORDER BY id"
    ))?
    .query_map([namespace.as_str()], |row| Ok(record_of(row)?.account))?
    .collect()
}

/// Whether there is an account of type `user` in `namespace`.
pub(crate) fn has_user(c: &Connection, namespace: &Namespace) -> rusqlite::Result<bool> {
    c.query_row(
        "SELECT EXISTS (SELECT 1 FROM auth_accounts WHERE namespace = ?1 AND kind = 'user')",
        [namespace.as_str()],
        |row| row.get(0),
    )
}

/// Whether somebody can log in to `micro` and administer the node.
pub(crate) fn has_administrator(c: &Connection) -> rusqlite::Result<bool> {
    Ok(list(c, &Namespace::operator())?.iter().any(administers))
}

fn administers(account: &Account) -> bool {
    account.kind == "user" && account.is_admin()
}

/// Whether an account like this could be added.
pub(crate) fn has_room(c: &Connection, account: &Account) -> Answer<()> {
    let namespace = account.issuer.as_str();
    if by_id(c, &account.issuer, account.id.as_str())?.is_some() {
        return Ok(Err(Error::AccountExists));
    }
    let named: bool = c.query_row(
        "SELECT EXISTS (SELECT 1 FROM auth_accounts WHERE namespace = ?1 AND name = ?2)",
        (namespace, &account.name),
        |row| row.get(0),
    )?;
    if named {
        return Ok(Err(Error::NameExists));
    }
    let count: u32 = c.query_row(
        "SELECT count(*) FROM auth_accounts WHERE namespace = ?1",
        [namespace],
        |row| row.get(0),
    )?;
    if count >= MOST_ACCOUNTS {
        return Ok(Err(Error::Full {
            what: "accounts",
            namespace: namespace.into(),
            limit: MOST_ACCOUNTS,
        }));
    }
    Ok(Ok(()))
}

/// Adds an account.
pub(crate) fn insert(tx: &Transaction<'_>, record: &Record) -> Answer<()> {
    if let Err(refused) = has_room(tx, &record.account)? {
        return Ok(Err(refused));
    }
    let account = &record.account;
    tx.execute(
        &format!(
            "INSERT INTO auth_accounts ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
        ),
        (
            account.issuer.as_str(),
            account.id.as_str(),
            &account.kind,
            &account.name,
            serde_json::to_string(&account.scopes).map_err(unwritable)?,
            serde_json::to_string(&account.metadata).map_err(unwritable)?,
            &record.hash,
            record.generation,
            record.turn,
            record.preset,
        ),
    )?;
    Ok(Ok(()))
}

/// Adds the first administrator of the node; refused when there is one.
pub(crate) fn insert_first(tx: &Transaction<'_>, record: &Record) -> Answer<()> {
    if has_administrator(tx)? {
        return Ok(Err(Error::AlreadyClaimed));
    }
    insert(tx, record)
}

/// Deletes an account with its refresh tokens and gives its generation.
pub(crate) fn delete(tx: &Transaction<'_>, namespace: &Namespace, id: &str) -> Answer<i64> {
    let Some(record) = by_id(tx, namespace, id)? else {
        return Ok(Err(Error::AccountNotFound));
    };
    if namespace.is_operator()
        && administers(&record.account)
        && !list(tx, namespace)?
            .iter()
            .any(|other| other.id != record.account.id && administers(other))
    {
        return Ok(Err(Error::LastAdministrator(id.into())));
    }
    tx.execute(
        "DELETE FROM auth_accounts WHERE namespace = ?1 AND id = ?2",
        (namespace.as_str(), id),
    )?;
    Ok(Ok(record.generation))
}

/// Deletes the default accounts whose secret is still the one that everybody knows.
pub(crate) fn delete_preset(tx: &Transaction<'_>) -> rusqlite::Result<usize> {
    tx.execute("DELETE FROM auth_accounts WHERE preset = 1", [])
}

/// Changes the secret of exactly this account, ends its refresh tokens and gives its new turn.
pub(crate) fn set_secret(tx: &Transaction<'_>, record: &Record, hash: &str) -> Answer<i64> {
    let (namespace, id) = (record.account.issuer.as_str(), record.account.id.as_str());
    let turn = tx
        .query_row(
            "UPDATE auth_accounts SET hash = ?4, turn = turn + 1, preset = 0
             WHERE namespace = ?1 AND id = ?2 AND generation = ?3 RETURNING turn",
            (namespace, id, record.generation, hash),
            |row| row.get(0),
        )
        .optional()?;
    let Some(turn) = turn else {
        return Ok(Err(Error::AccountNotFound));
    };
    tx.execute(
        "DELETE FROM auth_refresh WHERE namespace = ?1 AND account = ?2",
        (namespace, id),
    )?;
    Ok(Ok(turn))
}

/// Keeps the digest of a refresh token of exactly this account. Refused when its secret was changed
/// since it was checked.
pub(crate) fn add_refresh(
    tx: &Transaction<'_>,
    record: &Record,
    digest: &[u8; 32],
    now: Timestamp,
) -> Answer<()> {
    let (namespace, id) = (record.account.issuer.as_str(), record.account.id.as_str());
    match by_id(tx, &record.account.issuer, id)? {
        None => return Ok(Err(Error::AccountNotFound)),
        Some(current) if current.generation != record.generation || current.turn != record.turn => {
            return Ok(Err(Error::WrongSecret));
        }
        Some(_) => {}
    }
    tx.execute(
        "INSERT INTO auth_refresh (namespace, digest, account, used) VALUES (?1, ?2, ?3, ?4)",
        (namespace, digest, id, now.0),
    )?;
    tx.execute(
        "DELETE FROM auth_refresh WHERE namespace = ?1 AND account = ?2 AND digest NOT IN (
             SELECT digest FROM auth_refresh WHERE namespace = ?1 AND account = ?2
             ORDER BY used DESC, digest LIMIT ?3)",
        (namespace, id, MOST_REFRESH),
    )?;
    Ok(Ok(()))
}

/// Whose refresh token this is, and when it was last used.
pub(crate) fn by_refresh(
    c: &Connection,
    namespace: &Namespace,
    digest: &[u8; 32],
) -> rusqlite::Result<Option<(Record, Timestamp)>> {
    let found = c
        .query_row(
            "SELECT account, used FROM auth_refresh WHERE namespace = ?1 AND digest = ?2",
            (namespace.as_str(), digest),
            |row| Ok((row.get::<_, String>(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((id, used)) = found else {
        return Ok(None);
    };
    Ok(by_id(c, namespace, &id)?.map(|record| (record, Timestamp(used))))
}

/// Notes that a refresh token was used.
pub(crate) fn touch_refresh(
    tx: &Transaction<'_>,
    namespace: &Namespace,
    digest: &[u8; 32],
    now: Timestamp,
) -> rusqlite::Result<usize> {
    tx.execute(
        "UPDATE auth_refresh SET used = ?3 WHERE namespace = ?1 AND digest = ?2",
        (namespace.as_str(), digest, now.0),
    )
}
