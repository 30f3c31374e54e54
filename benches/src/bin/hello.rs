//! The backend: tonic on one thread, with reflection. `hello --descriptors FILE` writes the
//! descriptor set for Envoy instead.
#![expect(clippy::print_stderr, reason = "a tool for the terminal")]

use std::error::Error;

use micro_benches::{
    DESCRIPTORS,
    helloworld::{Request, Response, helloworld_server},
};
use tonic::Status;

struct Hello;

#[tonic::async_trait]
impl helloworld_server::Helloworld for Hello {
    async fn call(
        &self,
        request: tonic::Request<Request>,
    ) -> Result<tonic::Response<Response>, Status> {
        let request = request.into_inner();
        Ok(tonic::Response::new(Response {
            msg: format!("Hello {}", request.name),
            count: request.count + 1,
            tags: request.tags,
        }))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, file] = args.as_slice()
        && flag == "--descriptors"
    {
        std::fs::write(file, DESCRIPTORS)?;
        return Ok(());
    }
    let port = std::env::var("PORT").unwrap_or_else(|_| "0".into());
    let address = format!("127.0.0.1:{port}").parse()?;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()?;
    eprintln!("listening on {address}");
    tonic::transport::Server::builder()
        .initial_stream_window_size(1 << 20)
        .add_service(helloworld_server::HelloworldServer::new(Hello))
        .add_service(reflection)
        .serve(address)
        .await?;
    Ok(())
}
