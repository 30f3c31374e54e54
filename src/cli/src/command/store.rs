//! `micro store`: the records of services. Output and messages are Micro's where Micro has the
//! command.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use micro_proto::store::{
    DatabasesRequest, DeleteOptions, DeleteRequest, ListOptions, ListRequest, ReadOptions,
    ReadRequest, Record, TablesRequest, WriteOptions, WriteRequest,
};
use serde::Serialize;
use tokio_stream::StreamExt as _;
use tonic::Request;

use crate::{
    amount,
    command_line::{StoreCommand, StoreDelete, StoreList, StoreRead, StoreTables, StoreWrite},
    context::Context,
    error::{Error, Result},
    input, line,
    printer::{Output, Printer},
    session::{DEADLINE, Session},
    table::{self, Padding},
};

mod watch;

/// Does what `micro store ...` says.
pub(crate) async fn run(context: &Context, command: StoreCommand) -> Result<()> {
    match command {
        StoreCommand::Read(args) => read(context, args).await,
        StoreCommand::Write(args) => write(context, args).await,
        StoreCommand::List(args) => list(context, args).await,
        StoreCommand::Delete(args) => delete(context, args).await,
        StoreCommand::Watch(args) => watch::run(context, args).await,
        StoreCommand::Databases(_) => databases(context).await,
        StoreCommand::Tables(args) => tables(context, args).await,
    }
}

/// Micro says what is missing in these words.
fn missing(message: &str, usage: &str) -> Error {
    Error::usage(message).with_hint(format!("write it like: {usage}"))
}

/// The database that is meant.
fn database(session: &Session, named: Option<String>) -> String {
    named.unwrap_or_else(|| session.namespace.to_string())
}

async fn read(context: &Context, args: StoreRead) -> Result<()> {
    let Some(key) = args.key else {
        return Err(missing("Key arg is required", "micro store read KEY"));
    };
    let session = Session::open(context).await?;
    let database = database(&session, args.table.database);
    let request = session.request(ReadRequest {
        key: key.clone(),
        options: Some(ReadOptions {
            database: database.clone(),
            table: args.table.table.clone(),
            prefix: args.prefix,
            suffix: args.suffix,
            limit: args.page.limit,
            offset: args.page.offset,
            order: args.page.order.map_or("", |o| o.word()).into(),
        }),
    });
    let answer = session.store().read(request).await;
    let answer = answer.map_err(|s| {
        let error = session.failure(s);
        let is_missing = error.is_not_found();
        let error = error.plainly();
        if is_missing {
            return error.with_hint(format!(
                "there is no record {key:?} in table {} of database {database}; `micro store list` shows the keys",
                args.table.table
            ));
        }
        error
    })?;
    print(context.printer, &answer.into_inner().records, args.verbose)
}

fn print(printer: Printer, records: &[Record], verbose: bool) -> Result<()> {
    match printer.output() {
        Output::Json => {
            let records: Vec<_> = records.iter().map(Shown::of).collect();
            two_spaces(printer, &records)
        }
        Output::Text if verbose => {
            let table = table::align(&rows(records), Padding::Spaces);
            printer.write(table.as_bytes())
        }
        Output::Text => records.iter().try_for_each(|record| {
            printer.write(&record.value)?;
            printer.write(b"\n")
        }),
        Output::Raw => records.iter().try_for_each(|r| printer.write(&r.value)),
    }
}

/// Micro indents the JSON of the store with spaces.
fn two_spaces(printer: Printer, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from)?;
    printer.line(&text)
}

/// A record as Micro shows it.
#[derive(Serialize)]
struct Shown<'a> {
    key: &'a str,
    /// Base64.
    value: String,
    metadata: BTreeMap<&'a str, Field<'a>>,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expiry: Option<i64>,
}

#[derive(Serialize)]
struct Field<'a> {
    r#type: &'a str,
    value: &'a str,
}

impl<'a> Shown<'a> {
    fn of(record: &'a Record) -> Self {
        let field = |f: &'a micro_proto::store::Field| Field {
            r#type: &f.r#type,
            value: &f.value,
        };
        Self {
            key: &record.key,
            value: STANDARD.encode(&record.value),
            metadata: record
                .metadata
                .iter()
                .map(|(name, f)| (name.as_str(), field(f)))
                .collect(),
            expiry: Some(record.expiry.saturating_mul(1_000_000_000)).filter(|e| *e != 0),
        }
    }
}

fn rows(records: &[Record]) -> String {
    let mut text = String::from("KEY \t VALUE \t EXPIRY\n");
    for record in records {
        let expiry = match record.expiry {
            0 => "None".into(),
            seconds => amount::from_now(seconds),
        };
        text.push_str(&format!(
            "{} \t {} \t {expiry}\n",
            line::cell(record.key.as_bytes()),
            line::cell(&record.value)
        ));
    }
    text
}

async fn write(context: &Context, args: StoreWrite) -> Result<()> {
    let (Some(key), false) = (args.key, args.value.is_empty()) else {
        return Err(missing(
            "Key and Value args are required",
            "micro store write KEY VALUE, where the VALUE - reads stdin",
        ));
    };
    let expiry = args.expiry.as_deref().map_or(Ok(0), expiry)?;
    let value = input::bytes(&args.value)?;
    let session = Session::open(context).await?;
    let request = session.request(WriteRequest {
        record: Some(Record {
            key,
            value,
            expiry,
            ..Record::default()
        }),
        options: Some(WriteOptions {
            database: database(&session, args.table.database),
            table: args.table.table,
        }),
    });
    let answer = session.store().write(request).await;
    answer.map_err(|s| session.failure(s).plainly())?;
    Ok(())
}

