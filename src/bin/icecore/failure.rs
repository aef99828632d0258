//! Why a verb ended without its work done, and the exit code of each reason.

use std::process::ExitCode;

use icecore::ErrorKind;

/// What a verb ends with.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a verb failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments do not make sense: exit code 2.
    Usage(String),
    /// It went wrong, or something is damaged: exit code 1.
    Failed(String),
    /// Ctrl-C. What was written is kept.
    Interrupted,
    /// Whoever read the output has gone, which is no failure: `icecore query ... | head`.
    NobodyReads,
}

impl Failure {
    /// Says it on standard error, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let (text, code) = match self {
            Failure::Usage(text) => (text.as_str(), 2),
            Failure::Failed(text) => (text.as_str(), 1),
            Failure::Interrupted => ("interrupted", 1),
            Failure::NobodyReads => return ExitCode::SUCCESS,
        };
        eprintln!("icecore: {text}");
        ExitCode::from(code)
    }
}

impl From<icecore::Error> for Failure {
    fn from(error: icecore::Error) -> Self {
        match error.kind() {
            ErrorKind::Cancelled if crate::interrupt::is_set() => Failure::Interrupted,
            _ => Failure::Failed(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    /// Of standard output; errors of files name them, see [`in_file`].
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::NobodyReads,
            _ => Failure::Failed(format!("cannot write the output: {error}")),
        }
    }
}

impl From<csv::Error> for Failure {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(error) => error.into(),
            kind => Failure::Failed(format!("cannot write the output: {kind:?}")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        std::io::Error::from(error).into()
    }
}

/// The failure of `action` on a file.
pub(crate) fn in_file(action: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot {action} {}: {error}", path.display()))
}

/// A wrong argument.
pub(crate) fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}
