//! The daemon's own log: stderr, text for people or JSON for machines. Under systemd the journal
//! adds the time, so we leave it out.

use micro_core::settings::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// Installs the subscriber; later calls change nothing.
pub(crate) fn init(log: &Log) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    // A second initialisation (tests in one process) is harmless.
    let _ = match (log.format, journal) {
        (LogFormat::Json, _) => builder.json().try_init(),
        (LogFormat::Text, true) => builder.without_time().with_ansi(false).try_init(),
        (LogFormat::Text, false) => builder
            .with_target(false)
            .with_ansi(is_terminal())
            .try_init(),
    };
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}
