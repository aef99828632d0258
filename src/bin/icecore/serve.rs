//! `icecore serve`: the REST frontend on a database, until SIGTERM or Ctrl-C.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use icecore::server::{CorsOrigins, Level, Limits, Options, Server, Tokens, set_level, stop_signal};
use icecore::{Db, Durability, ReadMode};

use crate::failure::{Failure, Outcome, usage};

/// Example: icecore serve --data /var/lib/icecore --listen 127.0.0.1:9090
#[derive(Debug, clap::Args)]
#[command(after_help = "Every option is also taken from the environment, as ICECORE_LISTEN for --listen.")]
pub(crate) struct Serve {
    /// The directory of the database; made if it is not there.
    #[arg(long, value_name = "DIR", env = "ICECORE_DATA")]
    data: PathBuf,
    /// Where to listen for HTTP.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", env = "ICECORE_LISTEN")]
    listen: SocketAddr,
    /// Where to listen for StatsD datagrams; `off` for nowhere.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9125", env = "ICECORE_STATSD")]
    statsd: String,
    /// How often what came by StatsD is written.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, env = "ICECORE_STATSD_INTERVAL")]
    statsd_interval: Duration,
    /// A StatsD gauge with a sign adds to the last value, instead of being the value.
    #[arg(long, env = "ICECORE_STATSD_RELATIVE_GAUGES")]
    statsd_relative_gauges: bool,
    /// What an answer of success promises: `os` survives a crash of the process, `sync` a power cut.
    #[arg(long, default_value = "os", env = "ICECORE_DURABILITY")]
    durability: DurabilityArgument,
    /// The token that writing needs.
    #[arg(long, value_name = "TOKEN", env = "ICECORE_WRITE_TOKEN", hide_env_values = true)]
    write_token: Option<String>,
    /// The token that reading needs.
    #[arg(long, value_name = "TOKEN", env = "ICECORE_READ_TOKEN", hide_env_values = true)]
    read_token: Option<String>,
    /// A name, besides localhost, under which the server is addressed; may be given several times.
    #[arg(long = "allow-host", value_name = "NAME", env = "ICECORE_ALLOW_HOST", value_delimiter = ',')]
    allow_hosts: Vec<String>,
    /// Samples older than this are dropped, as in 30d.
    #[arg(long, value_name = "DURATION", value_parser = duration, env = "ICECORE_RETENTION")]
    retention: Option<Duration>,
    /// Largest request body, in bytes, as sent and decompressed.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().body.size_max, env = "ICECORE_BODY_SIZE_MAX")]
    body_size_max: usize,
    /// Longest that a request body may take to arrive.
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = duration, env = "ICECORE_BODY_TIMEOUT")]
    body_timeout: Duration,
    /// Memory of all request bodies in flight, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().bodies_size_max, env = "ICECORE_BODIES_SIZE_MAX")]
    bodies_size_max: usize,
    /// Most requests under way at once.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().request_count_max, env = "ICECORE_REQUEST_COUNT_MAX")]
    request_count_max: usize,
    /// Most connections; further ones wait.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().connection_count_max, env = "ICECORE_CONNECTION_COUNT_MAX")]
    connection_count_max: usize,
    /// Size of all headers of a request, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().header_size_max, env = "ICECORE_HEADER_SIZE_MAX")]
    header_size_max: usize,
    /// Longest that the headers of a request may take to arrive; a connection may idle as long.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration, env = "ICECORE_HEADER_TIMEOUT")]
    header_timeout: Duration,
    /// Longest that nothing of a request body may arrive.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, env = "ICECORE_BODY_IDLE_TIMEOUT")]
    body_idle_timeout: Duration,
    /// Longest that a client may leave unread what it is sent.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration, env = "ICECORE_WRITE_TIMEOUT")]
    write_timeout: Duration,
    /// Longest that requests under way may take after the server was told to stop.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, env = "ICECORE_SHUTDOWN_TIMEOUT")]
    shutdown_timeout: Duration,
    /// Most samples of one request.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().sample_count_max, env = "ICECORE_REQUEST_SAMPLE_COUNT_MAX")]
    request_sample_count_max: usize,
    /// Most series of one request of remote write.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().series_count_max, env = "ICECORE_REQUEST_SERIES_COUNT_MAX")]
    request_series_count_max: usize,
    /// How far ahead of the server's clock a sample may be.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration, env = "ICECORE_TIME_AHEAD_MAX")]
    time_ahead_max: Duration,
    /// Most series alive at once; samples of further ones are answered with 429.
    #[arg(long, value_name = "COUNT", default_value_t = icecore::Options::default().series_count_max, env = "ICECORE_SERIES_COUNT_MAX")]
    series_count_max: u64,
    /// Memory of what is not on disk yet, of the registry of series and of caches, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = icecore::Options::default().memory_size_max, env = "ICECORE_MEMORY_SIZE_MAX")]
    memory_size_max: usize,
    /// Most that the directory may take, in bytes; the oldest samples go. As much as fits unless it is given.
    #[arg(long, value_name = "BYTES", env = "ICECORE_DISK_SIZE_MAX")]
    disk_size_max: Option<u64>,
    /// Requests that read at once; further ones wait for their turn.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().query_count_max, env = "ICECORE_QUERY_COUNT_MAX")]
    query_count_max: usize,
    /// Longest that a query may take, waiting included.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration, env = "ICECORE_QUERY_TIMEOUT")]
    query_timeout: Duration,
    /// Most samples that a query may read.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().query_sample_count_max, env = "ICECORE_QUERY_SAMPLES_MAX")]
    query_samples_max: u64,
    /// Most memory that a query may hold, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().query_memory_max, env = "ICECORE_QUERY_MEMORY_MAX")]
    query_memory_max: u64,
    /// How far back a selector of a query looks for a sample.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration, env = "ICECORE_QUERY_LOOKBACK")]
    query_lookback: Duration,
    /// Other sites whose pages may read the Prometheus API: a regular expression that matches their origin, or `off`.
    #[arg(long, value_name = "REGEX", default_value = ".*", env = "ICECORE_CORS_ORIGIN")]
    cors_origin: CorsOrigins,
    /// Lets the Prometheus API make snapshots and delete series.
    #[arg(long, env = "ICECORE_ENABLE_ADMIN_API")]
    enable_admin_api: bool,
    /// The least that is logged to standard error: debug, info, warn or error.
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "ICECORE_LOG")]
    log: String,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum DurabilityArgument {
    Os,
    Sync,
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| format!("{text:?} is no duration such as 10s, 5m, 12h or 30d"))?;
    let unit = match &text[digits.len()..] {
        "ms" => return Ok(Duration::from_millis(number.max(1))),
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        other => return Err(format!("unit {other:?}; there are ms, s, m, h and d")),
    };
    let seconds = number.checked_mul(unit).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{text:?} is no time to wait"))
}

