//! The service that the black-box tests deploy prebuilt, written with the service library as an
//! outsider would.

use micro_sdk::{BoxStream, Code, Request, Response, Service, Status, async_trait, tokio_stream};

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod helloworld {
    micro_sdk::include_proto!("helloworld");
}

use helloworld::{
    EchoMessage, FailRequest, Request as Name, Response as Greeting, StreamRequest, StreamResponse,
    helloworld_server::{Helloworld, HelloworldServer},
};

struct Echo;

#[async_trait]
impl Helloworld for Echo {
    async fn call(&self, request: Request<Name>) -> Result<Response<Greeting>, Status> {
        Ok(Response::new(Greeting {
            msg: format!("Hello {}", request.into_inner().name),
        }))
    }

    type StreamStream = BoxStream<StreamResponse>;

    async fn stream(
        &self,
        request: Request<StreamRequest>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let count = request.into_inner().count;
        let messages = (1..=count).map(|count| Ok(StreamResponse { count }));
        Ok(Response::new(Box::pin(tokio_stream::iter(
            messages.collect::<Vec<_>>(),
        ))))
    }

    async fn echo(&self, request: Request<EchoMessage>) -> Result<Response<EchoMessage>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn fail(&self, request: Request<FailRequest>) -> Result<Response<Greeting>, Status> {
        let FailRequest { code, detail } = request.into_inner();
        let object = format!(r#"{{"id":"greeter","code":{code},"detail":"{detail}","status":""}}"#);
        Err(Status::new(Code::Unknown, object))
    }
}

#[tokio::main]
async fn main() -> Result<(), micro_sdk::Error> {
    Service::new("greeter")
        .descriptors(helloworld::FILE_DESCRIPTOR_SET)
        .add(HelloworldServer::new(Echo))
        .run()
        .await
}
