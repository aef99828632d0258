//! What all senders over HTTP share: an agent with limits, paths, and what an answer means.

use std::time::Duration;

use ureq::http::{Method, Request};
use ureq::{Agent, RequestExt};

use crate::error::{Error, Result};
use crate::ingest::sink::Refused;

/// Longest time of a request, from connecting to the end of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is read.
const ANSWER_SIZE_MAX: u64 = 64 << 20;
/// Most characters of an answer that are shown in an error.
const SHOWN_COUNT_MAX: usize = 300;

/// A server and how to speak to it.
#[derive(Debug)]
pub(super) struct HttpClient {
    agent: Agent,
    /// Scheme, host and the start of the path, without a slash at its end.
    base: String,
    /// The header of that name, where there is one.
    authorization: Option<String>,
}

/// What a server said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The header `x-ratelimit-reset`: in how many seconds the server will listen again.
    pub(super) rate_limit_reset: Option<u64>,
    pub(super) body: String,
}

impl HttpClient {
    /// A client of `address`, to which `scheme` is added where it names none.
    ///
    /// # Errors
    /// `InvalidInput` for an empty address, and for one that no request can be made of.
    pub(super) fn new(scheme: &str, address: &str, authorization: Option<String>) -> Result<Self> {
        let base = if address.contains("://") { address.to_owned() } else { format!("{scheme}://{address}") };
        let base = base.trim_end_matches('/').to_owned();
        let uri: std::result::Result<ureq::http::Uri, _> = base.parse();
        if !uri.is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some_and(|host| !host.is_empty())) {
            return Err(Error::invalid_input(format!("{address:?} is not the address of a server")));
        }
        let config = Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("icecore/", env!("CARGO_PKG_VERSION")));
        Ok(HttpClient { agent: config.build().into(), base, authorization })
    }

    /// The same client of another start of the path.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Puts `suffix` behind the start of every path.
    pub(super) fn extend_base(&mut self, suffix: &str) {
        self.base.push_str(suffix);
    }

    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// `Io` when the server cannot be reached or breaks off, `InvalidInput` when there is no such request.
    pub(super) fn send(&self, method: Method, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        let uri = format!("{}{path}", self.base);
        let mut request = Request::builder().method(&method).uri(&uri);
        if !body.is_empty() {
            request = request.header("Content-Type", content_type);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let failed = |error| failure(&method, &uri, error);
        let sent = if method == Method::GET || method == Method::DELETE {
            request.body(()).map_err(|error| failed(error.into()))?.with_agent(&self.agent).run()
        } else {
            request.body(body).map_err(|error| failed(error.into()))?.with_agent(&self.agent).run()
        };
        let mut response = sent.map_err(failed)?;
        let reset = response.headers().get("x-ratelimit-reset").and_then(|value| value.to_str().ok());
        let rate_limit_reset = reset.and_then(|value| value.trim().parse().ok());
        let text = response.body_mut().with_config().limit(ANSWER_SIZE_MAX).read_to_vec().map_err(failed)?;
        let body = String::from_utf8_lossy(&text).into_owned();
        Ok(Answer { status: response.status().as_u16(), rate_limit_reset, body })
    }
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// `InvalidInput` when it is none.
    pub(in crate::ingest) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body)
            .map_err(|error| Error::invalid_input(format!("the answer is not JSON: {error}")))
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The answer if it is a success, else what the server said, with the time it asks to be left alone.
    pub(super) fn accepted(self, what: &str) -> std::result::Result<Self, Refused> {
        if self.is_success() {
            return Ok(self);
        }
        let message = format!("{what}: the server answered {}: {}", self.status, self.reason());
        Err(match self.status {
            // As the UbiOps client waits: the seconds that are named, else 59, and one more.
            429 => {
                let seconds = self.rate_limit_reset.unwrap_or(59).saturating_add(1);
                Refused {
                    error: Error::limit_exceeded(message),
                    retry_after: Some(Duration::from_secs(seconds)),
                }
            }
            404 => Error::not_found(message).into(),
            500.. => Error::busy(message).into(),
            _ => Error::invalid_input(message).into(),
        })
    }

    /// The text of `error` or `error_message` in a JSON object, else the body.
    fn reason(&self) -> String {
        let json: Option<serde_json::Value> = serde_json::from_str(&self.body).ok();
        let named = |key: &str| json.as_ref()?.get(key)?.as_str().map(str::to_owned);
        let text = named("error").or_else(|| named("error_message")).unwrap_or_else(|| self.body.clone());
        text.trim().chars().take(SHOWN_COUNT_MAX).collect()
    }
}

#[cold]
fn failure(method: &Method, uri: &str, error: ureq::Error) -> Error {
    use std::io::{Error as IoError, ErrorKind};
    let io = match error {
        ureq::Error::Io(error) => error,
        ureq::Error::Timeout(_) => IoError::new(ErrorKind::TimedOut, error),
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
            IoError::other(error)
        }
        error => return Error::invalid_input(format!("cannot {method} {uri}: {error}")),
    };
    Error::io(method.as_str(), uri, io)
}

