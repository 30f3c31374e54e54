//! The service library of Micro. A service is a set of tonic services with a name:
//!
//! ```no_run
//! # #[cfg(feature = "service")]
//! # async fn example() -> Result<(), micro_sdk::Error> {
//! micro_sdk::Service::new("helloworld")
//!     // .descriptors(helloworld::FILE_DESCRIPTOR_SET)
//!     // .add(HelloworldServer::new(MyHelloworld))
//!     .run()
//!     .await
//! # }
//! ```
//!
//! [`Service`] listens where the platform says, serves reflection and health, stops gracefully, and
//! registers itself when it was started by hand. [`mesh`] and [`client`] call other services, and
//! the built-in ones:
//!
//! | | |
//! |---|---|
//! | [`config`] | settings and secrets, watched while they change |
//! | [`store`] | records by key: typed, conditional, several at once, watched |
//! | [`blobs`] | large values as streams |
//! | [`events`] | durable streams of events, consumed in groups |
//! | [`broker`] | messages to whoever listens now |
//! | [`auth`] | who calls |
//! | [`registry`] | which services there are |
//!
//! ```no_run
//! # #[cfg(feature = "service")]
//! # async fn example() -> Result<(), micro_sdk::Error> {
//! let micro = micro_sdk::mesh();
//! let notes = micro.store().table::<String>("notes");
//! let revision = notes.put("a", &"first".to_owned()).await?;
//! notes.update("a", &"second".to_owned(), revision).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Values are JSON through [`serde`]. Every failure is an [`Error`] of a [`Kind`], and every stream
//! survives restarts of the platform.
//!
//! Messages, servers and clients are made from `.proto` files by `micro_sdk::build::compile` in
//! `build.rs` (feature `build`, no protoc needed) and brought in by [`include_proto!`].
//!
//! Nothing here depends on the server: `error` (what can go wrong) · `environment` (what the
//! platform said) · `platform` (the connection to it) · `identity` (the service's token) · `mesh`
//! (calls to others) · `call` (one call to a built-in service) · `feed` (streams that outlive the
//! connection) · `registration` (being found when run by hand) · `endpoints` (descriptors as the
//! registry's value tree) · `wire` (the messages of the platform that are needed) · `service` (the
//! whole, in order).

#[cfg(feature = "build")]
pub mod build;

#[cfg(feature = "service")]
pub mod auth;
#[cfg(feature = "service")]
pub mod blobs;
#[cfg(feature = "service")]
pub mod broker;
#[cfg(feature = "service")]
pub mod config;
#[cfg(feature = "service")]
pub mod events;
#[cfg(feature = "service")]
pub mod registry;
#[cfg(feature = "service")]
pub mod store;

#[cfg(feature = "service")]
mod call;
#[cfg(feature = "service")]
mod endpoints;
#[cfg(feature = "service")]
mod environment;
#[cfg(feature = "service")]
mod error;
#[cfg(feature = "service")]
mod feed;
#[cfg(feature = "service")]
mod identity;
#[cfg(feature = "service")]
mod mesh;
#[cfg(feature = "service")]
mod platform;
#[cfg(feature = "service")]
mod registration;
#[cfg(feature = "service")]
mod service;
#[cfg(feature = "service")]
mod wire;

#[cfg(feature = "service")]
pub use crate::{
    error::{Error, Kind},
    mesh::{Mesh, client, mesh},
    service::Service,
};

// What generated code and services are written with, so that a service lists no further crates.
#[cfg(feature = "service")]
pub use prost;
#[cfg(feature = "service")]
pub use prost_types;
#[cfg(feature = "service")]
pub use serde;
#[cfg(feature = "service")]
pub use tokio_stream;
#[cfg(feature = "service")]
pub use tonic::{
    self, Code, Request, Response, Status, Streaming, async_trait,
    codegen::{BoxStream, Bytes},
};
#[cfg(feature = "service")]
#[doc(hidden)]
pub use tonic_prost;

/// Brings in what `micro_sdk::build::compile` made of one proto package:
/// messages, `…_server`, `…_client` modules, and `FILE_DESCRIPTOR_SET` for [`Service::descriptors`].
///
/// ```ignore
/// mod helloworld {
///     micro_sdk::include_proto!("helloworld");
/// }
/// ```
#[cfg(feature = "service")]
#[macro_export]
macro_rules! include_proto {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        /// The descriptors of every file given to `micro_sdk::build::compile`, comments included.
        #[allow(dead_code, reason = "only the package with services needs them")]
        pub const FILE_DESCRIPTOR_SET: &[u8] =
            include_bytes!(concat!(env!("OUT_DIR"), "/micro_descriptors.bin"));
    };
}
