//! The only door to the terminal: data goes to stdout, everything else to stderr.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::{error::Result, json};

/// How data is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Output {
    /// Tables and lines for people.
    #[default]
    Text,
    /// JSON.
    Json,
    /// The bytes as they came.
    Raw,
}

/// Writes to the terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    output: Output,
    colour: bool,
    terminal: bool,
}

impl Printer {
    /// A printer for this process.
    pub(crate) fn new(output: Output) -> Self {
        let terminal = io::stderr().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self {
            output,
            colour: terminal && !plain,
            terminal,
        }
    }

    /// How data is to be shown.
    pub(crate) fn output(&self) -> Output {
        self.output
    }

    /// Whether data is to be shown as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Whether a person watches stderr.
    pub(crate) fn is_watched(&self) -> bool {
        self.terminal
    }

    /// Whether a person sees the data.
    pub(crate) fn is_screen(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Data as it is, without a newline.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()?;
        Ok(())
    }

    /// One line of data.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn line(&self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()?;
        Ok(())
    }

    /// A value as indented JSON.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<()> {
        let compact = serde_json::to_vec(value).map_err(io::Error::from)?;
        self.line(&json::indent(&compact))
    }

    /// Something to know that is not data.
    pub(crate) fn note(&self, text: &str) {
        // Nobody can be told that stderr is gone.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Something of little weight, such as a build's output.
    pub(crate) fn dim(&self, text: &str) {
        if self.colour {
            self.note(&format!("\u{1b}[2m{text}\u{1b}[0m"));
        } else {
            self.note(text);
        }
    }

    /// A step that begins.
    pub(crate) fn strong(&self, text: &str) {
        if self.colour {
            self.note(&format!("\u{1b}[1m{text}\u{1b}[0m"));
        } else {
            self.note(text);
        }
    }

    /// A question, without a newline.
    pub(crate) fn prompt(&self, text: &str) {
        let mut err = io::stderr().lock();
        let _ = write!(err, "{text}");
        let _ = err.flush();
    }

    /// What went wrong and what to do about it.
    pub(crate) fn failure(&self, message: &str, hint: Option<&str>) {
        self.note(message);
        if let Some(hint) = hint {
            self.note(&format!("hint: {hint}"));
        }
    }
}
