//! Answers in gzip, where the client takes it and it is worth it.

use std::io::Write;

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::answer::with_type;

/// Shorter answers fit a packet or two as they are.
const SIZE_MIN: usize = 1000;

/// An answer with `text`, compressed if `headers`, those of the request, allow it.
pub(super) fn answer(
    status: StatusCode,
    content_type: &'static str,
    text: String,
    headers: &HeaderMap,
) -> Response<Body> {
    if text.len() < SIZE_MIN || !takes_gzip(headers) {
        return with_type(status, content_type, text);
    }
    // The fastest level: numbers as text come to a tenth by any.
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    let Ok(bytes) = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()) else {
        return with_type(status, content_type, text);
    };
    let mut answer = with_type(status, content_type, bytes);
    answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    answer
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|wish| {
        let mut parts = wish.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        name.eq_ignore_ascii_case("gzip") && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let check = |accept: &'static str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accept));
            assert_eq!(takes_gzip(&headers), expected, "{accept}");
            let answer = answer(StatusCode::OK, "text/plain", "a".repeat(SIZE_MIN), &headers);
            assert_eq!(answer.headers().contains_key(CONTENT_ENCODING), expected);
        };
        check("gzip", true);
        check("deflate, GZIP;q=0.5", true);
        check("gzip;q=0", false);
        check("identity", false);
    }

    #[test]
    fn short_answers_stay_as_they_are() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let answer = answer(StatusCode::OK, "text/plain", "short".to_owned(), &headers);
        assert!(!answer.headers().contains_key(CONTENT_ENCODING));
    }
}
