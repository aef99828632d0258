//! The REST frontend (feature `server`): HTTP and JSON in front of the library, for clients that exist already.
//!
//! [`Server::bind`] takes an address, [`Server::run`] serves until it is told to stop and then lets the requests under
//! way finish. Connections are accepted by hand and served by hyper, because only so its timer for request headers can
//! be set. Everything that reads or writes data is a handler in a file of its own, found through `routes.rs`; this file
//! knows connections only.

mod answer;
mod auth;
mod base64;
mod body;
mod budget;
mod columns;
mod compress;
mod cors;
mod events;
mod handles;
mod import;
mod intake;
mod log;
mod metadata;
mod openapi;
mod otlp;
mod page;
mod parameters;
mod piecewise;
mod prometheus;
mod pushgateway;
mod query;
mod reading;
mod remote_write;
mod routes;
mod sessions;
mod statsd;
mod ubiops;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Response;
use axum::http::request::Parts;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::db::{Db, Durability};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::protocol::body::Encoding;

pub use auth::Tokens;
pub use body::BodyLimits;
pub use cors::CorsOrigins;
pub use log::{Level, set_level};

use answer::{World, refuse};
use budget::Budget;
use handles::Handles;
use metadata::KnownMetadata;
use otlp::Deltas;
use parking_lot::Mutex;
use pushgateway::Groups;
use reading::Readings;
use sessions::SessionHandles;
use statsd::{Listener, StatsdCounts};

/// How often live groups of the Pushgateway world are written again.
const GROUP_INTERVAL: Duration = Duration::from_secs(60);
/// How long to wait after the system had no file or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How the server is run. All defaults are those of `icecore serve`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes any.
    pub listen: SocketAddr,
    /// Names besides `localhost` under which it is addressed; see [`Tokens`] for who may.
    pub allowed_hosts: Vec<String>,
    /// Who may write and read.
    pub tokens: Tokens,
    /// Where StatsD datagrams are received; `None` receives none.
    pub statsd: Option<SocketAddr>,
    /// How often what came by StatsD is written.
    pub statsd_interval: Duration,
    /// Whether a StatsD gauge with a sign adds to the last value, as StatsD has it, or is the value, as Datadog does.
    pub statsd_relative_gauges: bool,
    /// The pages of which other sites may read the Prometheus API.
    pub cors_origins: CorsOrigins,
    /// Whether the routes of the Prometheus API that make snapshots and delete are there.
    pub admin_api: bool,
    /// How far back a selector of a query looks for a sample.
    pub query_lookback: Duration,
    /// What it takes on.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            allowed_hosts: Vec::new(),
            tokens: Tokens::default(),
            statsd: Some(SocketAddr::from(([127, 0, 0, 1], 9125))),
            statsd_interval: Duration::from_secs(10),
            statsd_relative_gauges: false,
            cors_origins: CorsOrigins::default(),
            admin_api: false,
            query_lookback: Duration::from_secs(300),
            limits: Limits::default(),
        }
    }
}

/// What the server takes on at once, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections; further ones wait to be accepted. Below the usual 1,024 open files of a process.
    pub connection_count_max: usize,
    /// Requests under way; further ones are answered with 503.
    pub request_count_max: usize,
    /// All bodies in flight together, in bytes; what does not fit is answered with 503.
    pub bodies_size_max: usize,
    /// Size of all headers of a request, in bytes; 431 beyond.
    pub header_size_max: usize,
    /// From the moment that a request can be read until its headers are there; so long an idle connection is kept too.
    pub header_timeout: Duration,
    /// One body. A real client sends 75 MB at once.
    pub body: BodyLimits,
    /// Samples of one request: with the keys of their series they take some hundred bytes each while it is read.
    pub sample_count_max: usize,
    /// Series of one request of remote write, each entry counting.
    pub series_count_max: usize,
    /// How far ahead of the server's clock a sample may be.
    pub time_ahead_max: Duration,
    /// How long a client may leave unread what it is sent. Linux only.
    pub write_timeout: Duration,
    /// Requests that read at once; further ones wait for their turn. As Prometheus has it.
    pub query_count_max: usize,
    /// How long one of them may take, waiting included. As Prometheus has it.
    pub query_timeout: Duration,
    /// Most samples that a query may read. As Prometheus has it.
    pub query_sample_count_max: u64,
    /// Most memory that a query may hold, in bytes.
    pub query_memory_max: u64,
    /// How long requests under way may take to finish after the server was told to stop.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connection_count_max: 768,
            request_count_max: 256,
            bodies_size_max: 512 << 20,
            header_size_max: 64 << 10,
            header_timeout: Duration::from_secs(60),
            body: BodyLimits {
                size_max: 128 << 20,
                idle_timeout: Duration::from_secs(30),
                timeout: Duration::from_secs(300),
            },
            sample_count_max: 4 << 20,
            series_count_max: 1 << 20,
            time_ahead_max: Duration::from_secs(24 * 3600),
            write_timeout: Duration::from_secs(60),
            query_count_max: 20,
            query_timeout: Duration::from_secs(120),
            query_sample_count_max: 50_000_000,
            query_memory_max: 512 << 20,
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

