//! The life of a request, once, for every door: who is calling (identity), what the caller may do
//! (rules), where the request goes (route, balancing) and how it gets there (forwarding), with the
//! records of all of it (metrics). A door only translates its own protocol.
//!
//! ```text
//! door ─► Pipeline::admit(Ask) ─► Admitted ─► Upstreams::forward_grpc | forward_http | unary | stream
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `ports.rs` | what the pipeline needs from others: [`Identity`], [`Rules`] |
//! | `admission.rs` | [`Pipeline`]: identity → namespace → rules → route |
//! | `router.rs` | [`Router`]: one immutable table behind one pointer; instances and their balance |
//! | `builtin.rs` | [`Builtins`]: the services that live in this process |
//! | `upstreams.rs` | [`Upstreams`]: connections to instances, one set per door thread |
//! | `body.rs`, `frame.rs`, `transcode.rs` | bodies, gRPC's message framing, JSON ↔ protobuf |
//! | `status.rs`, `error.rs` | how failures look on the wire |
//! | `metrics.rs` | counters and the Prometheus page |

mod admission;
mod body;
mod builtin;
mod error;
mod frame;
mod header;
mod metrics;
mod ports;
mod router;
mod status;
mod transcode;
mod upstreams;

pub use admission::{Admitted, Ask, Pipeline, Target};
pub use body::{Body, BoxError};
pub use builtin::{Builtin, Builtins};
pub use error::Error;
pub use header::{GrpcPath, TOKEN_COOKIE, forget_token, is_grpc};
pub use ports::{Door, Identity, Peer, Protocol, Refusal, Rules};
pub use router::{Route, RouteSpec, Router};
pub use status::{grpc_error, grpc_plain, http_error};
pub use upstreams::{Limits, Responses, Upstreams};