/// `text` with everything but letters, digits and `-._~` percent-encoded.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_unreserved(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The characters that mean nothing in a path (RFC 3986, section 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Base64 with the alphabet that is safe in paths, padded (RFC 4648, section 5).
pub(super) fn base64_encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut encoded = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let used = place <= group.len();
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            encoded.push(if used { char::from(letter) } else { '=' });
        }
    }
    encoded
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::env::Env;
    use parking_lot::Mutex;
    use std::collections::VecDeque;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::Arc;

    /// A request as it came over the wire.
    #[derive(Clone, Debug)]
    pub(in crate::ingest) struct Received {
        /// Method and path.
        pub(in crate::ingest) line: String,
        headers: Vec<String>,
        pub(in crate::ingest) body: String,
    }

    impl Received {
        pub(in crate::ingest) fn header(&self, name: &str) -> Option<&str> {
            let is_it = |header: &&String| header.to_lowercase().starts_with(&format!("{name}:"));
            self.headers.iter().find(is_it).map(|header| header.split_once(':').unwrap().1.trim())
        }
    }

    /// A server that notes what it gets and gives the answers that were put in, then 200 without a body.
    #[derive(Clone)]
    pub(in crate::ingest) struct FakeServer {
        address: SocketAddr,
        received: Arc<Mutex<Vec<Received>>>,
        answers: Arc<Mutex<VecDeque<String>>>,
    }

    impl FakeServer {
        pub(in crate::ingest) fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let server = FakeServer {
                address: listener.local_addr().unwrap(),
                received: Arc::default(),
                answers: Arc::default(),
            };
            let own = server.clone();
            let serve = move || {
                for stream in listener.incoming() {
                    let _ = own.answer(stream.unwrap());
                }
            };
            Env::system().spawn("fake-server", serve).unwrap();
            server
        }

        fn answer(&self, stream: std::net::TcpStream) -> std::io::Result<()> {
            let mut reader = BufReader::new(&stream);
            let mut line = || {
                let mut line = String::new();
                reader.read_line(&mut line).map(|_| line.trim_end().to_owned())
            };
            let request_line = line()?;
            let mut headers = Vec::new();
            loop {
                let header = line()?;
                if header.is_empty() {
                    break;
                }
                headers.push(header);
            }
            let mut received = Received { line: request_line, headers, body: String::new() };
            let size: usize = received.header("content-length").map_or(0, |size| size.parse().unwrap());
            let mut body = vec![0; size];
            reader.read_exact(&mut body)?;
            received.body = String::from_utf8(body).unwrap();
            self.received.lock().push(received);
            let answer = self.answers.lock().pop_front();
            let answer = answer.unwrap_or_else(|| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned());
            let answer = answer.replacen("\r\n", "\r\nConnection: close\r\n", 1);
            (&stream).write_all(answer.as_bytes())
        }

        pub(in crate::ingest) fn address(&self) -> String {
            format!("http://{}", self.address)
        }

        /// What is answered next: the status line's end, further headers, the body.
        pub(in crate::ingest) fn say(&self, status: &str, headers: &str, body: &str) {
            let size = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{headers}\r\n{body}");
            self.answers.lock().push_back(answer);
        }

        pub(in crate::ingest) fn received(&self) -> Vec<Received> {
            self.received.lock().clone()
        }
    }

    #[test]
    fn encodings_are_those_of_their_specifications() {
        assert_eq!(percent_encode("proj é/x"), "proj%20%C3%A9%2Fx");
        assert_eq!(percent_encode("50%+1"), "50%25%2B1");
        assert_eq!(percent_encode("a-._~Z9"), "a-._~Z9");
        for (text, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("y z", "eSB6")]
        {
            assert_eq!(base64_encode(text.as_bytes()), expected);
        }
        assert_eq!(base64_encode(b"/var/tmp"), "L3Zhci90bXA=");
        assert_eq!(base64_encode(&[0xfb, 0xff]), "-_8=");
    }

    #[test]
    fn addresses_get_a_scheme_and_lose_their_last_slash() {
        let base = |address: &str| HttpClient::new("http", address, None).map(|client| client.base);
        assert_eq!(base("localhost:9091/").unwrap(), "http://localhost:9091");
        assert_eq!(base("https://api.ubiops.com/v2.1").unwrap(), "https://api.ubiops.com/v2.1");
        for wrong in ["", "/", "http://", "http:// x"] {
            assert_eq!(base(wrong).unwrap_err().kind(), crate::ErrorKind::InvalidInput, "{wrong}");
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_an_io_error() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = HttpClient::new("http", &free.to_string(), None).unwrap();
        let error = client.send(Method::POST, "/x", "text/plain", b"y").unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Io);
        assert!(Refused::from(error).is_temporary());
    }

    #[track_caller]
    fn refused(status: u16, body: &str, kind: crate::ErrorKind, part: &str) -> Refused {
        let answer = Answer { status, rate_limit_reset: None, body: body.to_owned() };
        let refused = answer.accepted("POST").unwrap_err();
        assert_eq!(refused.error.kind(), kind);
        assert!(refused.error.to_string().contains(part), "{refused}");
        refused
    }

    #[test]
    fn answers_become_errors_by_status() {
        use crate::ErrorKind;
        assert!(
            !refused(400, r#"{"error":"no name"}"#, ErrorKind::InvalidInput, "400: no name").is_temporary()
        );
        refused(401, r#"{"error_message":"token"}"#, ErrorKind::InvalidInput, "401: token");
        refused(404, "gone\n", ErrorKind::NotFound, "404: gone");
        assert!(refused(503, "", ErrorKind::Busy, "503").is_temporary());
        let limited = refused(429, "", ErrorKind::LimitExceeded, "429");
        assert_eq!(limited.retry_after, Some(Duration::from_secs(60)));
    }
}
