//! `micro store watch`: one line for each change, through restarts of the server.
//!
//! What changed while there was no connection is found by reading the records again and leaving out
//! those whose revision was seen; only deletions of that time cannot be found.

use micro_proto::store::{Record, WatchRequest, watch_response::Kind};
use tokio_stream::StreamExt as _;
use tonic::Request;

use crate::{
    command_line::StoreWatch,
    context::Context,
    error::{Error, Result},
    line::{self, Object},
    patience::{self, Patience},
    printer::{Output, Printer},
    session::Session,
};

/// Prints changes until it is interrupted.
pub(super) async fn run(context: &Context, args: StoreWatch) -> Result<()> {
    let mut watcher = Watcher {
        printer: context.printer,
        args,
        seen: 0,
    };
    tokio::select! {
        biased;
        () = patience::interrupted() => Ok(()),
        ended = watcher.follow(context) => ended.map_err(Error::plainly),
    }
}

struct Watcher {
    printer: Printer,
    args: StoreWatch,
    /// The newest revision that was printed.
    seen: u64,
}

impl Watcher {
    async fn follow(&mut self, context: &Context) -> Result<()> {
        let mut patience = Patience::new(self.printer);
        loop {
            let ended = self.connection(context, &mut patience).await;
            let error = ended.err().unwrap_or_else(patience::ended);
            patience.wait(error).await?;
        }
    }

    /// Prints what one connection brings.
    async fn connection(&mut self, context: &Context, patience: &mut Patience) -> Result<()> {
        let session = Session::open(context).await?;
        let failed = |status| session.failure(status);
        // Without a revision to compare with, everything would look new.
        let changes_only = self.seen == 0 && !self.args.all;
        let database = &self.args.table.database;
        let ask = WatchRequest {
            database: super::database(&session, database.clone()),
            table: self.args.table.table.clone(),
            prefix: self.args.prefix.clone(),
            changes_only,
        };
        let asks = tokio_stream::once(ask).chain(tokio_stream::pending());
        let answer = session.store().watch(Request::new(asks)).await;
        let mut answers = answer.map_err(failed)?.into_inner();
        patience.connected();
        let mut known = self.seen;
        let mut newest = 0;
        let mut is_change = changes_only;
        while let Some(answer) = answers.message().await.map_err(failed)? {
            let kind = answer.kind();
            let record = answer.record.unwrap_or_default();
            match kind {
                Kind::Current => {
                    // Records came in the order of their keys: only now none of them is missing.
                    self.seen = self.seen.max(newest);
                    is_change = true;
                }
                Kind::Reset => {
                    self.printer
                        .note("some changes came too fast; deletions among them are not shown");
                    known = self.seen;
                    is_change = false;
                }
                Kind::Written | Kind::Deleted => {
                    if is_change || record.revision > known {
                        self.print(kind, &record)?;
                    }
                    newest = newest.max(record.revision);
                    if is_change {
                        self.seen = self.seen.max(record.revision);
                    }
                }
            }
        }
        Ok(())
    }

    fn print(&self, kind: Kind, record: &Record) -> Result<()> {
        let is_written = kind == Kind::Written;
        match self.printer.output() {
            Output::Json => self.printer.line(&json(is_written, record)),
            Output::Raw if is_written => self.printer.write(&record.value),
            Output::Raw => Ok(()),
            Output::Text => self.printer.line(&text(is_written, record)),
        }
    }
}

fn text(is_written: bool, record: &Record) -> String {
    let key = line::cell(record.key.as_bytes());
    if is_written {
        format!("written\t{key}\t{}", line::whole(&record.value))
    } else {
        format!("deleted\t{key}")
    }
}

fn json(is_written: bool, record: &Record) -> String {
    let change = if is_written { "written" } else { "deleted" };
    let mut object = Object::new()
        .with("change", change)
        .with("key", &record.key)
        .with("revision", record.revision);
    if is_written {
        object = object.with_bytes("value", &record.value);
        if record.expiry != 0 {
            object = object.with("expiry_seconds", record.expiry);
        }
    }
    object.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_lines() {
        let record = Record {
            key: "user/1".into(),
            value: b"{\"a\":1}".to_vec(),
            revision: 7,
            ..Record::default()
        };
        assert_eq!(text(true, &record), "written\tuser/1\t{\"a\":1}");
        assert_eq!(text(false, &record), "deleted\tuser/1");
        assert_eq!(
            json(true, &record),
            r#"{"change":"written","key":"user/1","revision":7,"value":{"a":1}}"#
        );
        assert_eq!(
            json(false, &record),
            r#"{"change":"deleted","key":"user/1","revision":7}"#
        );
    }
}
