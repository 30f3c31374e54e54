//! The generated messages, servers and clients of `proto/`, their descriptor set, and the one
//! conversion between our faults and gRPC statuses. No behaviour of services lives here.

/// Accounts, tokens and rules.
pub mod auth {
    #![allow(
        missing_docs,
        clippy::all,
        unused_qualifications,
        unreachable_pub,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::unwrap_used
    )]
    tonic::include_proto!("auth");
}

/// Messages to whoever listens now.
pub mod broker {
    #![allow(
        missing_docs,
        clippy::all,
        unused_qualifications,
        unreachable_pub,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::unwrap_used
    )]
    tonic::include_proto!("broker");
}

/// Documents of settings and secrets.
pub mod config {
    #![allow(
        missing_docs,
        clippy::all,
        unused_qualifications,
        unreachable_pub,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::unwrap_used
    )]
    tonic::include_proto!("config");
}

/// Durable streams and their consumers.
pub mod events {
    #![allow(
        missing_docs,
        clippy::all,
        unused_qualifications,
        unreachable_pub,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::unwrap_used
    )]
    tonic::include_proto!("events");
}

/// Services, nodes and endpoints.
pub mod registry {
    #![allow(
        missing_docs,
        clippy::all,
        unused_qualifications,
        unreachable_pub,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::unwrap_used
    )]
    tonic::include_proto!("registry");
}

/// Deployments, sources, builds and logs.
pub mod runtime {
    #![allow(
        missing_docs,
        clippy::all,
        unused_qualifications,
        unreachable_pub,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::unwrap_used
    )]
    tonic::include_proto!("runtime");
}

/// Records by key, and blobs.
pub mod store {
    #![allow(
        missing_docs,
        clippy::all,
        unused_qualifications,
        unreachable_pub,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::unwrap_used
    )]
    tonic::include_proto!("store");
}

pub mod status;

/// A serialised `google.protobuf.FileDescriptorSet` of everything in `proto/`, comments included.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/micro.fds"));
