//! `micro server`: settings from all their layers, then the daemon.

use std::{collections::BTreeMap, process::ExitCode};

use clap::ArgMatches;
use micro_core::settings::{self, KEYS, Loaded};
use serde_json::{Map, json};

use crate::{
    Daemon,
    command_line::Server,
    error::{Error, Result},
    printer::Printer,
    table::{self, Padding},
};

/// Loads the settings and starts the daemon, or shows or checks them.
pub(crate) fn run(
    printer: Printer,
    args: &Server,
    matches: Option<&ArgMatches>,
    daemon: Daemon,
) -> Result<ExitCode> {
    let flags: BTreeMap<String, String> = KEYS
        .iter()
        .filter_map(|key| {
            let value = matches?.get_one::<String>(&key.flag())?;
            Some((key.flag(), value.clone()))
        })
        .collect();
    let env = |name: &str| std::env::var(name).ok();
    let loaded = settings::load(args.settings.as_deref(), env, &flags).map_err(|e| {
        let reason = match &e {
            settings::Error::Read { source, .. } => format!("{e}: {source}"),
            _ => e.to_string(),
        };
        Error::usage(reason).with_hint("`micro server --help` lists every setting")
    })?;
    if args.print_settings {
        print(printer, &loaded)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        printer.note("The settings are fine.");
        return Ok(ExitCode::SUCCESS);
    }
    if args.check_data {
        return Ok((daemon.check_data)(loaded));
    }
    Ok((daemon.start)(loaded))
}

fn print(printer: Printer, loaded: &Loaded) -> Result<()> {
    if printer.is_json() {
        let map: Map<_, _> = loaded
            .origins
            .iter()
            .map(|(key, (value, origin))| {
                let row = json!({ "value": value, "origin": origin.to_string() });
                ((*key).to_owned(), row)
            })
            .collect();
        return printer.json(&map);
    }
    // In the order of the reference, not of the alphabet.
    let mut text = String::from("SETTING\tVALUE\tORIGIN\n");
    for key in KEYS {
        if let Some((value, origin)) = loaded.origins.get(key.path) {
            text.push_str(&format!("{}\t{value}\t{origin}\n", key.path));
        }
    }
    printer.write(table::align(&text, Padding::Tabs).as_bytes())
}
