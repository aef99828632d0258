//! Ctrl-C: verbs stop at the next good place and close the database; a second one ends the process.

use std::sync::LazyLock;

use icecore::CancelToken;

use crate::failure::{Failure, Outcome};

static TOKEN: LazyLock<CancelToken> = LazyLock::new(CancelToken::new);

/// Starts to listen. Where the system refuses that, Ctrl-C ends the process as ever, which costs nothing acknowledged.
pub(crate) fn install() {
    let _ = ctrlc::set_handler(|| {
        if TOKEN.is_cancelled() {
            std::process::exit(1);
        }
        TOKEN.cancel();
    });
}

/// What queries watch.
pub(crate) fn token() -> CancelToken {
    TOKEN.clone()
}

/// Whether Ctrl-C was pressed.
pub(crate) fn is_set() -> bool {
    TOKEN.is_cancelled()
}

/// Fails once Ctrl-C was pressed.
pub(crate) fn check() -> Outcome {
    if is_set() { Err(Failure::Interrupted) } else { Ok(()) }
}
