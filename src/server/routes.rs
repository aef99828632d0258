//! Which handler answers which method and path, who may call it, and the guard before all of them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use axum::middleware::{self, Next};
use axum::routing::{MethodRouter, delete, get, patch, post, put};

use super::answer::{World, refuse, text_answer};
use super::auth::{self, Access};
use super::cors::Allowance;
use super::{
    Frame, events, import, openapi, otlp, prometheus, pushgateway, query, remote_write, sessions, ubiops,
};

/// One line of the table.
pub(super) struct Route {
    pub(super) path: &'static str,
    access: Access,
    handler: MethodRouter<Arc<Frame>>,
}

pub(super) fn route(path: &'static str, access: Access, handler: MethodRouter<Arc<Frame>>) -> Route {
    Route { path, access, handler }
}

/// All routes.
pub(super) fn table() -> Vec<Route> {
    use Access::{Open, Read, Write};
    vec![
        route("/", Open, get(pushgateway::hello)),
        route("/-/healthy", Open, get(healthy)),
        route("/-/ready", Open, get(healthy)),
        route("/ping", Open, get(no_content)),
        route("/metrics", Read, get(pushgateway::metrics)),
        // Our own queries.
        route("/api/query", Read, get(query::query).post(query::query)),
        route("/api/events", Read, get(events::events).post(events::events)),
        route("/api/openapi.json", Read, get(openapi::openapi)),
        // Prometheus.
        route("/api/v1/write", Write, post(remote_write::write)),
        route("/api/v1/import/prometheus", Write, post(import::import_text)),
        route("/api/v1/read", Read, post(prometheus::read)),
        route("/api/v1/query", Read, get(prometheus::query).post(prometheus::query)),
        route("/api/v1/query_range", Read, get(prometheus::query_range).post(prometheus::query_range)),
        route("/api/v1/labels", Read, get(prometheus::labels).post(prometheus::labels)),
        route("/api/v1/label/{name}/values", Read, get(prometheus::label_values)),
        route("/api/v1/series", Read, get(prometheus::series).post(prometheus::series)),
        route("/api/v1/metadata", Read, get(prometheus::metadata)),
        route("/api/v1/format_query", Read, get(prometheus::format_query).post(prometheus::format_query)),
        route("/api/v1/parse_query", Read, get(prometheus::parse_query).post(prometheus::parse_query)),
        route("/api/v1/query_exemplars", Read, get(prometheus::exemplars).post(prometheus::exemplars)),
        route("/api/v1/rules", Read, get(prometheus::no_rules)),
        route("/api/v1/alerts", Read, get(prometheus::no_alerts)),
        route("/api/v1/alertmanagers", Read, get(prometheus::no_alertmanagers)),
        route("/api/v1/targets", Read, get(prometheus::no_targets)),
        route("/api/v1/targets/metadata", Read, get(prometheus::no_target_metadata)),
        route("/api/v1/scrape_pools", Read, get(prometheus::no_scrape_pools)),
        route("/api/v1/features", Read, get(prometheus::features)),
        route("/api/v1/openapi.yaml", Read, get(openapi::openapi_yaml)),
        route("/api/v1/status/buildinfo", Read, get(prometheus::build_info)),
        route("/api/v1/status/runtimeinfo", Read, get(prometheus::runtime_info)),
        route("/api/v1/status/flags", Read, get(prometheus::flags)),
        route("/api/v1/status/config", Read, get(prometheus::config)),
        route("/api/v1/status/walreplay", Read, get(prometheus::wal_replay)),
        route("/api/v1/status/tsdb", Read, get(prometheus::tsdb)),
        route("/api/v1/status/tsdb/blocks", Read, get(prometheus::blocks)),
        route("/api/v1/admin/tsdb/snapshot", Write, post(prometheus::snapshot).put(prometheus::snapshot)),
        route(
            "/api/v1/admin/tsdb/delete_series",
            Write,
            post(prometheus::delete_series).put(prometheus::delete_series),
        ),
        route(
            "/api/v1/admin/tsdb/clean_tombstones",
            Write,
            post(prometheus::clean_tombstones).put(prometheus::clean_tombstones),
        ),
        // OTLP.
        route("/v1/metrics", Write, post(otlp::export)),
        route("/api/v1/otlp/v1/metrics", Write, post(otlp::export)),
        // InfluxDB.
        route("/write", Write, post(import::write_lines)),
        route("/api/v2/write", Write, post(import::write_lines)),
        route("/api/v3/write_lp", Write, post(import::write_lines_v3)),
        // Pushgateway.
        route("/metrics/{*group}", Write, put(pushgateway::put)),
        route("/metrics/{*group}", Write, post(pushgateway::post)),
        route("/metrics/{*group}", Write, delete(pushgateway::delete)),
        route("/api/v1/metrics", Read, get(pushgateway::groups)),
        route("/api/v1/status", Read, get(pushgateway::gateway_status)),
        // Sessions.
        route("/health", Open, get(sessions::health)),
        route("/api/sessions", Write, post(sessions::create)),
        route("/api/sessions", Read, get(sessions::list)),
        route("/api/data/sessions", Read, get(sessions::list_whole)),
        route("/api/sessions/{id}", Read, get(sessions::read)),
        route("/api/sessions/{id}", Write, delete(sessions::delete)),
        route("/api/sessions/{id}/metrics", Write, post(sessions::metric)),
        route("/api/sessions/{id}/events", Write, post(sessions::event)),
        route("/api/sessions/{id}/state", Write, post(sessions::state)),
        route("/api/sessions/{id}/heartbeat", Write, post(sessions::heartbeat)),
        route("/api/sessions/{id}/end", Write, post(sessions::end)),
        route("/api/sessions/{id}/crash", Write, post(sessions::crash)),
        route("/api/sessions/{id}/resume", Write, post(sessions::resume)),
        // UbiOps.
        route("/{version}/projects/{project}/time-series/aggregate", Write, post(ubiops::write)),
        route("/{version}/projects/{project}/time-series/data", Write, post(ubiops::write)),
        route("/{version}/projects/{project}/time-series/data", Read, get(ubiops::read)),
        route("/{version}/projects/{project}/time-series/search", Read, get(ubiops::search)),
        route("/{version}/projects/{project}/time-series/{id}", Write, delete(ubiops::delete_series)),
        route("/{version}/projects/{project}/metrics", Write, post(ubiops::create_metric)),
        route("/{version}/projects/{project}/metrics", Read, get(ubiops::list_metrics)),
        route("/{version}/projects/{project}/metrics/{metric}", Read, get(ubiops::get_metric)),
        route("/{version}/projects/{project}/metrics/{metric}", Write, patch(ubiops::change_metric)),
        route("/{version}/projects/{project}/metrics/{metric}", Write, delete(ubiops::delete_metric)),
    ]
}

