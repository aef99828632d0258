//! The REST frontend (feature `server`): HTTP and JSON in front of the library, for clients that exist already.
//!
//! [`Server::bind`] takes an address, [`Server::run`] serves until it is told to stop and then lets the requests under
//! way finish. Connections are accepted by hand and served by hyper, because only so its timer for request headers can
//! be set. Everything that reads or writes data is a handler in a file of its own, found through `routes.rs`; this file
//! knows connections only.

#[allow(dead_code, reason = "the handlers take it into use one by one")]
mod answer;
mod auth;
mod base64;
#[allow(dead_code, reason = "the handlers take it into use one by one")]
mod body;
#[allow(dead_code, reason = "the handlers take it into use one by one")]
mod budget;
mod log;
#[allow(dead_code, unused_imports, reason = "the handlers take it into use one by one")]
mod pushgateway;
mod routes;
#[allow(dead_code, unused_imports, reason = "the handlers take it into use one by one")]
mod ubiops;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

pub use auth::Tokens;
pub use body::BodyLimits;
pub use log::{Level, set_level};

use axum::Router;
use budget::Budget;

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
    /// What it takes on.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            allowed_hosts: Vec::new(),
            tokens: Tokens::default(),
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
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

/// What all requests share.
#[derive(Debug)]
struct Frame {
    options: Options,
    #[allow(dead_code, reason = "the handlers take it into use")]
    budget: Budget,
    requests: Semaphore,
}

impl Frame {
    fn new(options: Options) -> Arc<Self> {
        let limits = options.limits;
        Arc::new(Frame {
            budget: Budget::new(limits.bodies_size_max),
            requests: Semaphore::new(limits.request_count_max),
            options,
        })
    }
}

/// A server that has its address and is ready to run.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    router: Router,
    limits: Limits,
}

impl Server {
    /// Takes the address. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// `Busy` when another process has the address, `Io` when the system refuses it for another reason.
    pub async fn bind(options: Options) -> Result<Self> {
        let frame = Frame::new(options);
        let router = routes::router(&frame, routes::table());
        Self::bind_router(&frame, router).await
    }

    async fn bind_router(frame: &Frame, router: Router) -> Result<Self> {
        let listen = frame.options.listen;
        let listener = TcpListener::bind(listen).await.map_err(|error| bind_error(listen, error))?;
        Ok(Server { listener, router, limits: frame.options.limits })
    }

    /// The address that was taken.
    ///
    /// # Errors
    /// `Io` when the system does not say.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|error| Error::io("read the address of the listener", "", error))
    }

    /// Serves until `stop` is ready; then accepts no more and returns when the requests under way are done, or after
    /// [`Limits::shutdown_timeout`].
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Server { listener, router, limits } = self;
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
fn bind_error(listen: SocketAddr, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::AddrInUse {
        return Error::busy(format!("address in use: {listen}; choose another with --listen"));
    }
    Error::io("listen", listen.to_string(), error).context("--listen")
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
