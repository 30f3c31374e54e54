//! `micro blob`: files in and out, as streams.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use indicatif::HumanBytes;
use jiff::Timestamp;
use micro_proto::store::{
    BlobDeleteRequest, BlobInfo, BlobListOptions, BlobListRequest, BlobOptions, BlobReadRequest,
    BlobReadResponse, BlobWriteRequest,
};
use serde_json::json;
use tokio_stream::StreamExt as _;
use tonic::{Request, Streaming};

use crate::{
    command_line::{BlobCommand, BlobList, BlobRead, BlobWrite},
    context::Context,
    error::{Error, Result},
    feed::{self, Pieces},
    input, line,
    printer::Printer,
    session::Session,
    table::{self, Padding},
};

/// Does what `micro blob ...` says.
pub(crate) async fn run(context: &Context, command: BlobCommand) -> Result<()> {
    match command {
        BlobCommand::Write(args) => write(context, args).await,
        BlobCommand::Read(args) => read(context, args).await,
        BlobCommand::List(args) => list(context, args).await,
        BlobCommand::Delete { key } => delete(context, key).await,
    }
}

fn options(session: &Session) -> BlobOptions {
    BlobOptions {
        namespace: session.namespace.to_string(),
        ..BlobOptions::default()
    }
}

/// There is no such blob, and how to find those there are.
fn not_found(error: Error, key: &str) -> Error {
    if error.is_not_found() {
        return error.plainly().with_hint(format!(
            "there is no blob {key:?} in this namespace; `micro blob list` shows the keys"
        ));
    }
    error
}

async fn write(context: &Context, args: BlobWrite) -> Result<()> {
    // The file first: a wrong name should not need a server to be found.
    let (mut source, bytes) = source(&args.file)?;
    let session = Session::open(context).await?;
    let mut first = Some(BlobWriteRequest {
        key: args.key,
        options: Some(BlobOptions {
            public: args.public,
            content_type: args.content_type,
            ..options(&session)
        }),
        blob: Vec::new(),
    });
    let bar = feed::progress(context.printer, bytes.unwrap_or(0));
    if bytes.is_none() {
        bar.finish_and_clear();
    }
    let (sent, file) = (bar.clone(), args.file);
    let mut client = session.blobs();
    let answer = feed::feed(
        move |sender| {
            if let Some(first) = first.take()
                && sender.blocking_send(first).is_err()
            {
                return Ok(());
            }
            let mut pieces = Pieces::new(sender, |blob| BlobWriteRequest {
                blob,
                ..BlobWriteRequest::default()
            });
            let mut buffer = vec![0; feed::PIECE];
            loop {
                let count = match source.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(Error::file("read", &file)(e)),
                };
                pieces.write_all(buffer.get(..count).unwrap_or(&buffer))?;
                sent.inc(count as u64);
            }
            pieces.flush()?;
            Ok(())
        },
        async |messages| client.write(Request::new(messages)).await,
    )
    .await?;
    bar.finish_and_clear();
    answer.map_err(|s| session.failure(s))?;
    Ok(())
}

/// What is to be stored, and how much it is if that is known.
fn source(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>)> {
    if input::is_standard(path.as_os_str()) {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path).map_err(Error::file("read", path))?;
    let about = file.metadata().map_err(Error::file("read", path))?;
    if about.is_dir() {
        return Err(
            Error::usage(format!("{} is a folder", path.display())).with_hint(
                "store its files one by one, or pack it: tar c FOLDER | micro blob write KEY -",
            ),
        );
    }
    let bytes = about.is_file().then_some(about.len());
    Ok((Box::new(file), bytes))
}

async fn read(context: &Context, args: BlobRead) -> Result<()> {
    let file = args
        .file
        .filter(|file| !input::is_standard(file.as_os_str()));
    if let Some(file) = &file
        && file.is_dir()
    {
        return Err(Error::usage(format!("{} is a folder", file.display()))
            .with_hint("name the file that the blob shall be written to"));
    }
    let session = Session::open(context).await?;
    let ask = BlobReadRequest {
        key: args.key.clone(),
        options: Some(options(&session)),
    };
    let asks = tokio_stream::once(ask).chain(tokio_stream::pending());
    let answer = session.blobs().read(Request::new(asks)).await;
    let answer = answer.map_err(|s| not_found(session.failure(s), &args.key))?;
    let mut pieces = Content {
        pieces: answer.into_inner(),
        session: &session,
        key: &args.key,
    };
    match file {
        Some(file) => into_file(&mut pieces, &file).await,
        None => into_stdout(&mut pieces, context.printer).await,
    }
}

/// The pieces of a blob as they come.
struct Content<'a> {
    pieces: Streaming<BlobReadResponse>,
    session: &'a Session,
    key: &'a str,
}

