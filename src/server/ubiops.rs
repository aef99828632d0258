//! The UbiOps world: bodies, queries and answers of its metrics API, as version 4.15 of its Python client has them.
//!
//! The project is the tag `project`; a label of that name becomes `exported_project`. What the client checks in an answer is kept to the letter, since it raises for a missing key.

mod data;
mod handlers;
mod metric;
mod query;

use crate::error::{Error, Result};

pub(super) use handlers::{
    change_metric, create_metric, delete_metric, delete_series, get_metric, list_metrics, read, search, write,
};

/// The tag that holds the project.
const PROJECT_KEY: &str = "project";

/// A time as the client writes it: RFC 3339 with any offset, up to nanoseconds.
fn time(text: &str) -> Result<crate::model::Timestamp> {
    let wrong =
        || Error::invalid_input(format!("date {text:?} is no time such as 2026-11-20T23:52:16.476709+00:00"));
    let time: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    let nanos = i64::try_from(time.as_nanosecond()).map_err(|_| wrong())?;
    Ok(crate::model::Timestamp::from_nanos(nanos))
}

/// A time as answers give it.
fn time_text(time: crate::model::Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.nanos())).unwrap_or_default().to_string()
}
