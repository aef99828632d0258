//! The frame over real sockets on loopback: limits, timeouts, refusals, shutdown. Requests are written by hand, since
//! what is tested is mostly what no well-behaved client sends.

mod openapi;
mod overload;
mod prometheus;
mod reading;
mod schema;
mod worlds;

use std::io::Write as _;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::answer::text_answer;
use super::auth::Access;
use super::*;
use crate::{ErrorKind, db};

/// A database on a simulated disk with a clock that stands still.
pub(super) fn memory_db() -> Db {
    let options =
        db::Options { env: Env::simulated(1), background: db::Background::Host, ..db::Options::default() };
    Db::open_with("db", options).unwrap()
}

struct Running {
    address: SocketAddr,
    frame: Arc<Frame>,
    /// Lets the requests to `/slow` finish.
    release: Arc<Notify>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(change: impl FnOnce(&mut Options)) -> Running {
    start_on(memory_db(), change).await
}

async fn start_on(db: Db, change: impl FnOnce(&mut Options)) -> Running {
    let mut options =
        Options { listen: SocketAddr::from(([127, 0, 0, 1], 0)), statsd: None, ..Options::default() };
    change(&mut options);
    let frame = Frame::new(options, db);
    let release = Arc::new(Notify::new());
    let slow = {
        let release = Arc::clone(&release);
        get(move || async move {
            release.notified().await;
            "done"
        })
    };
    let mut routes = routes::table();
    routes.push(routes::route("/echo", Access::Write, post(echo)));
    routes.push(routes::route("/api/v1/import/echo", Access::Write, post(echo)));
    routes.push(routes::route("/api/v1/ours", Access::Read, get(|| async { "read" })));
    routes.push(routes::route("/slow", Access::Open, slow));
    let server = Server::bind_router(Arc::clone(&frame), routes::router(&frame, routes)).await.unwrap();
    let address = server.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    Running { address, frame, release, stop, task }
}

async fn echo(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    take(&frame, request, |_, body| text_answer(StatusCode::OK, &String::from_utf8_lossy(body))).await
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `request` and reads until the server closes.
    async fn ask(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request.as_ref()).await;
        read_all(&mut stream).await
    }

    async fn get(&self, path: &str, headers: &str) -> String {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"))
            .await
    }

    async fn post(&self, path: &str, headers: &str, body: &[u8]) -> String {
        let size = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {size}\r\n{headers}\r\n"
        );
        self.ask([head.as_bytes(), body].concat()).await
    }
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `wanted` has come.
async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let mut part = [0; 1024];
        let size = stream.read(&mut part).await.unwrap();
        assert!(size > 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&part[..size]));
    }
    text
}

