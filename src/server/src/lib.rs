//! The composition root: `micro server` as its two processes.
//!
//! [`run`] is the supervisor (all of it lives in `micro_sandbox::supervisor`); [`node`] is the
//! process that owns every byte from outside. `app.rs` is the one place where services are
//! constructed and where one crate's port meets another crate's provider.
//!
//! | file | owns |
//! |---|---|
//! | `app.rs` | start: settings → stores → services → pipeline → doors, top to bottom |
//! | `ports.rs` | the adapters between what a crate asks for and what another offers |
//! | `check.rs` | `--check-data`: reads everything that is kept |
//! | `builtins.rs` | the built-in services as routes of the pipeline |
//! | `routes.rs` | registry changes → the pipeline's routing table |
//! | `doors.rs` | one thread and one runtime per core, each with a listener of every door |
//! | `admin.rs` | liveness, readiness, metrics, on a thread of their own |
//! | `idle.rs` | giving memory back when nobody calls |
//! | `shutdown.rs` | the order in which things stop, with a budget per stage |
//! | `banner.rs` | what is printed at start, and `addresses.json` |

mod admin;
mod app;
mod banner;
mod builtins;
mod check;
mod doors;
mod idle;
mod ports;
mod routes;
mod shutdown;
mod telemetry;

use std::process::ExitCode;

use micro_core::settings::Loaded;

pub use app::Error;
pub use check::check_data;

/// Runs the supervisor until it is told to stop.
pub fn run(loaded: Loaded) -> ExitCode {
    telemetry::init(&loaded.settings.log);
    match micro_sandbox::supervisor::run(loaded.settings) {
        Ok(code) => code,
        Err(error) => banner::refuse(&error),
    }
}

/// Runs the node; the supervisor starts it and nobody else.
pub fn node() -> ExitCode {
    match app::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => banner::refuse(&error),
    }
}
