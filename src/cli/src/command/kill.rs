//! `micro kill`.

use std::path::Path;

use micro_proto::runtime::{DeleteOptions, DeleteRequest, Resource, Service};
use serde_json::json;

use crate::{
    command::{name_and_version, print_help},
    command_line::Kill,
    context::Context,
    deploy::source,
    error::{Error, Result},
    session::Session,
};

/// Stops and removes services.
pub(crate) async fn run(context: &Context, args: Kill) -> Result<()> {
    let names: Vec<String> = args.name.into_iter().chain(args.names).collect();
    if names.is_empty() {
        return print_help("kill");
    }
    let session = Session::open(context).await?;
    let mut stopped = Vec::new();
    for name in &names {
        let (name, version) = target(name)?;
        let request = session.request(DeleteRequest {
            resource: Some(Resource {
                service: Some(Service {
                    name: name.clone(),
                    version: version.unwrap_or_else(|| "latest".into()),
                    ..Service::default()
                }),
                ..Resource::default()
            }),
            options: Some(DeleteOptions {
                namespace: session.namespace.to_string(),
            }),
        });
        let answer = session.runtime().delete(request).await;
        answer.map_err(|s| match session.failure(s) {
            // Micro's text alone does not say what was not found.
            Error::Refused(wire) if wire.detail == "not found" => Error::Failed {
                message: wire.detail,
                hint: Some(format!(
                    "no service {name} runs in namespace {}; `micro status` lists those that do",
                    session.namespace
                )),
                exit: 127,
            },
            other => other,
        })?;
        stopped.push(name);
    }
    if context.printer.is_json() {
        return context.printer.json(&json!({ "stopped": stopped }));
    }
    Ok(())
}

/// The service that a word of the command line means: a name, or a folder that is called like it.
pub(crate) fn target(word: &str) -> Result<(String, Option<String>)> {
    let (word, version) = name_and_version(word);
    let name = if word.contains('/') || matches!(word, "." | "..") {
        let path = Path::new(word);
        let full = std::fs::canonicalize(path).map_err(Error::file("find", path))?;
        source::name_from(&full.file_name().unwrap_or_default().to_string_lossy())?.0
    } else {
        word.to_owned()
    };
    Ok((name, version.map(str::to_owned)))
}
