//! Log lines of the server: time, level, text, on stderr. The level below which nothing is written is set once.

use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Error, Result};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For people who look for a mistake.
    Debug = 0,
    /// What an operator expects.
    Info = 1,
    /// Something was refused, dropped or tried again.
    Warn = 2,
    /// Something is lost or does not work.
    Error = 3,
}

static LEVEL_MIN: AtomicU8 = AtomicU8::new(Level::Info as u8);

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        }
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Level::Debug, Level::Info, Level::Warn, Level::Error]
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| {
                Error::invalid_input(format!("log level {text:?}; there are debug, info, warn, error"))
            })
    }
}

/// From now on writes lines of `level` and above.
pub fn set_level(level: Level) {
    LEVEL_MIN.store(level as u8, Ordering::Relaxed);
}

/// Writes one line. What cannot be written is lost, for there is nobody left to tell.
pub(crate) fn write(level: Level, text: fmt::Arguments<'_>) {
    if level as u8 >= LEVEL_MIN.load(Ordering::Relaxed) {
        let line = line(jiff::Timestamp::now(), level, text);
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

/// One line, with line breaks in `text` shown as such, so that no client can forge a line.
fn line(now: jiff::Timestamp, level: Level, text: fmt::Arguments<'_>) -> String {
    let text = text.to_string();
    let mut line = format!("{now:.3} {:<5} ", level.name());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let text = line(now, Level::Warn, format_args!("refused {}", "a\nb\x1b[31m"));
        assert_eq!(text, "1970-01-01T00:00:00.000Z WARN  refused a\\nb\\u{1b}[31m\n");
    }

    #[test]
    fn levels_are_read_in_any_case() {
        assert_eq!("Warn".parse::<Level>().unwrap(), Level::Warn);
        assert!("loud".parse::<Level>().unwrap_err().to_string().contains("debug, info, warn, error"));
        assert!(Level::Debug < Level::Error);
    }
}
