//! The command-line tool `icecore`: thin over the library, one file per verb.
//!
//! Exit codes: 0 done, 1 failed or damaged, 2 wrong use. Results go to standard output, progress and
//! complaints to standard error.

#[cfg(feature = "cli")]
mod chart;
#[cfg(feature = "cli")]
mod compact;
#[cfg(feature = "cli")]
mod delete;
#[cfg(feature = "cli")]
mod demo;
#[cfg(feature = "cli")]
mod export;
#[cfg(feature = "cli")]
mod failure;
#[cfg(feature = "cli")]
mod import;
#[cfg(feature = "cli")]
mod input;
#[cfg(feature = "cli")]
mod inspect;
#[cfg(feature = "cli")]
mod interrupt;
#[cfg(feature = "cli")]
mod output;
#[cfg(feature = "cli")]
mod progress;
#[cfg(all(feature = "cli", feature = "promql"))]
mod promql;
#[cfg(feature = "cli")]
mod query;
#[cfg(all(feature = "cli", feature = "promql"))]
mod remote;
#[cfg(feature = "cli")]
mod sample_host;
#[cfg(feature = "cli")]
mod select;
#[cfg(all(feature = "cli", feature = "server"))]
mod serve;
#[cfg(feature = "cli")]
mod snapshot;
#[cfg(feature = "cli")]
mod stats;
#[cfg(feature = "cli")]
mod time;
#[cfg(feature = "cli")]
mod verb;
#[cfg(feature = "cli")]
mod verify;

use std::process::ExitCode;

#[cfg(feature = "cli")]
fn main() -> ExitCode {
    verb::main()
}

/// Without the feature there are no verbs; say how to get them.
#[cfg(not(feature = "cli"))]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    eprintln!(
        "this binary was built without its verbs; run: cargo run --features full -- {}",
        arguments.join(" ")
    );
    ExitCode::from(2)
}
