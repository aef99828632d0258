//! The least of an HTTP client: requests are bytes that were made before, answers are read to their end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A connection that is kept.
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream, answer: Vec::new() }
    }

    /// Sends a request; the body of the answer, which must be one of success.
    pub(crate) fn ask(&mut self, request: &[u8]) -> &str {
        self.stream.write_all(request).unwrap();
        self.answer.clear();
        let mut part = [0; 4096];
        loop {
            let size = self.stream.read(&mut part).unwrap();
            assert!(size > 0, "closed after {}", String::from_utf8_lossy(&self.answer));
            self.answer.extend_from_slice(&part[..size]);
            if is_whole(&self.answer) {
                break;
            }
        }
        let text = std::str::from_utf8(&self.answer).unwrap();
        assert!(text.starts_with("HTTP/1.1 2"), "{text}");
        text.split_once("\r\n\r\n").unwrap().1
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(answer) else { return false };
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}
