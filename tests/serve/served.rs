//! `icecore serve` as a process of its own, for the tests beside this file and for `benches/load`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Served {
    child: Child,
    /// Where it listens for HTTP.
    pub(crate) address: SocketAddr,
    /// Where it listens for StatsD datagrams.
    pub(crate) statsd: SocketAddr,
    log: Option<JoinHandle<String>>,
}

impl Served {
    /// Starts `icecore serve --data data` on free ports and waits until it listens.
    #[track_caller]
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), data, arguments)
    }

    /// As [`Served::start`], at an address where one has listened before.
    #[track_caller]
    pub(crate) fn start_at(listen: SocketAddr, data: &Path, arguments: &[&str]) -> Self {
        Self::spawn(listen, data, arguments, &[])
    }

    /// As [`Served::start`], with variables of the environment.
    #[track_caller]
    pub(crate) fn start_in(data: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::spawn(SocketAddr::from(([127, 0, 0, 1], 0)), data, arguments, variables)
    }

    #[track_caller]
    fn spawn(listen: SocketAddr, data: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_icecore"))
            .args(["serve", "--listen", &listen.to_string(), "--statsd", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (address, statsd) = read_addresses(&mut stderr);
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Served { child, address, statsd, log: Some(log) }
    }

    /// Sends a request without a body on a connection of its own; the whole answer.
    pub(crate) fn get(&self, path: &str) -> String {
        self.ask("GET", path, "", b"")
    }

    /// Sends a request on a connection of its own; the whole answer.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// The value of one of the server's own metrics.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in {page}")).parse().unwrap()
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process as a crash does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks the process to end, as `kill` does without an option.
    #[track_caller]
    pub(crate) fn terminate(&self) {
        let status = Command::new("kill").arg(self.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end; how it ended, and what was logged.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.log.take().map_or_else(String::new, |log| log.join().unwrap()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The addresses in the line that says where it listens.
#[track_caller]
fn read_addresses(stderr: &mut BufReader<ChildStderr>) -> (SocketAddr, SocketAddr) {
    let mut seen = String::new();
    while stderr.read_line(&mut seen).unwrap() > 0 {
        let Some((_, rest)) = seen.split_once(" on http://") else { continue };
        let (address, statsd) = rest.trim().split_once(", StatsD on ").unwrap();
        return (address.parse().unwrap(), statsd.parse().unwrap());
    }
    panic!("the server did not start: {seen}");
}
