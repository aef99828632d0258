//! Who may ask: tokens for writing and for reading, and the names under which the server may be addressed.

use std::net::IpAddr;

use crate::error::{Error, Result};

/// What a route lets its caller do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Anybody may: whether the server lives.
    Open,
    /// Data is given out.
    Read,
    /// Data is taken in, changed or deleted.
    Write,
}

/// The tokens that are asked for; `None` asks for none.
#[derive(Clone, Default)]
pub struct Tokens {
    /// For requests that write.
    pub write: Option<String>,
    /// For requests that read; the token for writing does as well.
    pub read: Option<String>,
}

impl std::fmt::Debug for Tokens {
    /// Says which are set, never what they are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("write", &self.write.is_some())
            .field("read", &self.read.is_some())
            .finish()
    }
}

impl Tokens {
    /// Whether `authorization`, the value of that header, lets its sender do `access`.
    pub(super) fn allow(&self, access: Access, authorization: Option<&str>) -> bool {
        let needed = match access {
            Access::Open => None,
            Access::Read => self.read.as_deref(),
            Access::Write => self.write.as_deref(),
        };
        let Some(needed) = needed else { return true };
        let Some(given) = authorization.and_then(token) else { return false };
        let is_writer = self.write.as_deref().is_some_and(|write| same(write, &given));
        same(needed, &given) || (access == Access::Read && is_writer)
    }
}

/// The token in `Bearer T`, `Token T`, or the password in `Basic base64(user:T)`.
fn token(authorization: &str) -> Option<String> {
    let (scheme, value) = authorization.trim().split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") {
        return Some(value.to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(super::base64::decode(value)?).ok()?;
        return pair.split_once(':').map(|(_, password)| password.to_owned());
    }
    None
}

/// Compares in a time that does not depend on where the two differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

/// Checks the `Host` header, so that a web page which made its own name point here (DNS rebinding) gets nothing.
///
/// A page can only use a name that its author controls in the DNS, so that these are safe: addresses, `localhost` and
/// what ends in it, names without a dot, and the names that the operator allows. No header (HTTP/1.0) is no browser.
///
/// # Errors
/// `InvalidInput` naming the option by which the name is allowed.
pub(super) fn check_host(host: Option<&str>, allowed: &[String]) -> Result<()> {
    let Some(host) = host else { return Ok(()) };
    let name = host_name(host).trim_end_matches('.').to_ascii_lowercase();
    let is_local = name == "localhost" || name.ends_with(".localhost");
    let is_address = name.parse::<IpAddr>().is_ok();
    // Browsers read 0x7f.1 and 2130706433 as addresses too and send them resolved, so that they need no case here.
    if is_local || is_address || !name.contains('.') || allowed.iter().any(|a| a.eq_ignore_ascii_case(&name))
    {
        return Ok(());
    }
    Err(Error::invalid_input(format!(
        "the server is not known as {name:?}; if this is right, start it with --allow-host {name}"
    )))
}

/// Checks the `Origin` header of a request that writes: a browser sends it with what a page of another site makes it
/// send, and no other client does.
///
/// # Errors
/// `InvalidInput` when the page is not from this server.
pub(super) fn check_origin(origin: Option<&str>, host: Option<&str>) -> Result<()> {
    let Some(origin) = origin else { return Ok(()) };
    let from = origin.split_once("://").map(|(_, authority)| authority);
    if from.is_some() && from == host {
        return Ok(());
    }
    Err(Error::invalid_input(format!("a page of {origin:?} may not write here")))
}

/// The host without its port, an IPv6 address without its brackets.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.split(':').next().unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(write: &str, read: &str) -> Tokens {
        let some = |token: &str| (!token.is_empty()).then(|| token.to_owned());
        Tokens { write: some(write), read: some(read) }
    }

    #[test]
    fn a_token_is_taken_in_three_forms() {
        let tokens = tokens("secret", "");
        // base64 of "user:secret" and of ":secret".
        for header in
            ["Bearer secret", "Token secret", "token  secret", "Basic dXNlcjpzZWNyZXQ=", "basic OnNlY3JldA=="]
        {
            assert!(tokens.allow(Access::Write, Some(header)), "{header}");
        }
        for header in
            ["secret", "Bearer other", "Bearer secre", "Basic c2VjcmV0", "Basic ???", "Digest secret", ""]
        {
            assert!(!tokens.allow(Access::Write, Some(header)), "{header}");
        }
        assert!(!tokens.allow(Access::Write, None));
    }

    #[test]
    fn each_access_asks_for_its_own_token() {
        let both = tokens("w", "r");
        assert!(both.allow(Access::Read, Some("Bearer r")) && both.allow(Access::Read, Some("Bearer w")));
        assert!(!both.allow(Access::Write, Some("Bearer r")) && !both.allow(Access::Read, Some("Bearer x")));
        assert!(both.allow(Access::Open, None));
        assert!(tokens("w", "").allow(Access::Read, None));
        assert!(tokens("", "r").allow(Access::Write, None));
        assert!(!format!("{both:?}").contains("\"w\""));
    }

    #[test]
    fn pages_of_other_sites_may_not_write() {
        assert!(check_origin(None, Some("127.0.0.1:9090")).is_ok());
        assert!(check_origin(Some("http://127.0.0.1:9090"), Some("127.0.0.1:9090")).is_ok());
        for origin in ["http://evil.com", "null", "http://127.0.0.1:8080", ""] {
            assert!(check_origin(Some(origin), Some("127.0.0.1:9090")).is_err(), "{origin}");
        }
    }

    #[test]
    fn names_of_strangers_are_refused() {
        let allowed = ["metrics.example.com".to_owned()];
        for host in [
            "127.0.0.1:9090",
            "[::1]:9090",
            "localhost",
            "a.LOCALHOST:1",
            "icecore:9090",
            "Metrics.Example.com.:80",
            "",
        ] {
            assert!(check_host(Some(host), &allowed).is_ok(), "{host}");
        }
        assert!(check_host(None, &allowed).is_ok());
        for host in
            ["evil.example.com", "evil.com:9090", "localhost.evil.com", "127.0.0.1.evil.com", "1.2.3.4.5"]
        {
            let error = check_host(Some(host), &allowed).unwrap_err();
            assert!(error.to_string().contains("--allow-host"), "{host}");
        }
    }
}