/// Puts `routes` behind the guard.
pub(super) fn router(frame: &Arc<Frame>, routes: Vec<Route>) -> Router {
    let mut router = Router::new();
    for Route { path, access, handler } in routes {
        let guard = middleware::from_fn_with_state((Arc::clone(frame), access), check_access);
        router = router.route(path, handler.layer(guard));
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(frame), check_request))
        .with_state(Arc::clone(frame))
}

/// The server is started once the database is open, so that being reached means being ready.
async fn healthy() -> Response<Body> {
    text_answer(StatusCode::OK, "OK")
}

/// InfluxDB's sign of life.
async fn no_content() -> Response<Body> {
    import::empty(StatusCode::NO_CONTENT)
}

/// Before every request, also those without a route: the name it is sent to, and how many are under way.
async fn check_request(State(frame): State<Arc<Frame>>, request: Request, next: Next) -> Response<Body> {
    let world = World::of(request.uri().path());
    let headers = request.headers();
    if let Err(error) = auth::check_host(header(headers, HOST), &frame.options.allowed_hosts) {
        return refuse(world, StatusCode::FORBIDDEN, &error.to_string(), headers);
    }
    let Ok(_permit) = frame.requests.try_acquire() else {
        let message = format!(
            "{} requests are under way (--request-count-max)",
            frame.options.limits.request_count_max
        );
        return refuse(world, StatusCode::SERVICE_UNAVAILABLE, &message, headers);
    };
    let allowance = frame.options.cors_origins.allow(world, headers);
    let mut answer = match allowance {
        Some(_) if Allowance::is_preflight(request.method(), headers) => {
            import::empty(StatusCode::NO_CONTENT)
        }
        _ => next.run(request).await,
    };
    if let Some(allowance) = allowance {
        allowance.add(answer.headers_mut());
    }
    // What is stored is given out as it is; no browser is to take it for markup.
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Before a route: the token, and no writing by pages of other sites.
async fn check_access(
    State((frame, access)): State<(Arc<Frame>, Access)>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let headers = request.headers();
    let world = World::of(request.uri().path());
    if !frame.options.tokens.allow(access, header(headers, AUTHORIZATION)) {
        let message = "a token is needed, as Bearer, as Token or as the password of Basic";
        return refuse(world, StatusCode::UNAUTHORIZED, message, headers);
    }
    if access == Access::Write
        && let Err(error) = auth::check_origin(header(headers, ORIGIN), header(headers, HOST))
    {
        return refuse(world, StatusCode::FORBIDDEN, &error.to_string(), headers);
    }
    next.run(request).await
}

/// A header as text; one that is no text is as good as none that fits.
fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?.?"))
}

async fn not_found(request: Request) -> Response<Body> {
    let path = request.uri().path();
    refuse(World::of(path), StatusCode::NOT_FOUND, &format!("there is no {path}"), request.headers())
}

async fn method_not_allowed(request: Request) -> Response<Body> {
    let path = request.uri().path();
    let message = format!("{} is not taken by {path}", request.method());
    refuse(World::of(path), StatusCode::METHOD_NOT_ALLOWED, &message, request.headers())
}
