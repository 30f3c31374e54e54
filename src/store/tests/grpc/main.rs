//! The store as Micro's clients see it, over a real server.

mod blobs;
mod isolation;
mod node;
mod records;
mod watches;