/// What all requests share.
#[derive(Debug)]
struct Frame {
    options: Options,
    db: Db,
    env: Env,
    durability: Durability,
    budget: Budget,
    requests: Semaphore,
    /// For work on large bodies: as many at once as there are processors, so that each is soon done with its memory.
    large: Semaphore,
    handles: Handles,
    known_metadata: KnownMetadata,
    deltas: Deltas,
    groups: Mutex<Groups>,
    sessions: SessionHandles,
    statsd: StatsdCounts,
    readings: Arc<Readings>,
    /// When the server was started.
    started: Timestamp,
}

impl Frame {
    fn new(options: Options, db: Db) -> Arc<Self> {
        let limits = options.limits;
        let env = db.options().env.clone();
        Arc::new(Frame {
            started: env.clock.now(),
            env,
            durability: db.options().durability,
            db,
            handles: Handles::default(),
            known_metadata: KnownMetadata::default(),
            deltas: Deltas::default(),
            groups: Mutex::default(),
            sessions: SessionHandles::default(),
            statsd: StatsdCounts::default(),
            readings: Arc::new(Readings::new(limits.query_count_max)),
            budget: Budget::new(limits.bodies_size_max),
            requests: Semaphore::new(limits.request_count_max),
            large: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
            options,
        })
    }
}

impl Frame {
    /// Runs `work` of a request. What is large, or waits for the device, does not hold up the thread's other requests.
    fn run<T>(&self, is_large: bool, work: impl FnOnce() -> T) -> T {
        if is_large || self.durability == Durability::Sync {
            tokio::task::block_in_place(work)
        } else {
            work()
        }
    }
}

/// Collects the body of `request` and answers with what `handle` makes of it; refusals have the form of the path's
/// world.
async fn take(
    frame: &Frame,
    request: Request,
    handle: impl FnOnce(&Parts, &[u8]) -> Response<Body>,
) -> Response<Body> {
    match body::encoding(request.headers()) {
        Ok(encoding) => take_encoded(frame, request, encoding, handle).await,
        Err(refusal) => refuse_body(&refusal, &request.into_parts().0),
    }
}

/// As [`take`], for a body in `encoding`, whatever the headers say.
async fn take_encoded(
    frame: &Frame,
    request: Request,
    encoding: Encoding,
    handle: impl FnOnce(&Parts, &[u8]) -> Response<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let limits = frame.options.limits.body;
    let sent = match body::receive(encoding, &parts.headers, body, limits, &frame.budget).await {
        Ok(sent) => sent,
        Err(refusal) => return refuse_body(&refusal, &parts),
    };
    let is_large = sent.is_large();
    // The semaphore is never closed.
    let _turn = if is_large { frame.large.acquire().await.ok() } else { None };
    frame.run(is_large, || match sent.decode(limits, &frame.budget) {
        Ok(plain) => handle(&parts, &plain),
        Err(refusal) => refuse_body(&refusal, &parts),
    })
}

fn refuse_body(refusal: &body::Refusal, parts: &Parts) -> Response<Body> {
    refuse(World::of(parts.uri.path()), refusal.status, &refusal.message, &parts.headers)
}

