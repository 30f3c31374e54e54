//! Compiles `proto/` without protoc and keeps the descriptor set, comments included.

use std::{error::Error, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from("../../proto");
    let files = [
        "auth/auth.proto",
        "broker/broker.proto",
        "config/config.proto",
        "events/events.proto",
        "registry/registry.proto",
        "runtime/runtime.proto",
        "store/store.proto",
    ];
    println!("cargo:rerun-if-changed={}", root.display());
    let set = protox::compile(files.map(|f| root.join(f)), [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("micro.fds"), set.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(set)?;
    Ok(())
}
