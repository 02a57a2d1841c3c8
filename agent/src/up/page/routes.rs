//! What is asked under which path. The gate comes first, and every answer says what a browser may do with it: nothing
//! that is not on this page.

use super::asking::Question;
use super::assets::ASSETS;
use super::{Shown, Why};
use crate::queue;
use crate::up::gauges::Picture;
use crate::up::queue::{answer, dead_letters};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use hyper::body::Incoming;
use serde::Deserialize;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_schemas::PROMPT_BYTES_MAX;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::info;

/// Largest body of a request: a prompt, whose escapes in JSON can double it, and keys.
const BODY_BYTES_MAX: usize = 2 * PROMPT_BYTES_MAX + 4096;
/// Longest until a body is there.
const BODY_MAX: Duration = Duration::from_secs(10);
/// How often a page is told how things are.
const TELL_EVERY: Duration = Duration::from_secs(1);

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";
/// The type of Prometheus' text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a browser is told with every answer: scripts, styles and questions only from and to here; no frames, no forms,
/// no guessing of types, no copies.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        HeaderName::from_static("content-security-policy"),
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (HeaderName::from_static("x-content-type-options"), "nosniff"),
    (HeaderName::from_static("x-frame-options"), "DENY"),
    (HeaderName::from_static("referrer-policy"), "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (CACHE_CONTROL, "no-store"),
];

type Page = State<Arc<Shown>>;

/// The gate, and behind it the routes.
#[derive(Clone)]
pub(super) struct Service {
    shown: Arc<Shown>,
    routes: Router,
}

/// All of it, for one address; clones share it.
pub(super) fn service(shown: Arc<Shown>) -> Service {
    let mut routes = Router::new();
    for asset in ASSETS {
        let file = move || async move { reply(StatusCode::OK, asset.kind, asset.text) };
        routes = routes.route(asset.path, get(file));
    }
    let routes = routes
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/state", get(state))
        .route("/api/live", get(live))
        .route("/api/dead", get(dead))
        .route("/api/ask", post(ask))
        .route("/api/retry", post(retry))
        .with_state(shown.clone());
    Service { shown, routes }
}

impl tower_service::Service<hyper::Request<Incoming>> for Service {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: hyper::Request<Incoming>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let shown = self.shown.clone();
        let answer = match shown.gate.check(&parts) {
            Ok(()) => Ok(self.routes.call(Request::from_parts(parts, Body::new(body)))),
            Err(refusal) => Err(refusal),
        };
        Box::pin(async move {
            let mut response = match answer {
                Ok(response) => response.await?,
                Err(refusal) => {
                    shown.turned.add(refusal.kind());
                    reply(refusal.status, PLAIN, format!("{}\n", refusal.why))
                }
            };
            for (name, value) in HEADERS {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            Ok(response)
        })
    }
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn stopping() -> Response {
    reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the gateway is stopping\n")
}

/// Shows what there is to see now.
async fn look(shown: &Shown, show: impl FnOnce(&Picture) -> Response) -> Response {
    match shown.views.look().await {
        Some(picture) => show(&picture),
        None => stopping(),
    }
}

async fn metrics(State(shown): Page) -> Response {
    look(&shown, |picture| reply(StatusCode::OK, PROMETHEUS, picture.metrics.clone())).await
}

async fn state(State(shown): Page) -> Response {
    look(&shown, |picture| reply(StatusCode::OK, JSON, picture.page.clone())).await
}

async fn healthz(State(shown): Page, headers: HeaderMap) -> Response {
    look(&shown, |picture| probe(picture, picture.alive(), shown.gate.knows(&headers))).await
}

async fn readyz(State(shown): Page, headers: HeaderMap) -> Response {
    look(&shown, |picture| probe(picture, picture.ready(), shown.gate.knows(&headers))).await
}

/// Each part in a line of its own, for those who may know; the status for all.
fn probe(picture: &Picture, good: bool, knows: bool) -> Response {
    let (status, word) = if good { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ok") };
    let mut text = format!("{word}\n");
    for part in picture.parts.iter().filter(|_| knows) {
        let mark = if part.ok { "ok" } else { "not ok" };
        let _ = writeln!(text, "{:<8}{mark:<8}{}", part.name, part.words);
    }
    if picture.draining && knows {
        text.push_str("stopping, no new prompts are taken\n");
    }
    reply(status, PLAIN, text)
}

/// Server-sent events: how everything is, every second, until either end is gone.
async fn live(State(shown): Page) -> Response {
    let Ok(place) = shown.viewers.clone().try_acquire_owned() else {
        shown.turned.add(Why::Crowd);
        return reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "too many pages are open\n");
    };
    let (events, mut seen) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        while let Some(picture) = shown.views.look().await {
            let event = [&b"event: state\ndata: "[..], &picture.page[..], b"\n\n"].concat();
            if events.send(event.into()).await.is_err() {
                break;
            }
            sleep(TELL_EVERY).await;
        }
        drop(place);
    });
    let stream = futures_util::stream::poll_fn(move |cx| seen.poll_recv(cx).map(|e| e.map(Ok::<_, Infallible>)));
    reply(StatusCode::OK, "text/event-stream", Body::from_stream(stream))
}

async fn dead(State(shown): Page) -> Response {
    let letters = dead_letters(&shown.desk, shown.reveal).await;
    reply(StatusCode::OK, JSON, letters.to_string())
}

/// The body of a request, bounded in bytes and time.
async fn body(request: Request, shown: &Shown) -> Result<Bytes, Response> {
    match timeout(BODY_MAX, to_bytes(request.into_body(), BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            shown.turned.add(Why::Body);
            let words = format!("the body is broken or over {BODY_BYTES_MAX} bytes\n");
            Err(reply(StatusCode::PAYLOAD_TOO_LARGE, PLAIN, words))
        }
        Err(_) => {
            shown.turned.add(Why::Slow);
            Err(reply(StatusCode::REQUEST_TIMEOUT, PLAIN, "the body did not come in time\n"))
        }
    }
}

async fn ask(State(shown): Page, request: Request) -> Response {
    let asked = match body(request, &shown).await {
        Ok(bytes) => match Question::read(&bytes) {
            Ok(question) => question.ask(&shown).await,
            Err(refused) => Err(refused),
        },
        Err(response) => return response,
    };
    match asked {
        Ok(frames) => reply(StatusCode::OK, "application/x-ndjson", frames),
        Err((status, words)) => {
            let kind = if words.first() == Some(&b'{') { JSON } else { PLAIN };
            reply(status, kind, words)
        }
    }
}

/// Which dead letter is to be tried again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Letter {
    number: u64,
}

async fn retry(State(shown): Page, request: Request) -> Response {
    let bytes = match body(request, &shown).await {
        Ok(bytes) => bytes,
        Err(response) => return response,
    };
    let Ok(Letter { number }) = serde_json::from_slice(&bytes) else {
        return reply(StatusCode::BAD_REQUEST, PLAIN, "needed is JSON with number\n");
    };
    info!(number, "a dead letter is tried again, asked on the page");
    let said = answer(queue::Request::Retry { number }, &shown.desk).await;
    let status = if said.get("error").is_some() { StatusCode::CONFLICT } else { StatusCode::OK };
    reply(status, JSON, said.to_string())
}
