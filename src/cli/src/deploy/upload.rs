//! Sends a packed source to the server while it is being packed.

use micro_proto::runtime::{Service, UploadRequest};
use tonic::Request;

use crate::{
    deploy::pack::{self, Plan},
    error::{Error, Result},
    feed::{self, Pieces},
    printer::Printer,
    session::Session,
};

/// Uploads and gives what to name as the source of a deployment.
///
/// # Errors
/// When the source cannot be read or the server refuses it.
pub(crate) async fn upload(
    session: &Session,
    printer: Printer,
    plan: Plan,
    service: Service,
) -> Result<String> {
    let bar = feed::progress(printer, plan.bytes);
    let packed = bar.clone();
    let mut client = session.source();
    let answer = feed::feed(
        move |sender| {
            let first = UploadRequest {
                service: Some(service),
                data: Vec::new(),
            };
            if sender.blocking_send(first).is_err() {
                return Ok(());
            }
            let pieces = Pieces::new(sender, |data| UploadRequest {
                service: None,
                data,
            });
            pack::write(&plan, pieces, |n| packed.inc(n))
        },
        async |messages| client.upload(Request::new(messages)).await,
    )
    .await?;
    bar.finish_and_clear();
    let id = answer.map_err(|s| session.failure(s))?.into_inner().id;
    if id.is_empty() {
        return Err(Error::failed("the server gave the upload no name"));
    }
    Ok(id)
}
