//! `micro services`.

use micro_proto::registry::{ListRequest, Options};
use serde_json::json;

use crate::{context::Context, error::Result, session::Session};

/// Lists what is registered, one line for each version.
pub(crate) async fn run(context: &Context) -> Result<()> {
    let session = Session::open(context).await?;
    let request = session.request(ListRequest {
        options: Some(Options {
            domain: session.namespace.to_string(),
            ..Options::default()
        }),
    });
    let answer = session.registry().list_services(request).await;
    let mut services = answer
        .map_err(|s| session.failure(s))?
        .into_inner()
        .services;
    services.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    if context.printer.is_json() {
        let rows: Vec<_> = services
            .iter()
            .map(|s| {
                json!({
                    "name": s.name,
                    "version": s.version,
                    "nodes": s.nodes.len(),
                    "endpoints": s.endpoints.iter().map(|e| &e.name).collect::<Vec<_>>(),
                })
            })
            .collect();
        return context.printer.json(&rows);
    }
    let text: String = services.iter().map(|s| format!("{}\n", s.name)).collect();
    context.printer.write(text.as_bytes())
}
