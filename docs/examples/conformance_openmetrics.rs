//! Parses an OpenMetrics page from standard input; exits with 0 when it is valid, else with 1 and the
//! reason on standard error. Answers the runner of the parser cases of prometheus/OpenMetrics.
//!
//! cargo run --features cli --example conformance_openmetrics

use std::io::Read;
use std::process::ExitCode;

use icecore::protocol::exposition::parse_openmetrics;

fn main() -> ExitCode {
    let mut page = Vec::new();
    if let Err(error) = std::io::stdin().lock().read_to_end(&mut page) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    match parse_openmetrics(&page) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