/// Serves until it is told to stop.
pub(crate) fn run(arguments: &Serve, quiet: bool) -> Outcome {
    let level: Level = if quiet { Level::Error } else { arguments.log.parse().map_err(usage)? };
    set_level(level);
    let options = options(arguments)?;
    let db = Db::open_with(&arguments.data, database_options(arguments))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        let server = Server::bind(options, db.clone()).await?;
        if !quiet {
            let statsd =
                server.statsd_addr().map(|address| format!(", StatsD on {address}")).unwrap_or_default();
            eprintln!(
                "icecore serves {} on http://{}{statsd}",
                arguments.data.display(),
                server.local_addr()?
            );
        }
        server.run(stop_signal()).await;
        Ok::<_, Failure>(())
    })?;
    drop(runtime);
    db.close()?;
    Ok(())
}

fn options(arguments: &Serve) -> Outcome<Options> {
    let statsd = match arguments.statsd.as_str() {
        "off" => None,
        address => {
            Some(address.parse().map_err(|_| usage(format!("--statsd {address:?}: an address or off")))?)
        }
    };
    let mut limits = Limits {
        bodies_size_max: arguments.bodies_size_max,
        request_count_max: arguments.request_count_max,
        query_count_max: arguments.query_count_max,
        connection_count_max: arguments.connection_count_max,
        header_size_max: arguments.header_size_max,
        header_timeout: arguments.header_timeout,
        write_timeout: arguments.write_timeout,
        shutdown_timeout: arguments.shutdown_timeout,
        sample_count_max: arguments.request_sample_count_max,
        series_count_max: arguments.request_series_count_max,
        time_ahead_max: arguments.time_ahead_max,
        query_timeout: arguments.query_timeout,
        query_sample_count_max: arguments.query_samples_max,
        query_memory_max: arguments.query_memory_max,
        ..Limits::default()
    };
    limits.body.size_max = arguments.body_size_max;
    limits.body.timeout = arguments.body_timeout;
    limits.body.idle_timeout = arguments.body_idle_timeout;
    Ok(Options {
        listen: arguments.listen,
        allowed_hosts: arguments.allow_hosts.clone(),
        tokens: Tokens { write: arguments.write_token.clone(), read: arguments.read_token.clone() },
        statsd,
        statsd_interval: arguments.statsd_interval,
        statsd_relative_gauges: arguments.statsd_relative_gauges,
        cors_origins: arguments.cors_origin.clone(),
        admin_api: arguments.enable_admin_api,
        query_lookback: arguments.query_lookback,
        limits,
    })
}

fn database_options(arguments: &Serve) -> icecore::Options {
    let durability = match arguments.durability {
        DurabilityArgument::Os => Durability::Os,
        DurabilityArgument::Sync => Durability::Sync,
    };
    icecore::Options {
        durability,
        retention: arguments.retention,
        series_count_max: arguments.series_count_max,
        memory_size_max: arguments.memory_size_max,
        disk_size_max: arguments.disk_size_max,
        read_mode: ReadMode::Map,
        ..icecore::Options::default()
    }
}
