//! The generated messages, servers and clients of `proto/`, their descriptor set, and the one
//! conversion between our faults and gRPC statuses. No behaviour of services lives here.

/// A module for each package of `proto/`. The lints are ours, the code is not.
macro_rules! packages {
    ($(#[$doc:meta] $name:ident = $package:literal;)*) => {$(
        #[$doc]
        pub mod $name {
            #![allow(
                missing_docs,
                clippy::all,
                unused_qualifications,
                unreachable_pub,
                clippy::allow_attributes,
                clippy::allow_attributes_without_reason,
                clippy::unwrap_used
            )]
            tonic::include_proto!($package);
        }
    )*};
}

packages! {
    /// Accounts, tokens and rules.
    auth = "auth";
    /// Messages to whoever listens now.
    broker = "broker";
    /// Documents of settings and secrets.
    config = "config";
    /// Durable streams and their consumers.
    events = "events";
    /// Services, nodes and endpoints.
    registry = "registry";
    /// Deployments, sources, builds and logs.
    runtime = "runtime";
    /// Records by key, and blobs.
    store = "store";
}

pub mod status;

/// A serialised `google.protobuf.FileDescriptorSet` of everything in `proto/`, comments included.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/micro.fds"));
