//! What the benchmarks share. Who takes part and the order of the rounds are in
//! `xtask/src/bench.rs`.
//!
//! | file | owns |
//! |---|---|
//! | `bin/hello.rs` | the backend behind gateway and mesh |
//! | `bin/load.rs` | calls to it, by HTTP or gRPC |
//! | `contender.rs` | puts, gets and publishes on Micro, redis, etcd and NATS |
//! | `bin/state.rs` | work for those |

pub mod contender;

/// Generated from `hello.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod helloworld {
    tonic::include_proto!("helloworld");
}

/// Generated from `etcd.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod etcdserverpb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

/// A serialised descriptor set of `hello.proto`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello.fds"));

/// A request of about 43 bytes of JSON, or of about `bytes` when that is more.
pub fn request(bytes: usize) -> helloworld::Request {
    let tags = if bytes <= 64 {
        vec!["a".to_owned(), "b".to_owned()]
    } else {
        (0..bytes / 32).map(|i| format!("tag-{i:027}")).collect()
    };
    helloworld::Request {
        name: "John".into(),
        count: 41,
        tags,
    }
}

/// The same request as JSON.
pub fn json(request: &helloworld::Request) -> String {
    serde_json::json!({ "name": request.name, "count": request.count, "tags": request.tags })
        .to_string()
}
