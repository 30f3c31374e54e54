//! `micro server --check-data`: reads everything that is kept, changes nothing, and says what is
//! damaged.
#![expect(clippy::print_stdout, reason = "a report for the terminal")]

use std::process::ExitCode;

use micro_core::{StateDir, settings::Loaded};
use micro_storage::{Sqlite, Storage};

use crate::{banner, telemetry};

/// Checks the state directory of these settings; fails when anything is damaged.
pub fn check_data(loaded: Loaded) -> ExitCode {
    telemetry::init(&loaded.settings.log);
    let state = StateDir::new(&loaded.settings.server.state_dir);
    let checked = Storage::check(&state.storage())
        .and_then(|report| Ok((report, Sqlite::check(&state.sqlite())?)));
    let (report, tables) = match checked {
        Ok(checked) => checked,
        Err(error) => return banner::refuse(&error),
    };
    println!(
        "{} rows, {} records of the log, {} events of {} topics, {} blobs",
        report.rows, report.records, report.entries, report.topics, report.blobs
    );
    let problems = report.problems.iter().chain(&tables);
    let count = problems.clone().count();
    for problem in problems {
        println!("damaged: {problem}");
    }
    if count == 0 {
        println!("All of it is whole.");
        ExitCode::SUCCESS
    } else {
        println!(
            "\nThe rest can still be read: start the server, save what you need, and restore what is \
             damaged from a backup."
        );
        ExitCode::FAILURE
    }
}