/// Seconds, of which there is at least one: a record that ends soon must not be there for ever.
fn expiry(text: &str) -> Result<i64> {
    let bad = || {
        Error::usage(format!(
            "Expiry flag is invalid: {text:?} is no length of time"
        ))
        .with_hint("write it like 30s, 1h30m or 7d")
    };
    let span = amount::duration(text).ok_or_else(bad)?;
    let up = u64::from(span.subsec_nanos() > 0);
    i64::try_from(span.as_secs().saturating_add(up)).map_err(|_| bad())
}

async fn list(context: &Context, args: StoreList) -> Result<()> {
    if let (Some(part), false, false) = (&args.part, args.prefix, args.suffix) {
        return Err(Error::usage(format!(
            "{part:?} may be the beginning or the end of the keys"
        ))
        .with_hint(format!("micro store list --prefix {part}")));
    }
    let part = args.part.unwrap_or_default();
    let only = |wanted: bool| if wanted { part.clone() } else { String::new() };
    let session = Session::open(context).await?;
    let ask = ListRequest {
        options: Some(ListOptions {
            database: database(&session, args.table.database),
            table: args.table.table,
            prefix: only(args.prefix),
            suffix: only(args.suffix),
            limit: args.page.limit,
            offset: args.page.offset,
            order: args.page.order.map_or("", |o| o.word()).into(),
        }),
    };
    // The stream stays open on our side, as Micro's does: the server ends it.
    let mut request = Request::new(tokio_stream::once(ask).chain(tokio_stream::pending()));
    request.set_timeout(DEADLINE);
    let failed = |s| session.failure(s).plainly();
    let mut answers = session
        .store()
        .list(request)
        .await
        .map_err(failed)?
        .into_inner();
    let mut keys = Vec::new();
    while let Some(answer) = answers.message().await.map_err(failed)? {
        keys.extend(answer.keys);
    }
    if context.printer.is_json() {
        return two_spaces(context.printer, &keys);
    }
    lines(context.printer, &keys)
}

async fn delete(context: &Context, args: StoreDelete) -> Result<()> {
    let Some(key) = args.key else {
        return Err(missing("Key is required", "micro store delete KEY"));
    };
    let session = Session::open(context).await?;
    let request = session.request(DeleteRequest {
        key,
        options: Some(DeleteOptions {
            database: database(&session, args.table.database),
            table: args.table.table,
        }),
    });
    let answer = session.store().delete(request).await;
    answer.map_err(|s| session.failure(s).plainly())?;
    Ok(())
}

async fn databases(context: &Context) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(DatabasesRequest {});
    let answer = session.store().databases(request).await;
    let answer = answer.map_err(|s| session.failure(s).plainly())?;
    names(context.printer, &answer.into_inner().databases)
}

async fn tables(context: &Context, args: StoreTables) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(TablesRequest {
        database: database(&session, args.database),
    });
    let answer = session.store().tables(request).await;
    let answer = answer.map_err(|s| session.failure(s).plainly())?;
    names(context.printer, &answer.into_inner().tables)
}

fn names(printer: Printer, names: &[String]) -> Result<()> {
    if printer.is_json() {
        return printer.json(&names);
    }
    lines(printer, names)
}

fn lines(printer: Printer, names: &[String]) -> Result<()> {
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    printer.write(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8], expiry: i64) -> Record {
        Record {
            key: key.into(),
            value: value.into(),
            expiry,
            ..Record::default()
        }
    }

    #[test]
    fn the_verbose_table_is_micros() {
        let records = [
            record("a", b"val1", 0),
            record("longer", b"two\nlines", 90),
            record("binary", b"\xff", 7200),
        ];
        assert_eq!(
            table::align(&rows(&records), Padding::Spaces),
            concat!(
                "KEY      VALUE        EXPIRY\n",
                "a        val1         None\n",
                "longer   two\\nlines   1 minute from now\n",
                "binary   0xff         2 hours from now\n",
            )
        );
    }

    #[test]
    fn json_is_that_of_micros_record() {
        let mut shown = record("k", b"v", 3);
        assert_eq!(
            serde_json::to_string(&Shown::of(&shown)).unwrap(),
            r#"{"key":"k","value":"dg==","metadata":{},"expiry":3000000000}"#
        );
        shown.expiry = 0;
        let field = micro_proto::store::Field {
            r#type: "string".into(),
            value: "x".into(),
        };
        shown.metadata.insert("m".into(), field);
        assert_eq!(
            serde_json::to_string(&Shown::of(&shown)).unwrap(),
            r#"{"key":"k","value":"dg==","metadata":{"m":{"type":"string","value":"x"}}}"#
        );
    }

    #[test]
    fn a_short_expiry_is_not_none() {
        assert_eq!(expiry("300ms").unwrap(), 1);
        assert_eq!(expiry("1h30m").unwrap(), 5400);
        assert_eq!(expiry("0").unwrap(), 0);
        assert!(
            expiry("soon")
                .unwrap_err()
                .to_string()
                .starts_with("Expiry flag is invalid")
        );
    }
}
