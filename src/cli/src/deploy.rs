//! From what `micro run` was given to what the server builds: finding the source, choosing what of
//! it to upload, packing it, and sending it.

pub(crate) mod pack;
pub(crate) mod root;
pub(crate) mod source;
pub(crate) mod upload;
pub(crate) mod words;
