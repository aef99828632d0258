//! The table of verbs: from arguments to the file that does the work, and from its outcome to an exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Outcome;
#[cfg(feature = "server")]
use crate::serve;
use crate::{
    compact, delete, demo, export, import, inspect, interrupt, query, sample_host, snapshot, stats, verify,
};

/// Embedded time-series storage: exact, compressed, crash-safe history on local disk.
#[derive(Debug, Parser)]
#[command(name = "icecore", version, max_term_width = 100)]
struct Arguments {
    /// No progress, no summary: only results and errors.
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Samples this host, kills the writer with SIGKILL, and shows that nothing acknowledged is lost.
    Demo(demo::Demo),
    /// Reads CSV, Prometheus and OpenMetrics files into a database.
    Import(import::Import),
    /// Answers with samples or aggregates of series.
    Query(query::Query),
    /// Writes samples as CSV or JSON lines.
    Export(export::Export),
    /// Says how many series there are, by name, tag key and pair of tag and value.
    Stats(stats::Stats),
    /// Shows blocks, log, series, encodings and bytes a sample.
    Inspect(inspect::Inspect),
    /// Checks everything and says what is damaged.
    Verify(verify::Verify),
    /// Makes a copy of the database in another directory.
    Snapshot(snapshot::Snapshot),
    /// Removes the samples of series, in a range of time.
    Delete(delete::Delete),
    /// Merges blocks until nothing is left to merge.
    Compact(compact::Compact),
    /// Serves a database over HTTP and UDP to the clients of many systems.
    #[cfg(feature = "server")]
    Serve(serve::Serve),
    /// The REST frontend.
    #[cfg(not(feature = "server"))]
    #[command(disable_help_flag = true)]
    Serve {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        rest: Vec<String>,
    },
    /// What `demo` starts and kills.
    #[command(hide = true)]
    SampleHost(sample_host::SampleHost),
}

impl Verb {
    /// Whether it looks for Ctrl-C by the library of verbs. The server has its own way, for SIGTERM too.
    fn listens_to_ctrl_c(&self) -> bool {
        #[cfg(feature = "server")]
        if matches!(self, Verb::Serve(_)) {
            return false;
        }
        true
    }
}

/// Reads the arguments, runs the verb, and says what went wrong.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.verb.listens_to_ctrl_c() {
        interrupt::install();
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(arguments: &Arguments) -> Outcome {
    let quiet = arguments.quiet;
    match &arguments.verb {
        Verb::Demo(verb) => demo::run(verb, quiet),
        Verb::Import(verb) => import::run(verb, quiet),
        Verb::Query(verb) => query::run(verb),
        Verb::Export(verb) => export::run(verb, quiet),
        Verb::Stats(verb) => stats::run(verb),
        Verb::Inspect(verb) => inspect::run(verb),
        Verb::Verify(verb) => verify::run(verb, quiet),
        Verb::Snapshot(verb) => snapshot::run(verb, quiet),
        Verb::Delete(verb) => delete::run(verb, quiet),
        Verb::Compact(verb) => compact::run(verb, quiet),
        #[cfg(feature = "server")]
        Verb::Serve(verb) => serve::run(verb, quiet),
        #[cfg(not(feature = "server"))]
        Verb::Serve { rest } => Err(feature_is_off("serve", rest)),
        Verb::SampleHost(verb) => sample_host::run(verb),
    }
}

/// The verb exists, but not in this build.
#[cfg(not(feature = "server"))]
fn feature_is_off(verb: &str, rest: &[String]) -> crate::failure::Failure {
    let rest = rest.join(" ");
    crate::failure::Failure::Usage(format!(
        "{verb} is not in this build; run: cargo run --features full -- {verb} {rest}"
    ))
}
