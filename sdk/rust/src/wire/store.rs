//! `store.proto`

use tonic::codegen::Bytes;

// The metadata of records is left out: values here carry their own.

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Record {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
    #[prost(int64, tag = "3")]
    pub(crate) expiry: i64,
    #[prost(uint64, tag = "15")]
    pub(crate) revision: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadOptions {
    #[prost(string, tag = "1")]
    pub(crate) database: String,
    #[prost(string, tag = "2")]
    pub(crate) table: String,
    #[prost(bool, tag = "3")]
    pub(crate) prefix: bool,
    #[prost(bool, tag = "4")]
    pub(crate) suffix: bool,
    #[prost(uint64, tag = "5")]
    pub(crate) limit: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) offset: u64,
    #[prost(string, tag = "7")]
    pub(crate) order: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadRequest {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<ReadOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) records: Vec<Record>,
}

/// The options of `Write` and of `Delete`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WriteOptions {
    #[prost(string, tag = "1")]
    pub(crate) database: String,
    #[prost(string, tag = "2")]
    pub(crate) table: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WriteRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) record: Option<Record>,
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<WriteOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WriteResponse {
    #[prost(uint64, tag = "15")]
    pub(crate) revision: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteRequest {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<WriteOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteResponse {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListOptions {
    #[prost(string, tag = "1")]
    pub(crate) database: String,
    #[prost(string, tag = "2")]
    pub(crate) table: String,
    #[prost(string, tag = "3")]
    pub(crate) prefix: String,
    #[prost(string, tag = "4")]
    pub(crate) suffix: String,
    #[prost(uint64, tag = "5")]
    pub(crate) limit: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) offset: u64,
    #[prost(string, tag = "7")]
    pub(crate) order: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) options: Option<ListOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListResponse {
    #[prost(string, repeated, tag = "2")]
    pub(crate) keys: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CommitRequest {
    #[prost(string, tag = "1")]
    pub(crate) database: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) operations: Vec<Operation>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Operation {
    #[prost(string, tag = "1")]
    pub(crate) table: String,
    #[prost(oneof = "Change", tags = "2, 3, 7")]
    pub(crate) change: Option<Change>,
    #[prost(oneof = "Condition", tags = "4, 5, 6")]
    pub(crate) condition: Option<Condition>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Change {
    #[prost(message, tag = "2")]
    Write(Record),
    #[prost(string, tag = "3")]
    Delete(String),
    #[prost(string, tag = "7")]
    Check(String),
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
pub(crate) enum Condition {
    #[prost(bool, tag = "4")]
    Absent(bool),
    #[prost(bool, tag = "5")]
    Present(bool),
    #[prost(uint64, tag = "6")]
    Revision(u64),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CommitResponse {
    #[prost(uint64, tag = "1")]
    pub(crate) revision: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchRequest {
    #[prost(string, tag = "1")]
    pub(crate) database: String,
    #[prost(string, tag = "2")]
    pub(crate) table: String,
    #[prost(string, tag = "3")]
    pub(crate) prefix: String,
    #[prost(bool, tag = "4")]
    pub(crate) changes_only: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchResponse {
    #[prost(enumeration = "Kind", tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) record: Option<Record>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Kind {
    Written = 0,
    Deleted = 1,
    Current = 2,
    Reset = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobOptions {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(bool, tag = "2")]
    pub(crate) public: bool,
    #[prost(string, tag = "3")]
    pub(crate) content_type: String,
}

/// The question of `Read` and of `Delete`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobRequest {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<BlobOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobReadResponse {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) blob: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobWriteRequest {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<BlobOptions>,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) blob: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobWriteResponse {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobDeleteResponse {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobListOptions {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(string, tag = "2")]
    pub(crate) prefix: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobListRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) options: Option<BlobListOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobListResponse {
    #[prost(string, repeated, tag = "1")]
    pub(crate) keys: Vec<String>,
    #[prost(message, repeated, tag = "15")]
    pub(crate) blobs: Vec<BlobInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobInfo {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(uint64, tag = "2")]
    pub(crate) size: u64,
    #[prost(string, tag = "3")]
    pub(crate) content_type: String,
    #[prost(bool, tag = "4")]
    pub(crate) public: bool,
    #[prost(int64, tag = "5")]
    pub(crate) modified: i64,
}
