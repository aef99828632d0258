//! One event of a session: what happened, how bad it was, and anything that belongs to it.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::ingest::session::check_depth;
use crate::model::{NAME_SIZE_MAX, Timestamp};

/// The level of an event that says none.
const LEVEL_DEFAULT: &str = "info";
/// The level of an event with an exception that says none.
const LEVEL_EXCEPTION: &str = "error";

/// An event of a session.
///
/// ```
/// use icecore::ingest::SessionEvent;
/// use serde_json::json;
///
/// let event = SessionEvent::new("import_failed")
///     .message("row 7 has no key")
///     .labels(["import"])
///     .exception("KeyError", "'id'")
///     .data(json!({"row": 7}));
/// assert_eq!(event.level(), "error");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionEvent {
    /// What happened.
    pub name: String,
    /// How bad it was: `debug`, `info`, `warning`, `error`, `critical`, or any other word; `None`: see [`SessionEvent::level`].
    pub level: Option<String>,
    /// A second word for how bad it was or what it belongs to, where a client sends both.
    pub category: Option<String>,
    /// The part of the program where it happened, or empty.
    pub group: String,
    /// Words to find it by.
    pub labels: Vec<String>,
    /// A sentence for people, or empty.
    pub message: String,
    /// Anything that belongs to it; `null` for nothing.
    pub data: Value,
    /// The type of the exception, where it was one.
    pub exception_type: Option<String>,
    /// The text of the exception.
    pub exception_msg: Option<String>,
    /// The calls that led to it: a list of strings, or one string.
    pub stacktrace: Option<Value>,
    /// The source file where it happened.
    pub source_file: Option<String>,
    /// The line in the source file.
    pub source_line: Option<u64>,
    /// The function where it happened.
    pub source_function: Option<String>,
    /// When it happened, if not now.
    pub time: Option<Timestamp>,
}

impl SessionEvent {
    /// An event of this name and nothing else.
    pub fn new(name: &str) -> Self {
        SessionEvent { name: name.to_owned(), ..SessionEvent::default() }
    }

    /// Its level: the one given, else `error` for an exception and `info` for everything else.
    pub fn level(&self) -> &str {
        let default = if self.exception_type.is_some() { LEVEL_EXCEPTION } else { LEVEL_DEFAULT };
        self.level.as_deref().unwrap_or(default)
    }

    /// The same with a level.
    #[must_use]
    pub fn with_level(mut self, level: &str) -> Self {
        self.level = Some(level.to_owned());
        self
    }

    /// The same with a group.
    #[must_use]
    pub fn group(mut self, group: &str) -> Self {
        group.clone_into(&mut self.group);
        self
    }

    /// The same with labels.
    #[must_use]
    pub fn labels<L: Into<String>>(mut self, labels: impl IntoIterator<Item = L>) -> Self {
        self.labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// The same with a message.
    #[must_use]
    pub fn message(mut self, message: &str) -> Self {
        message.clone_into(&mut self.message);
        self
    }

    /// The same with data.
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        self.data = data;
        self
    }

    /// The same, for an exception of this type and text.
    #[must_use]
    pub fn exception(mut self, exception_type: &str, message: &str) -> Self {
        self.exception_type = Some(exception_type.to_owned());
        self.exception_msg = Some(message.to_owned());
        self
    }

    /// The same with the calls that led to it, outermost first.
    #[must_use]
    pub fn stacktrace<S: Into<String>>(mut self, calls: impl IntoIterator<Item = S>) -> Self {
        self.stacktrace =
            Some(Value::Array(calls.into_iter().map(|call| Value::String(call.into())).collect()));
        self
    }

    /// The same with the place in the source.
    #[must_use]
    pub fn source(mut self, file: &str, line: u64, function: &str) -> Self {
        self.source_file = Some(file.to_owned());
        self.source_line = Some(line);
        self.source_function = Some(function.to_owned());
        self
    }

    /// The same, happened at `time`.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// Checks what the size of the payload does not.
    ///
    /// # Errors
    /// `InvalidInput` naming the field.
    pub(super) fn check(&self) -> Result<()> {
        if self.name.is_empty() {
            return Err(Error::invalid_input("name: an event has a name"));
        }
        if self.name.len() > NAME_SIZE_MAX {
            return Err(Error::invalid_input(format!("name: longer than {NAME_SIZE_MAX} bytes")));
        }
        check_depth("data", &self.data)?;
        self.stacktrace.as_ref().map_or(Ok(()), |trace| check_depth("stacktrace", trace))
    }
}