impl Content<'_> {
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let piece = self.pieces.message().await;
        let piece = piece.map_err(|s| not_found(self.session.failure(s), self.key))?;
        Ok(piece.map(|piece| piece.blob))
    }
}

async fn into_stdout(content: &mut Content<'_>, printer: Printer) -> Result<()> {
    let mut is_first = printer.is_screen();
    while let Some(piece) = content.next().await? {
        if std::mem::take(&mut is_first) && !is_readable(&piece) {
            return Err(Error::usage(format!(
                "the blob {:?} is no text, which a terminal cannot show",
                content.key
            ))
            .with_hint(format!("micro blob read {} FILE", content.key)));
        }
        printer.write(&piece)?;
    }
    Ok(())
}

/// Whether a terminal can show what begins like this; a character may be cut off at its end.
fn is_readable(piece: &[u8]) -> bool {
    let is_text = match std::str::from_utf8(piece) {
        Ok(_) => true,
        Err(e) => e.error_len().is_none(),
    };
    is_text && !piece.contains(&0) && !piece.contains(&0x1b)
}

/// Writes a file that is whole or not there; what is no ordinary file is written to as it is.
async fn into_file(content: &mut Content<'_>, path: &Path) -> Result<()> {
    let is_special = path.exists() && !path.is_file();
    if is_special {
        let mut file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(Error::file("write", path))?;
        return copy(content, &mut file, path).await;
    }
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let part = beside(&target);
    let mut file = File::create_new(&part).map_err(Error::file("create", &part))?;
    let done = match copy(content, &mut file, &part).await {
        Ok(()) => fs::rename(&part, &target).map_err(Error::file("replace", &target)),
        Err(e) => Err(e),
    };
    if done.is_err() {
        // What was there before is untouched; only the half-made file goes.
        let _ = fs::remove_file(&part);
    }
    done
}

async fn copy(content: &mut Content<'_>, file: &mut File, path: &Path) -> Result<()> {
    while let Some(piece) = content.next().await? {
        file.write_all(&piece).map_err(Error::file("write", path))?;
    }
    Ok(())
}

fn beside(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    target.with_file_name(name)
}

async fn list(context: &Context, args: BlobList) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(BlobListRequest {
        options: Some(BlobListOptions {
            namespace: session.namespace.to_string(),
            prefix: args.prefix,
        }),
    });
    let answer = session.blobs().list(request).await;
    let found = answer.map_err(|s| session.failure(s))?.into_inner();
    if context.printer.is_json() {
        let rows: Vec<_> = found.blobs.iter().map(shown).collect();
        return context.printer.json(&rows);
    }
    if args.verbose {
        let table = table::align(&rows(&found.blobs), Padding::Spaces);
        return context.printer.write(table.as_bytes());
    }
    let text: String = found.keys.iter().map(|key| format!("{key}\n")).collect();
    context.printer.write(text.as_bytes())
}

fn shown(blob: &BlobInfo) -> serde_json::Value {
    json!({
        "key": blob.key,
        "size": blob.size,
        "content_type": blob.content_type,
        "public": blob.public,
        "modified": time(blob.modified),
    })
}

fn rows(blobs: &[BlobInfo]) -> String {
    let mut text = String::from("KEY\tSIZE\tTYPE\tPUBLIC\tMODIFIED\n");
    for blob in blobs {
        text.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\n",
            line::cell(blob.key.as_bytes()),
            HumanBytes(blob.size),
            line::short(&blob.content_type),
            if blob.public { "yes" } else { "no" },
            time(blob.modified).map_or_else(|| "n/a".into(), |t| t.to_string()),
        ));
    }
    text
}

fn time(seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(seconds).ok()
}

async fn delete(context: &Context, key: String) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(BlobDeleteRequest {
        key,
        options: Some(options(&session)),
    });
    let answer = session.blobs().delete(request).await;
    answer.map_err(|s| session.failure(s))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_is_for_terminals() {
        assert!(is_readable(b"plain\ttext\n"));
        assert!(is_readable("gr\u{fc}n".as_bytes()));
        assert!(
            is_readable(&"gr\u{fc}n".as_bytes()[..3]),
            "cut in the middle"
        );
        assert!(!is_readable(b"\x89PNG\r\n"));
        assert!(!is_readable(b"a\0b"));
        assert!(!is_readable(b"\x1b[2J"));
    }

    #[test]
    fn the_table_tells_what_each_blob_is() {
        let blob = BlobInfo {
            key: "logo.png".into(),
            size: 2048,
            content_type: "image/png".into(),
            public: true,
            modified: 1_700_000_000,
        };
        assert_eq!(
            table::align(&rows(&[blob]), Padding::Spaces),
            concat!(
                "KEY      SIZE     TYPE      PUBLIC MODIFIED\n",
                "logo.png 2.00 KiB image/png yes    2023-11-14T22:13:20Z\n",
            )
        );
    }
}
