//! Greets by name, and counts.

use micro_sdk::{BoxStream, Error, Request, Response, Service, Status, async_trait, tokio_stream};

use helloworld::helloworld_server::{Helloworld, HelloworldServer};

mod helloworld {
    micro_sdk::include_proto!("helloworld");
}

struct Greeter;

#[async_trait]
impl Helloworld for Greeter {
    async fn call(
        &self,
        request: Request<helloworld::Request>,
    ) -> Result<Response<helloworld::Response>, Status> {
        let msg = format!("Hello {}", request.into_inner().name);
        Ok(Response::new(helloworld::Response { msg }))
    }

    type StreamStream = BoxStream<helloworld::StreamResponse>;

    async fn stream(
        &self,
        request: Request<helloworld::StreamRequest>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let counts = 1..=request.into_inner().count;
        let answers = counts.map(|count| Ok(helloworld::StreamResponse { count }));
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    Service::new("helloworld")
        .descriptors(helloworld::FILE_DESCRIPTOR_SET)
        .add(HelloworldServer::new(Greeter))
        .run()
        .await
}
