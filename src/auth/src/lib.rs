//! Identity: accounts, tokens and rules, per namespace (Micro contract §5).
//!
//! A door asks two questions for every request, and both are answered from memory: whose token is
//! this ([`Handle::inspect`]), and may that account call this endpoint ([`Handle::verify`]).
//! Everything that changes something goes through SQLite first and through memory after the commit.
//!
//! | file | owns |
//! |---|---|
//! | `rules.rs` | what a rule is, and the one decision over them; pure |
//! | `account.rs` | what a new account may look like; pure |
//! | `brake.rs` | slowing down whoever guesses secrets; pure |
//! | `token.rs` | the JWTs: claims, RS256, the provider on ring |
//! | `keys.rs` | the key pair that signs them, as files in Micro's format |
//! | `secrets.rs` | passwords (argon2id), random tokens, digests |
//! | `living.rs` | which accounts exist now, so that a deleted one is out at once |
//! | `repo.rs` | the tables |
//! | `service.rs`, `handle.rs` | opening it all, and what others may ask |
//! | `grpc.rs` | the gRPC face: `auth.Auth`, `auth.Accounts`, `auth.Rules` |
//!
//! Invariants: every key of every table starts with the namespace; no secret and no refresh token is
//! stored, only hashes; only RS256 by our own key is accepted; namespace `micro` never loses its last
//! administrator through us.

mod account;
mod brake;
mod error;
mod grpc;
mod handle;
mod keys;
mod living;
mod repo;
mod rules;
mod secrets;
mod service;
mod token;

pub use account::Draft;
pub use error::Error;
pub use grpc::{AccountsFace, AuthFace, RulesFace};
pub use handle::{Handle, Proof, SecretChange, Token};
pub use rules::{Access, Denied, Resource, Rule};
pub use service::{Service, Settings};
