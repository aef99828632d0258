//! Other servers beside ours: started on free ports of loopback, fed by remote write, asked over HTTP.
//!
//! Shared by the bench `promql_servers` and the test `promql_differential`. A server's directory and process go
//! with it. The client is a page of HTTP/1.1 over one connection, so that it costs next to nothing beside a query.

#![allow(dead_code, reason = "the bench and the test each use a part of it")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use prost::Message;

/// Longest that a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server; killed when dropped.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    child: Child,
    address: SocketAddr,
    _dir: Option<tempfile::TempDir>,
}

impl Server {
    /// Prometheus on a directory of its own, taking remote write.
    pub(crate) fn prometheus(program: &Path) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("prometheus.yml");
        std::fs::write(&config, "global:\n  scrape_interval: 1h\n").unwrap();
        let address = free_address();
        let mut command = Command::new(program);
        command
            .arg(option("--config.file=", &config))
            .arg(option("--storage.tsdb.path=", dir.path().join("data")))
            .arg(format!("--web.listen-address={address}"))
            .args(["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"])
            .args(["--query.max-samples=1000000000", "--log.level=error"])
            .arg("--enable-feature=promql-negative-offset,promql-at-modifier");
        Server::start("Prometheus", command, address, "/-/ready", Some(dir))
    }

    /// VictoriaMetrics on a directory of its own.
    pub(crate) fn victoria_metrics(program: &Path) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut command = Command::new(program);
        command
            .arg(option("-storageDataPath=", dir.path().join("data")))
            .arg(format!("-httpListenAddr={address}"))
            .args(["-retentionPeriod=100y", "-search.latencyOffset=0s", "-loggerLevel=ERROR"])
            .args(["-search.maxUniqueTimeseries=1000000", "-search.disableCache"]);
        Server::start("VictoriaMetrics", command, address, "/health", Some(dir))
    }

    /// Ours, on a database that is there.
    pub(crate) fn icecore(program: &Path, data: &Path) -> Server {
        let address = free_address();
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(data).args(["--listen", &address.to_string()]);
        command.args(["--statsd", "off", "--log", "error"]);
        Server::start("icecore", command, address, "/health", None)
    }

    fn start(
        name: &'static str,
        mut command: Command,
        address: SocketAddr,
        ready: &str,
        dir: Option<tempfile::TempDir>,
    ) -> Server {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let mut server = Server { name, child, address, _dir: dir };
        let started = Instant::now();
        while !server.is_ready(ready) {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("{name} ended: {status}");
            }
            assert!(started.elapsed() < START_TIMEOUT, "{name} does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn is_ready(&self, path: &str) -> bool {
        TcpStream::connect(self.address).is_ok() && self.connect().get(path).0 == 200
    }

    pub(crate) fn connect(&self) -> Client {
        Client::new(self.address)
    }

    /// Resident memory now, and the most of it since [`Server::forget_memory_peak`], in bytes.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let field = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let bytes = |key: &str| field(key).unwrap_or_default() * 1024;
        (bytes("VmRSS:"), bytes("VmHWM:"))
    }

    /// Lets the most memory be what it is now (proc(5), `clear_refs`).
    pub(crate) fn forget_memory_peak(&self) {
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that an environment variable names, or one of this name on the path; `None` where neither is.
pub(crate) fn program(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn option(name: &str, path: impl AsRef<OsStr>) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push(path);
    option
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// One connection, kept open.
pub(crate) struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Client {
    fn new(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { address, stream: BufReader::with_capacity(256 << 10, stream) }
    }

    /// Status and body of the answer.
    pub(crate) fn get(&mut self, path: &str) -> (u16, Vec<u8>) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        self.ask(&[head.as_bytes()])
    }

    pub(crate) fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.ask(&[head.as_bytes(), body])
    }

    fn ask(&mut self, parts: &[&[u8]]) -> (u16, Vec<u8>) {
        let status = self.begin(parts).or_else(|| {
            // Servers close connections that are old.
            *self = Client::new(self.address);
            self.begin(parts)
        });
        let status = status.expect("a server that answers");
        let (mut length, mut chunked, mut closes) = (None, false, false);
        loop {
            let line = self.line().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse::<usize>().ok(),
                Some(("transfer-encoding", value)) => chunked = value == "chunked",
                Some(("connection", value)) => closes = value == "close",
                Some(_) => {}
                None => break,
            }
        }
        let mut body = Vec::new();
        match length {
            _ if chunked => while self.chunk(&mut body) {},
            Some(length) => self.exactly(length, &mut body),
            None if status == 204 => {}
            None => drop(self.stream.read_to_end(&mut body).unwrap()),
        }
        if closes {
            *self = Client::new(self.address);
        }
        (status, body)
    }

    /// Sends a request and reads the status of its answer.
    fn begin(&mut self, parts: &[&[u8]]) -> Option<u16> {
        for part in parts {
            self.stream.get_mut().write_all(part).ok()?;
        }
        self.line().split(' ').nth(1)?.parse().ok()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.stream.read_line(&mut line);
        line.trim_end().to_owned()
    }

    fn exactly(&mut self, length: usize, body: &mut Vec<u8>) {
        let start = body.len();
        body.resize(start + length, 0);
        self.stream.read_exact(&mut body[start..]).unwrap();
    }

    /// Appends a chunk; false for the last.
    fn chunk(&mut self, body: &mut Vec<u8>) -> bool {
        let length = usize::from_str_radix(&self.line(), 16).unwrap();
        self.exactly(length, body);
        self.line();
        length > 0
    }

    /// Sends series by remote write 1.0; their samples must be later than those sent before.
    pub(crate) fn write(&mut self, request: &WriteRequest) {
        let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
        let headers = "Content-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n";
        let (status, answer) = self.post("/api/v1/write", headers, &body);
        assert!((200..300).contains(&status), "{status}: {}", String::from_utf8_lossy(&answer));
    }
}

/// `text` as it stands in a URL.
pub(crate) fn url(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let piece = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(piece).collect()
}

/// `prometheus.WriteRequest` of remote write 1.0.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) series: Vec<WriteSeries>,
}

/// `prometheus.TimeSeries`; labels sorted by name.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WriteSeries {
    #[prost(message, repeated, tag = "1")]
    pub(crate) labels: Vec<WriteLabel>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) samples: Vec<WriteSample>,
}

/// `prometheus.Label`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WriteLabel {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// `prometheus.Sample`; the time in milliseconds.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct WriteSample {
    #[prost(double, tag = "1")]
    pub(crate) value: f64,
    #[prost(int64, tag = "2")]
    pub(crate) time: i64,
}

impl WriteSeries {
    /// A series without samples.
    pub(crate) fn new(name: &str, tags: &[(String, String)]) -> WriteSeries {
        let label = |name: &str, value: &str| WriteLabel { name: name.to_owned(), value: value.to_owned() };
        let mut labels = vec![label("__name__", name)];
        labels.extend(tags.iter().map(|(key, value)| label(key, value)));
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        WriteSeries { labels, samples: Vec::new() }
    }
}
