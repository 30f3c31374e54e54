//! `broker.proto`

use std::collections::HashMap;

use tonic::codegen::Bytes;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PublishRequest {
    #[prost(string, tag = "1")]
    pub(crate) topic: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) message: Option<Message>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SubscribeRequest {
    #[prost(string, tag = "1")]
    pub(crate) topic: String,
    #[prost(string, tag = "2")]
    pub(crate) queue: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Message {
    #[prost(map = "string, string", tag = "1")]
    pub(crate) header: HashMap<String, String>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) body: Bytes,
}
