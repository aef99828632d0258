//! The one error type of the crate: what went wrong, where, and what the caller can do next.
//!
//! Open to every layer. Causes are made by the named functions here, so that each can be found by
//! searching for its constructor.

use std::fmt;
use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call or its data is wrong; fix it. Nothing was stored or changed.
    InvalidInput,
    /// What was asked for does not exist.
    NotFound,
    /// A configured cap was reached; back off, or raise the cap that the message names.
    LimitExceeded,
    /// Another process or thread holds what is needed; try again later.
    Busy,
    /// The bytes on disk were written by a newer version; upgrade.
    UnsupportedVersion,
    /// The bytes on disk are damaged; restore them, or ask for a partial answer.
    Corruption,
    /// The operating system refused; look at [`std::error::Error::source`].
    Io,
    /// The database, client or session was closed, or its log is poisoned by a failed sync.
    Closed,
    /// The caller cancelled, or the deadline passed.
    Cancelled,
}

/// An error: one word wide, with a kind, a message that says what and where, and its cause.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    offset: Option<u64>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The file or directory concerned, where there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The byte offset in [`Error::path`], where there is one.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    #[cold]
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), path: None, offset: None, source: None }))
    }

    /// The call or its data is wrong.
    #[cold]
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// What was asked for does not exist.
    #[cold]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// A cap was reached; the message names the option, the cap and what was asked for.
    #[cold]
    pub fn limit_exceeded(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::LimitExceeded, message)
    }

    /// Somebody else holds what is needed.
    #[cold]
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Busy, message)
    }

    /// A format newer than this build.
    #[cold]
    pub fn unsupported_version(path: impl Into<PathBuf>, found: u32, supported: u32) -> Self {
        let mut error = Self::new(
            ErrorKind::UnsupportedVersion,
            format!("format version {found} is newer than {supported}, the newest this build reads"),
        );
        error.0.path = Some(path.into());
        error
    }

    /// Damaged bytes in memory that have no file yet; [`Error::at`] adds where they came from.
    #[cold]
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corruption, message)
    }

    /// Damaged bytes in the file `path` at `offset`.
    #[cold]
    pub fn corruption(path: impl Into<PathBuf>, offset: u64, message: impl Into<String>) -> Self {
        Self::corrupt(message).at(path, offset)
    }

    /// The operating system refused `action` on `path`.
    #[cold]
    pub fn io(action: &str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        let mut error = Self::new(ErrorKind::Io, format!("cannot {action}: {source}"));
        error.0.path = Some(path.into());
        error.0.source = Some(Box::new(source));
        error
    }

    /// The database, client or session no longer takes calls.
    #[cold]
    pub fn closed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Closed, message)
    }

    /// The caller cancelled, or the deadline passed.
    #[cold]
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Cancelled, message)
    }

    /// The same error, said to have happened in `path` at `offset`.
    #[must_use]
    pub fn at(mut self, path: impl Into<PathBuf>, offset: u64) -> Self {
        self.0.path = Some(path.into());
        self.0.offset = Some(offset);
        self
    }

    /// The same error, said to have happened in `path`.
    #[must_use]
    pub(crate) fn in_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path = Some(path.into());
        self
    }

    /// The same error with `context: ` put before its message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// The code of the operating system, where that is the cause; tests look at it.
    #[cfg(test)]
    pub(crate) fn io_kind(&self) -> Option<std::io::ErrorKind> {
        let source = self.0.source.as_ref()?;
        source.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
    }

    /// A second error of the same kind, place and text (without the source), for many waiters of one failure.
    #[cold]
    pub(crate) fn repeat(&self) -> Self {
        Error(Box::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            path: self.0.path.clone(),
            offset: self.0.offset,
            source: None,
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match (&self.0.path, self.0.offset) {
            (Some(path), Some(offset)) => write!(f, " ({}, offset {offset})", path.display()),
            (Some(path), None) => write!(f, " ({})", path.display()),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_word() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn message_names_file_and_offset() {
        let error = Error::corruption("blocks/7", 42, "CRC differs");
        assert_eq!(error.to_string(), "CRC differs (blocks/7, offset 42)");
        assert_eq!(error.kind(), ErrorKind::Corruption);
    }
}
