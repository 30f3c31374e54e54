//! `events.proto`

use std::collections::HashMap;

use tonic::codegen::Bytes;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PublishRequest {
    #[prost(string, tag = "1")]
    pub(crate) topic: String,
    #[prost(map = "string, string", tag = "2")]
    pub(crate) metadata: HashMap<String, String>,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) payload: Bytes,
    #[prost(int64, tag = "4")]
    pub(crate) timestamp: i64,
    #[prost(string, tag = "15")]
    pub(crate) namespace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PublishResponse {
    #[prost(string, tag = "15")]
    pub(crate) id: String,
    #[prost(uint64, tag = "16")]
    pub(crate) offset: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PublishBatchRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) events: Vec<PublishRequest>,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PublishBatchResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) events: Vec<PublishResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConsumeRequest {
    #[prost(string, tag = "1")]
    pub(crate) group: String,
    #[prost(string, tag = "2")]
    pub(crate) topic: String,
    #[prost(int64, tag = "3")]
    pub(crate) offset: i64,
    #[prost(bool, tag = "4")]
    pub(crate) auto_ack: bool,
    #[prost(int64, tag = "5")]
    pub(crate) ack_wait: i64,
    #[prost(int64, tag = "6")]
    pub(crate) retry_limit: i64,
    #[prost(uint64, optional, tag = "15")]
    pub(crate) from: Option<u64>,
    #[prost(uint32, tag = "16")]
    pub(crate) in_flight: u32,
    #[prost(string, tag = "17")]
    pub(crate) namespace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Event {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) topic: String,
    #[prost(map = "string, string", tag = "3")]
    pub(crate) metadata: HashMap<String, String>,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) payload: Bytes,
    #[prost(int64, tag = "5")]
    pub(crate) timestamp: i64,
    #[prost(uint64, tag = "15")]
    pub(crate) offset: u64,
    #[prost(uint32, tag = "16")]
    pub(crate) delivery: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AckRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bool, tag = "2")]
    pub(crate) success: bool,
}
