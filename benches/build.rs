//! Compiles the messages without protoc; the descriptor set of the backend goes to reflection and to
//! Envoy.

use std::{error::Error, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=hello.proto");
    println!("cargo:rerun-if-changed=etcd.proto");
    let set = protox::compile(["hello.proto"], ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("hello.fds"), set.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(set)?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .compile_fds(protox::compile(["etcd.proto"], ["."])?)?;
    Ok(())
}
