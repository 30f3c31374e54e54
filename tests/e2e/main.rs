//! The product as its users meet it: the real binary, the real CLI, curl, real services.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod announcement;
mod bad_input;
mod deploys;
mod durability;
mod first_access;
mod fixtures;
mod gateway;
mod isolation;
mod languages;
mod notes;
mod plain_http;
mod privileges;
mod rules;
mod server_process;
mod store;
mod survival;
mod tenants;
