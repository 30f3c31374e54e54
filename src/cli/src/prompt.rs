//! Questions to the person at the terminal. Without a terminal the answers are lines of stdin, so
//! that scripts can pipe a password in instead of showing it to everybody on the machine.

use std::io::{self, IsTerminal as _};

use crate::{
    error::{Error, Result},
    printer::Printer,
};

/// Asks for a line.
///
/// # Errors
/// When there is no answer.
pub(crate) fn line(printer: Printer, question: &str, flag: &str) -> Result<String> {
    printer.prompt(question);
    let mut text = String::new();
    io::stdin()
        .read_line(&mut text)
        .map_err(Error::file("read", "the answer"))?;
    if !io::stdin().is_terminal() {
        printer.note("");
    }
    answer(text.trim(), flag)
}

/// Asks for a password, which is not shown.
///
/// # Errors
/// When there is no answer.
pub(crate) fn password(printer: Printer, question: &str, flag: &str) -> Result<String> {
    if !io::stdin().is_terminal() {
        printer.prompt(question);
        let mut text = String::new();
        io::stdin()
            .read_line(&mut text)
            .map_err(Error::file("read", "the password"))?;
        printer.note("");
        return answer(text.trim_end_matches(['\r', '\n']), flag);
    }
    let text = rpassword::prompt_password(question).map_err(Error::file("read", "the password"))?;
    answer(&text, flag)
}

/// Asks for a new password, at a terminal until it was typed twice the same.
///
/// # Errors
/// When there is no answer.
pub(crate) fn new_password(printer: Printer, flag: &str) -> Result<String> {
    loop {
        let first = password(printer, "Enter a new password: ", flag)?;
        if !io::stdin().is_terminal() || first == password(printer, "Verify your password: ", flag)?
        {
            return Ok(first);
        }
        printer.note("Passwords do not match. Please try again.");
    }
}

fn answer(text: &str, flag: &str) -> Result<String> {
    if text.is_empty() {
        return Err(Error::usage("nothing was entered")
            .with_hint(format!("type it, pipe it in, or use {flag}")));
    }
    Ok(text.into())
}