/// A server that has its address and is ready to run.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    statsd: Option<Listener>,
    router: Router,
    frame: Arc<Frame>,
}

impl Server {
    /// Takes the address, to serve `db`. Must be called within a multi-threaded Tokio runtime.
    ///
    /// # Errors
    /// `Busy` when another process has the address, `Io` when the system refuses it for another reason.
    pub async fn bind(options: Options, db: Db) -> Result<Self> {
        let frame = Frame::new(options, db);
        let router = routes::router(&frame, routes::table());
        Self::bind_router(frame, router).await
    }

    async fn bind_router(frame: Arc<Frame>, router: Router) -> Result<Self> {
        let listen = frame.options.listen;
        let listener =
            TcpListener::bind(listen).await.map_err(|error| bind_error("--listen", listen, error))?;
        let statsd = frame.options.statsd.map(|address| Listener::bind(&frame, address)).transpose()?;
        pushgateway::restore(&frame)?;
        Ok(Server { listener, statsd, router, frame })
    }

    /// The address that was taken.
    ///
    /// # Errors
    /// `Io` when the system does not say.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|error| Error::io("read the address of the listener", "", error))
    }

    /// The address at which StatsD datagrams are received, if they are.
    pub fn statsd_addr(&self) -> Option<SocketAddr> {
        self.statsd.as_ref().map(Listener::local_addr)
    }

    /// Serves until `stop` is ready; then accepts no more and returns when the requests under way are done, or after
    /// [`Limits::shutdown_timeout`].
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Server { listener, statsd, router, frame } = self;
        let limits = frame.options.limits;
        let repeating = tokio::spawn(repeat_groups(Arc::clone(&frame)));
        let graceful = GracefulShutdown::new();
        let connections = Arc::new(Semaphore::new(limits.connection_count_max));
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                (stream, permit) = accept(&listener, &connections) => {
                    serve(stream, permit, router.clone(), limits, &graceful);
                }
            }
        }
        drop(listener);
        log::write(Level::Info, format_args!("stopping; requests under way are finished"));
        if tokio::time::timeout(limits.shutdown_timeout, graceful.shutdown()).await.is_err() {
            let seconds = limits.shutdown_timeout.as_secs();
            log::write(
                Level::Warn,
                format_args!("requests were still under way after {seconds} s; they are cut off"),
            );
        }
        repeating.abort();
        if let Some(statsd) = statsd {
            // Waits for the listener's last write.
            tokio::task::block_in_place(|| statsd.stop());
        }
    }
}

/// Writes the live groups of the Pushgateway world again and again, so that an instant query finds them.
async fn repeat_groups(frame: Arc<Frame>) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + GROUP_INTERVAL, GROUP_INTERVAL);
    loop {
        ticks.tick().await;
        if let Err(error) = tokio::task::block_in_place(|| pushgateway::repeat(&frame)) {
            log::write(Level::Error, format_args!("pushed groups could not be written again: {error}"));
        }
    }
}

/// The next connection, once there is room for one.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = Arc::clone(connections).acquire_owned().await else {
            // The semaphore is never closed.
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            // The client gave up between its arrival and now.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                log::write(Level::Error, format_args!("cannot accept a connection: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection on a task of its own; `permit` is held until it ends.
fn serve(
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    router: Router,
    limits: Limits,
    graceful: &GracefulShutdown,
) {
    // Answers are short and come in one write, so that Nagle's wait can only harm. A failure leaves it as it was.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(limits.write_timeout));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.header_size_max)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        let _permit = permit;
        if let Err(error) = connection.await {
            log::write(Level::Debug, format_args!("connection: {error}"));
        }
    });
}

#[cold]
fn bind_error(flag: &str, address: SocketAddr, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::AddrInUse {
        return Error::busy(format!("address in use: {address}; choose another with {flag}"));
    }
    Error::io("listen", address.to_string(), error).context(flag)
}

/// Ready when the process is told to stop: SIGTERM or Ctrl-C.
pub async fn stop_signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}

#[cfg(test)]
mod tests;
