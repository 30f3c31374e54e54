//! What a service offers, whatever it is written in: the one place that knows descriptors.
//!
//! A [`Schema`] is made from protobuf descriptors (fetched over gRPC reflection by [`reflect`] or
//! compiled from a release's `.proto` files by [`protos`]), or, for Micro's Go services, from the
//! value trees they register. Doors look their [`Method`]s up in it and let them turn JSON into the
//! instance's own encoding and back; the CLI and the web read flags and value trees from it.
//!
//! | file | owns |
//! |---|---|
//! | `schema.rs` | [`Schema`]: methods and how they are found |
//! | `method.rs` | [`Method`]: JSON ↔ message, pairs → JSON, flags |
//! | `describe.rs` | descriptors → Micro's value trees |
//! | `shape.rs` | one view of a message type over descriptors and value trees |
//! | `coerce.rs` | the forgiving second reading of JSON, with errors that name fields |
//! | `fits.rs` | whether JSON can go to a Go service as it is |
//! | `pairs.rs`, `keys.rs` | query strings, forms and flags → JSON |
//! | `flags.rs` | the leaves of a request |
//! | `guard.rs` | what keeps hostile descriptors and messages harmless |
//! | `comments.rs` | comments of `.proto` files |
//! | `reflect.rs` | descriptors from a running instance |
//! | `protos.rs` | descriptors from `.proto` files |

mod coerce;
mod comments;
mod describe;
mod error;
mod fits;
mod flags;
mod guard;
mod keys;
mod method;
mod pairs;
pub mod protos;
pub mod reflect;
mod schema;
mod shape;

pub use error::Error;
pub use flags::Flag;
pub use method::{Codec, Method};
pub use reflect::ReflectError;
pub use schema::Schema;

/// The most bytes of descriptors that are accepted from one service.
pub const DESCRIPTOR_LIMIT: usize = 16 * 1024 * 1024;
