//! HTTP/1.1 for operators and their tools: which paths there are, and what a peer may take.
//!
//! **Invariants:** a connection has one request, so many are open at a time as [`Limits`] says, and each is over in its
//! time, whatever its peer does; no body is read. Nothing here fails the broker: what goes wrong costs one request.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use corelog_uring::status;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::health::{self, Check, Question};
use super::page::{self, Form, Process};
use crate::roll::Roll;
use crate::stop::{Stop, Wanted};

/// The longest head of a request, in bytes; the least that the library takes.
const HEAD_BYTES: usize = 8 << 10;
/// Pause after an accept that failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What peers may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections that are served at a time; more wait in the listener's queue.
    connections: usize,
    /// Until a request's head is there.
    head_time: Duration,
    /// From accept to close: the head, the roll call twice, and the peer's reading.
    connection_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 32, head_time: Duration::from_secs(5), connection_time: Duration::from_secs(10) }
    }
}

/// What all requests need.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) roll: Roll,
    pub(crate) stop: Stop,
    /// Logs of the store.
    pub(crate) logs: u16,
    pub(crate) limits: Limits,
}

/// Serves connections, and never ends by itself.
pub(crate) async fn serve(listener: TcpListener, broker: Arc<Broker>) {
    let limits = broker.limits;
    let router = router(broker);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut failing = false;
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("nobody closes it");
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                tokio::spawn(connection(stream, router.clone(), limits, permit));
            }
            Err(error) => {
                // Said once: it is tried again all the time.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "no connection for metrics and health can be taken");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, limits: Limits, permit: OwnedSemaphorePermit) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(limits.connection_time, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics or health ended badly"),
        Err(_) => tracing::debug!("a connection for metrics or health took too long"),
    }
    drop(permit);
}

fn router(broker: Arc<Broker>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|broker: Asked, query: RawQuery| answer(broker, query, Question::Live)))
        .route("/readyz", get(|broker: Asked, query: RawQuery| answer(broker, query, Question::Ready)))
        .route("/healthz", get(|broker: Asked, query: RawQuery| answer(broker, query, Question::Healthy)))
        .with_state(broker)
}

type Asked = State<Arc<Broker>>;

async fn metrics(State(broker): Asked, headers: HeaderMap) -> Response {
    let form = Form::accepted_by(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    let answers = broker.roll.call().await;
    let process = Process {
        cpu_us: status::process_cpu().as_micros() as u64,
        resident_bytes: status::resident_bytes(),
        logs: broker.logs,
    };
    match page::render(answers, process, form) {
        Ok(page) => respond(StatusCode::OK, form.content_type(), page),
        Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the page cannot be written\n".to_owned()),
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

async fn answer(State(broker): Asked, RawQuery(query): RawQuery, question: Question) -> Response {
    let answers = broker.roll.call().await;
    let stopping = broker.stop.wanted() != Wanted::Run;
    let checks = health::checks(stopping, &answers.cores);
    let status = match checks.iter().any(|check| check.fails(question)) {
        false => StatusCode::OK,
        true => StatusCode::SERVICE_UNAVAILABLE,
    };
    respond(status, TEXT, lines(&checks, question, is_verbose(query.as_deref())))
}

/// `?verbose`, alone or among others; `?verbose=false` is none.
fn is_verbose(query: Option<&str>) -> bool {
    let mut fields = query.unwrap_or_default().split('&');
    fields.any(|field| matches!(field, "verbose" | "verbose=" | "verbose=1" | "verbose=true"))
}

/// Why the answer is no, and what else is to be known, or `ok`; or all that was looked at.
fn lines(checks: &[Check], question: Question, verbose: bool) -> String {
    let mark = |check: &Check| match () {
        () if check.fails(question) => Some("[-]"),
        () if check.is_named(question) => Some("[!]"),
        () => verbose.then_some("[+]"),
    };
    let shown = checks.iter().filter_map(|check| Some((mark(check)?, check)));
    let line = |(mark, check): (&str, &Check)| format!("{mark} {check}\n");
    let lines: String = shown.map(line).collect();
    if lines.is_empty() { "ok\n".to_owned() } else { lines }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The system's listener as one of the runtime that is entered.
pub(crate) fn listener(fd: std::os::fd::OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

#[cfg(test)]
mod tests;