#[track_caller]
fn check(answer: &str, status: u16, part: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(part), "{answer}");
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_answer_and_others_are_refused() {
    let server = start(|_| {}).await;
    check(&server.get("/-/ready", "").await, 200, "\r\n\r\nOK\n");
    let head = server.ask("HEAD /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    check(&head, 200, "content-length: 3");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    check(
        &server.get("/nowhere", "").await,
        404,
        r#"{"details":"there is no /nowhere","error":"Not Found"}"#,
    );
    check(&server.get("/api/v1/nowhere", "").await, 404, r#""errorType":"not_found""#);
    let wrong = server.post("/-/ready", "", b"").await;
    check(&wrong, 405, "POST is not taken by /-/ready");
    assert!(wrong.to_ascii_lowercase().contains("allow: get,head"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_names_are_refused() {
    let server = start(|options| options.allowed_hosts.push("good.example.com".into())).await;
    let ask = async |host: &str| {
        server.ask(format!("GET /-/ready HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    };
    check(&ask("evil.example.com").await, 403, "--allow-host evil.example.com");
    check(&ask("good.example.com:1").await, 200, "OK");
    let old = server.ask("GET /-/ready HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200"), "{old}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_asked_for_in_the_form_of_each_world() {
    let tokens = Tokens { write: Some("w".into()), read: Some("r".into()) };
    let server = start(|options| options.tokens = tokens).await;
    check(&server.get("/-/ready", "").await, 200, "OK");
    check(&server.get("/api/v1/ours", "").await, 401, r#""status":"error""#);
    check(&server.get("/api/v1/ours", "Authorization: Bearer r\r\n").await, 200, "read");
    check(
        &server.post("/api/v1/import/echo", "Authorization: Bearer r\r\n", b"").await,
        401,
        "a token is needed",
    );
    check(&server.post("/api/v1/import/echo", "", b"").await, 401, "www-authenticate: Bearer");
    check(&server.post("/api/v1/import/echo", "Authorization: Token w\r\n", b"x").await, 200, "x");
    check(&server.post("/echo", "Authorization: Basic dTp3\r\n", b"x").await, 200, "x");
    check(&server.get("/nowhere", "").await, 404, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_cannot_write() {
    let server = start(|_| {}).await;
    check(&server.post("/echo", "Origin: http://evil.com\r\n", b"x").await, 403, "may not write here");
    check(&server.post("/echo", "Origin: http://localhost\r\n", b"x").await, 200, "x");
    check(&server.get("/api/v1/ours", "Origin: http://evil.com\r\n").await, 200, "read");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_in_every_form() {
    let server = start(|_| {}).await;
    check(&server.post("/echo", "", b"plain").await, 200, "plain");
    check(&server.post("/echo", "Content-Encoding: gzip\r\n", &gzip(b"packed")).await, 200, "packed");
    check(&server.post("/echo", "Content-Encoding: zstd\r\n", b"x").await, 415, "zstd");
    check(&server.post("/echo", "Content-Encoding: gzip\r\n", b"x").await, 400, "not valid gzip");
    let head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let chunked =
        format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n2\r\nfg\r\n0\r\n\r\n");
    check(&server.ask(chunked).await, 200, "abcdefg");
    check(&server.ask(format!("{head}\r\n")).await, 200, "\r\n\r\n\n");

    let mut stream = server.connect().await;
    stream
        .write_all(format!("{head}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n").as_bytes())
        .await
        .unwrap();
    read_until(&mut stream, "100 Continue").await;
    stream.write_all(b"hi").await.unwrap();
    check(&read_all(&mut stream).await, 200, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_arrive_whole_and_are_given_back() {
    let server = start(|_| {}).await;
    let body = "0123456789abcdef".repeat(1 << 16);
    let answer = server.post("/echo", "", body.as_bytes()).await;
    assert!(answer.contains(&body));
    let answer = server.post("/echo", "Content-Encoding: gzip\r\n", &gzip(body.as_bytes())).await;
    assert!(answer.contains(&body));
    assert_eq!(server.frame.budget.used(), 0, "the handler has given it back before it answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_limit_are_refused() {
    let server = start(|options| options.limits.body.size_max = 1000).await;
    check(&server.post("/echo", "", &[b'a'; 1000]).await, 200, "aaa");
    check(&server.post("/echo", "", &[b'a'; 1001]).await, 413, "larger than 1000 bytes");
    let bomb = gzip(&[0; 1001]);
    check(&server.post("/echo", "Content-Encoding: gzip\r\n", &bomb).await, 413, "more than 1000 bytes");
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "a".repeat(1001));
    let head =
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(&server.ask(format!("{head}{chunk}")).await, 413, "--body-size-max");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_flight_share_one_cap() {
    let server = start(|options| options.limits.bodies_size_max = 1000).await;
    let mut first = server.connect().await;
    let head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 900\r\n\r\n";
    first.write_all(head.as_bytes()).await.unwrap();
    first.write_all(&[b'a'; 800]).await.unwrap();
    while server.frame.budget.used() < 800 {
        tokio::task::yield_now().await;
    }
    let refused = server.post("/echo", "", &[b'b'; 300]).await;
    check(&refused, 503, "--bodies-size-max");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    check(&server.post("/echo", "", &[b'b'; 100]).await, 200, "bbb");
    drop(first);
    while server.frame.budget.used() > 0 {
        tokio::task::yield_now().await;
    }
    check(&server.post("/echo", "", &[b'b'; 900]).await, 200, "bbb");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_headers_and_idle_connections_are_closed() {
    let server = start(|options| options.limits.header_timeout = Duration::from_millis(100)).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /-/ready HTTP/1.1\r\nHost:").await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    let mut silent = server.connect().await;
    assert_eq!(read_all(&mut silent).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_are_refused() {
    let idle = |options: &mut Options| options.limits.body.idle_timeout = Duration::from_millis(100);
    let whole = |options: &mut Options| options.limits.body.timeout = Duration::from_millis(100);
    for server in [start(idle).await, start(whole).await] {
        check(
            &server.ask("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab").await,
            408,
            "slowly",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_over_the_limit_are_refused() {
    let server = start(|options| options.limits.header_size_max = 1000).await;
    check(&server.get("/-/ready", &format!("X: {}\r\n", "a".repeat(1000))).await, 431, "");
    check(&server.get("/-/ready", &format!("X: {}\r\n", "a".repeat(500))).await, 200, "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_the_limit_are_refused() {
    let server = start(|options| options.limits.request_count_max = 1).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    while server.frame.requests.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    check(&server.get("/-/ready", "").await, 503, "--request-count-max");
    server.release.notify_one();
    check(&read_all(&mut slow).await, 200, "done");
    check(&server.get("/-/ready", "").await, 200, "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_wait() {
    let server = start(|options| options.limits.connection_count_max = 1).await;
    let mut first = server.connect().await;
    first.write_all(b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut first, "OK").await;
    let mut second = server.connect().await;
    second.write_all(b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut byte)).await;
    assert!(early.is_err(), "the second connection was served beside the first");
    drop(first);
    check(&read_all(&mut second).await, 200, "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_finishes_what_is_under_way() {
    let server = start(|_| {}).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut idle = server.connect().await;
    idle.write_all(b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut idle, "OK").await;
    let limit = server.frame.options.limits.request_count_max;
    while server.frame.requests.available_permits() == limit {
        tokio::task::yield_now().await;
    }
    server.stop.send(()).unwrap();
    // The idle connection is closed at once, and nobody is accepted any more.
    assert_eq!(read_all(&mut idle).await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
    assert!(!server.task.is_finished());
    server.release.notify_one();
    check(&read_all(&mut slow).await, 200, "done");
    server.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_does_not_wait_for_ever() {
    let server = start(|options| options.limits.shutdown_timeout = Duration::from_millis(50)).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let limit = server.frame.options.limits.request_count_max;
    while server.frame.requests.available_permits() == limit {
        tokio::task::yield_now().await;
    }
    server.stop.send(()).unwrap();
    server.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_names_the_option() {
    let server = start(|_| {}).await;
    let options = Options { listen: server.address, statsd: None, ..Options::default() };
    let error = Server::bind(options, memory_db()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(
        error.to_string().contains("address in use") && error.to_string().contains("--listen"),
        "{error}"
    );
}
