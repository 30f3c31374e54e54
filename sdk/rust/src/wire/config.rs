//! `config.proto`

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Value {
    #[prost(string, tag = "1")]
    pub(crate) data: String,
    #[prost(string, tag = "2")]
    pub(crate) format: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Options {
    #[prost(bool, tag = "1")]
    pub(crate) secret: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SetRequest {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) value: Option<Value>,
    #[prost(message, optional, tag = "4")]
    pub(crate) options: Option<Options>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SetResponse {
    #[prost(uint64, tag = "15")]
    pub(crate) version: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteRequest {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteResponse {
    #[prost(uint64, tag = "15")]
    pub(crate) version: u64,
}

/// The question of `Get` and of `Watch`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GetRequest {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) options: Option<Options>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GetResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) value: Option<Value>,
    #[prost(uint64, tag = "2")]
    pub(crate) version: u64,
}
