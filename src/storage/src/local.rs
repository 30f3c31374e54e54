//! The engine of one machine.

use std::{path::Path, sync::Arc};

use crate::{Engine, Error, Options, Report};

/// Opens the state below `directory`.
pub(crate) fn open(_directory: &Path, _options: Options) -> Result<Arc<dyn Engine>, Error> {
    Err(Error::Closed)
}

/// Reads all of the state below `directory`.
pub(crate) fn check(_directory: &Path) -> Result<Report, Error> {
    Err(Error::Closed)
}
