//! Which sessions a list holds.

use crate::error::{Error, Result};
use crate::ingest::session::id::SessionId;
use crate::ingest::session::view::SessionStatus;
use crate::ingest::session::{LOG_NAME, SessionInfo};
use crate::model::{Selector, TimeRange, Timestamp};

/// Most sessions of one list unless told otherwise.
const LIMIT_DEFAULT: usize = 100;
/// Most sessions of one list that a URL may ask for.
pub const SESSION_LIST_LIMIT_MAX: usize = 10_000;

/// Which sessions are listed: those that satisfy all that is given, newest first.
///
/// ```
/// use icecore::ingest::{SessionFilter, SessionStatus};
///
/// let crashed = SessionFilter::default().product("MyApp").status(SessionStatus::Crashed);
/// assert_eq!(crashed.limit, 100);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SessionFilter {
    /// Of this product.
    pub product: Option<String>,
    /// In this version.
    pub version: Option<String>,
    /// On this host.
    pub hostname: Option<String>,
    /// On this machine.
    pub machine_id: Option<String>,
    /// That stand so.
    pub status: Option<SessionStatus>,
    /// Created in this stretch of time.
    pub range: TimeRange,
    /// Created before this one: the last of the page before.
    pub before: Option<SessionId>,
    /// At most so many. Default: 100.
    pub limit: usize,
}

impl Default for SessionFilter {
    fn default() -> Self {
        SessionFilter {
            product: None,
            version: None,
            hostname: None,
            machine_id: None,
            status: None,
            range: TimeRange::ALL,
            before: None,
            limit: LIMIT_DEFAULT,
        }
    }
}

impl SessionFilter {
    /// The same, of this product.
    #[must_use]
    pub fn product(mut self, product: &str) -> Self {
        self.product = Some(product.to_owned());
        self
    }

    /// The same, that stand so.
    #[must_use]
    pub fn status(mut self, status: SessionStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// The same, at most so many.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Reads one parameter of a URL's query: `product`, `version`, `hostname`, `machine_id`, `status`, `before`
    /// (an id), `limit`. Returns whether it is one of them. Times are left to the caller, who knows their forms.
    ///
    /// # Errors
    /// `InvalidInput` naming the parameter whose value is wrong.
    pub fn set_parameter(&mut self, name: &str, value: &str) -> Result<bool> {
        let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match name {
            "product" => self.product = text(),
            "version" => self.version = text(),
            "hostname" => self.hostname = text(),
            "machine_id" => self.machine_id = text(),
            "status" => self.status = Some(SessionStatus::from_name(value)?),
            "before" => self.before = Some(value.parse().map_err(|error: Error| error.context("before"))?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=SESSION_LIST_LIMIT_MAX).contains(limit));
                let refused = || Error::invalid_input(format!("limit: not in 1 to {SESSION_LIST_LIMIT_MAX}"));
                self.limit = limit.ok_or_else(refused)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The parameters of a URL's query that [`SessionFilter::set_parameter`] reads.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![("limit", self.limit.to_string())];
        let texts = [
            ("product", &self.product),
            ("version", &self.version),
            ("hostname", &self.hostname),
            ("machine_id", &self.machine_id),
        ];
        pairs.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
        pairs.extend(self.status.map(|status| ("status", status.name().to_owned())));
        pairs.extend(self.before.map(|id| ("before", id.to_string())));
        pairs
    }

    /// The series of creations to look at.
    pub(super) fn log_selector(&self) -> Selector {
        let selector = Selector::name(LOG_NAME);
        match &self.product {
            Some(product) => selector.with("product", product.as_str()),
            None => selector,
        }
    }

    /// The first time at which nothing is looked for.
    pub(super) fn end(&self) -> Timestamp {
        self.before.map_or(self.range.end, |id| self.range.end.min(id.created_at()))
    }

    /// Whether a session with these attributes is let through.
    pub(super) fn takes(&self, info: &SessionInfo) -> bool {
        let pairs = [
            (&self.product, &info.product),
            (&self.version, &info.version),
            (&self.hostname, &info.hostname),
            (&self.machine_id, &info.machine_id),
        ];
        pairs.into_iter().all(|(wanted, found)| wanted.as_ref().is_none_or(|wanted| wanted == found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_round_trip() {
        let filter = SessionFilter {
            version: Some("1".to_owned()),
            before: Some(SessionId::new(Timestamp::from_nanos(5), 6)),
            ..SessionFilter::default().product("p").status(SessionStatus::Crashed).limit(7)
        };
        let mut read = SessionFilter::default();
        for (name, value) in filter.parameters() {
            assert!(read.set_parameter(name, &value).unwrap());
        }
        assert_eq!(read, filter);
        assert!(!read.set_parameter("page", "2").unwrap());
    }

    #[test]
    fn wrong_parameters_are_named() {
        for (name, value) in
            [("limit", "0"), ("limit", "10001"), ("limit", "x"), ("status", "odd"), ("before", "7")]
        {
            let error = SessionFilter::default().set_parameter(name, value).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
}
