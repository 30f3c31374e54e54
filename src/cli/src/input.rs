//! Values of the command line: the words themselves, or stdin where they are `-`.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

use crate::error::{Error, Result};

/// The bytes that `words` mean: those of stdin, or the words with a space between.
///
/// # Errors
/// When stdin cannot be read.
pub(crate) fn bytes(words: &[OsString]) -> Result<Vec<u8>> {
    if words == ["-"] {
        return stdin();
    }
    Ok(words.join(OsStr::new(" ")).into_vec())
}

/// The text that `word` means; the end of the last line of stdin is left out.
///
/// # Errors
/// When stdin cannot be read, or is no text.
pub(crate) fn text(word: &str) -> Result<String> {
    if word != "-" {
        return Ok(word.into());
    }
    let mut text = String::from_utf8(stdin()?).map_err(|_| {
        Error::usage("stdin is no text")
            .with_hint("encode it first, for example: base64 FILE | micro ...")
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// All of stdin.
fn stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(Error::file("read", "stdin"))?;
    Ok(bytes)
}

/// Whether a file name of the command line means stdin or stdout.
pub(crate) fn is_standard(name: &OsStr) -> bool {
    name.as_bytes() == b"-"
}
