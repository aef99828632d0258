//! Which pages of other sites may read the Prometheus API from a browser (decision 0042).

use std::str::FromStr;

use axum::http::header::{ORIGIN, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::answer::World;
use crate::error::{Error, Result};
use crate::model::Regex;

/// The sites whose pages may read. Default: any, as Prometheus has it; whoever needs a token to read is asked for it
/// all the same.
#[derive(Clone, Debug, Default)]
pub enum CorsOrigins {
    /// Any site.
    #[default]
    Any,
    /// None.
    Off,
    /// Those whose origin, such as `https://grafana.example.org`, matches the regular expression as a whole.
    Matching(Regex),
}

impl FromStr for CorsOrigins {
    type Err = Error;

    /// `off`, `.*`, or a regular expression.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "off" => Ok(CorsOrigins::Off),
            ".*" => Ok(CorsOrigins::Any),
            regex => Regex::new(regex).map(CorsOrigins::Matching),
        }
    }
}

impl std::fmt::Display for CorsOrigins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CorsOrigins::Any => f.write_str(".*"),
            CorsOrigins::Off => f.write_str("off"),
            CorsOrigins::Matching(regex) => f.write_str(regex.pattern()),
        }
    }
}

/// The headers by which a browser lets the page of another site read an answer.
pub(super) struct Allowance {
    origin: HeaderValue,
}

impl CorsOrigins {
    /// What a request of `world` with these headers is answered; nothing where it comes from no other site.
    pub(super) fn allow(&self, world: World, headers: &HeaderMap) -> Option<Allowance> {
        let origin = headers.get(ORIGIN).filter(|_| world == World::Prometheus)?;
        let origin = match self {
            CorsOrigins::Any => HeaderValue::from_static("*"),
            CorsOrigins::Off => return None,
            CorsOrigins::Matching(regex) => {
                origin.to_str().ok().filter(|text| regex.is_match(text))?;
                origin.clone()
            }
        };
        Some(Allowance { origin })
    }
}

impl Allowance {
    /// Whether `method` only asks what it may ask.
    pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS && headers.contains_key("access-control-request-method")
    }

    /// Adds the headers.
    pub(super) fn add(self, headers: &mut HeaderMap) {
        let mut put =
            |name, value| headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        put("access-control-allow-headers", "Accept, Authorization, Content-Type, Origin");
        put("access-control-allow-methods", "GET, POST, OPTIONS");
        put("access-control-expose-headers", "Date");
        headers.insert(HeaderName::from_static("access-control-allow-origin"), self.origin);
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_matched_as_a_whole() {
        let check = |origins: &str, origin: &'static str, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            let origins: CorsOrigins = origins.parse().unwrap();
            let mut answer = HeaderMap::new();
            if let Some(allowance) = origins.allow(World::Prometheus, &headers) {
                allowance.add(&mut answer);
            }
            let found = answer.get("access-control-allow-origin").map(|value| value.to_str().unwrap());
            assert_eq!(found, expected, "{origins} {origin}");
            assert!(origins.allow(World::Sessions, &headers).is_none());
            assert!(origins.allow(World::Prometheus, &HeaderMap::new()).is_none());
        };
        check(".*", "http://a.test", Some("*"));
        check("off", "http://a.test", None);
        check("https?://(a|b)\\.test", "http://b.test", Some("http://b.test"));
        check("https?://(a|b)\\.test", "http://b.test.evil.test", None);
        assert!("(".parse::<CorsOrigins>().is_err());
    }
}
