//! The service that the tests of this crate describe in every way.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use micro_schema::{Method, Schema, protos};

/// Its compiled descriptors.
pub(crate) fn set() -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protos");
    protos::compile_dir(&dir).unwrap().unwrap()
}

/// The same, compiled once.
pub(crate) fn set_once() -> &'static [u8] {
    static SET: OnceLock<Vec<u8>> = OnceLock::new();
    SET.get_or_init(set)
}

/// Its schema, made once.
pub(crate) fn shop() -> Arc<Schema> {
    static SHOP: OnceLock<Arc<Schema>> = OnceLock::new();
    Arc::clone(SHOP.get_or_init(|| Arc::new(Schema::from_descriptor_set(&set()).unwrap())))
}

/// One of its methods.
pub(crate) fn method(endpoint: &str) -> Method {
    shop().method(endpoint).unwrap().clone()
}
