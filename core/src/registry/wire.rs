//! One HTTP exchange with a registry: bounded, timed, tried again where that can help.
//!
//! Here is known what a broken connection or an endless body is; what a status means for an operation is not, except
//! that a server in trouble is worth another try. Credentials are only carried, never made.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode, Url, redirect};
use serde::Deserialize;

use super::error::RegistryError;
use super::retry::{Limits, Tries};
use crate::reference::Registry;
use crate::text::escape;
use crate::tls::{HandshakeFault, Roots, handshake_fault};

/// As much of an error's body as is read: the message in it is for people.
const MESSAGE_MAX: usize = 8 * 1024;

/// As much of a registry's message as is shown, in characters.
const MESSAGE_SHOWN: usize = 300;

/// As many redirects as are followed: registries send to a blob store in one step.
const REDIRECTS: usize = 5;

/// A request, complete but for the Authorization header.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The longest answer that is taken, in bytes.
    pub(super) limit: usize,
}

impl Request {
    pub(super) fn new(method: Method, url: Url, limit: usize) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new(), limit }
    }
}

/// An answer whose status is the caller's to judge: anything but a server error.
pub(super) struct Answer {
    /// Where the answer came from, after redirects.
    pub(super) url: Url,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Complete when the status is a success, empty when it is 401, else as much as could be read.
    pub(super) body: Bytes,
}

impl Answer {
    /// What a registry says about an error (OCI distribution specification, "Error codes"), or the plain text that it
    /// sends, in one line.
    pub(super) fn message(&self) -> String {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let text = match serde_json::from_slice::<Errors>(&self.body) {
            Ok(Errors { errors }) => errors
                .into_iter()
                .map(|Entry { code, message }| if message.is_empty() { code } else { format!("{code} ({message})") })
                .collect::<Vec<_>>()
                .join(", "),
            Err(_) if self.body.starts_with(b"<") => return String::new(),
            Err(_) => String::from_utf8_lossy(&self.body).into_owned(),
        };
        escape(text.trim()).chars().take(MESSAGE_SHOWN).collect()
    }
}

/// The HTTP client of one registry.
pub(super) struct Wire {
    http: Client,
    base: Url,
    /// Only a registry on this very machine may be spoken to without TLS.
    loopback: bool,
    /// Whether that has turned out to be necessary.
    plain: AtomicBool,
    limits: Limits,
}

impl Wire {
    pub(super) fn new(registry: &Registry, roots: &Roots, limits: Limits) -> Result<Self, RegistryError> {
        // What Docker Hub's images are called is not where its registry answers.
        let host = if registry.as_str() == "docker.io" { "registry-1.docker.io" } else { registry.as_str() };
        let base = Url::parse(&format!("https://{host}/")).map_err(|error| RegistryError::Protocol {
            url: registry.to_string(),
            why: format!("its name makes no URL: {error}"),
        })?;
        let loopback = registry.is_loopback();
        let mut builder = roots
            .client_builder()
            .user_agent(concat!("tagship/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .read_timeout(limits.idle)
            .timeout(limits.request)
            .redirect(redirect::Policy::custom(follow));
        if loopback {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|source| RegistryError::Setup { registry: registry.clone(), source })?;
        Ok(Self { http, base, loopback, plain: AtomicBool::new(false), limits })
    }

    /// The URL of a path of the registry's API, without the leading slash.
    pub(super) fn url(&self, path: &str) -> Result<Url, RegistryError> {
        self.join(&self.base, path)
    }

    /// The URL that a server names, relative to the one that it answered for.
    pub(super) fn join(&self, base: &Url, to: &str) -> Result<Url, RegistryError> {
        base.join(to).map_err(|error| RegistryError::Protocol {
            url: shown(base),
            why: format!("it names {}, which is no URL: {error}", escape(to)),
        })
    }

    /// Whether the URL is the registry's own: only there the credentials belong.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        let plain = self.loopback && url.scheme() == "http";
        url.host() == self.base.host() && url.port() == self.base.port() && (url.scheme() == "https" || plain)
    }

    /// Whether a request with credentials may go there: encrypted, or never leaving this machine.
    pub(super) fn is_safe(&self, url: &Url) -> bool {
        url.scheme() == "https" || (self.loopback && url.scheme() == "http" && is_loopback(url))
    }

    /// Sends a request and reads the answer, again while connections break or the server is in trouble.
    pub(super) async fn exchange(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, RegistryError> {
        let mut tries = Tries::new(&self.limits);
        loop {
            let (error, asked) = match self.once(request, authorization).await {
                Ok(answer) if is_trouble(answer.status) => {
                    let error = RegistryError::Server {
                        url: shown(&answer.url),
                        status: answer.status.as_u16(),
                        message: answer.message(),
                    };
                    (error, retry_after(&answer.headers))
                }
                Ok(answer) => return Ok(answer),
                Err(error @ (RegistryError::Unreachable { .. } | RegistryError::Interrupted { .. })) => (error, None),
                Err(error) => return Err(error),
            };
            match tries.pause(asked) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn once(&self, request: &Request, authorization: Option<&HeaderValue>) -> Result<Answer, RegistryError> {
        let begun = Instant::now();
        let sent = match self.send(request, authorization).await {
            Err(error) if self.is_plain(&error) => {
                self.plain.store(true, Ordering::Relaxed);
                self.send(request, authorization).await
            }
            sent => sent,
        };
        let mut response = sent.map_err(|error| failure(error, &request.url, begun.elapsed()))?;
        let mut answer = Answer {
            url: response.url().clone(),
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body: Bytes::new(),
        };
        if answer.status == StatusCode::UNAUTHORIZED {
            // Never read: Forgejo sends two bodies one after the other here, which over HTTP/2 breaks the stream.
            return Ok(answer);
        }
        let strict = answer.status.is_success() && request.method != Method::HEAD;
        let limit = if strict { request.limit } else { MESSAGE_MAX };
        let too_large = || RegistryError::TooLarge { url: shown(&request.url), limit };
        if strict && response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if chunk.len() <= limit - body.len() => body.extend_from_slice(&chunk),
                Ok(Some(_)) if strict => return Err(too_large()),
                Err(error) if strict => return Err(broken(error, &request.url, begun.elapsed())),
                Ok(_) | Err(_) => break,
            }
        }
        answer.body = body.freeze();
        Ok(answer)
    }

    async fn send(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let mut url = request.url.clone();
        if self.plain.load(Ordering::Relaxed) && self.is_own(&url) {
            // From https to http this cannot fail.
            let _ = url.set_scheme("http");
        }
        let mut builder = self.http.request(request.method.clone(), url).headers(request.headers.clone());
        if matches!(request.method, Method::POST | Method::PUT) {
            // Named even when there is none: proxies refuse a POST without it (411), and the client leaves a 0 out.
            builder = builder.header(CONTENT_LENGTH, request.body.len()).body(request.body.clone());
        }
        if let Some(value) = authorization {
            builder = builder.header(AUTHORIZATION, value);
        }
        builder.send().await
    }

    /// Whether the registry, on this very machine, turned out to speak plain HTTP.
    fn is_plain(&self, error: &reqwest::Error) -> bool {
        self.loopback
            && !self.plain.load(Ordering::Relaxed)
            && error.is_connect()
            && handshake_fault(error) == Some(HandshakeFault::NotTls)
    }
}

/// A URL as it may be shown: its query may hold a signature that opens a blob store.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Neither can fail for a URL that has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// Follows a redirect unless it leaves TLS. The HTTP client itself takes the Authorization header away when the host,
/// the port or the scheme changes.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from_plain = attempt.previous().last().is_some_and(|url| url.scheme() == "http");
    if attempt.previous().len() > REDIRECTS {
        attempt.error("too many redirects")
    } else if attempt.url().scheme() == "https" || (from_plain && is_loopback(attempt.url())) {
        attempt.follow()
    } else {
        attempt.error("a redirect that leaves TLS")
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().and_then(|host| host.parse::<Registry>().ok()).is_some_and(|host| host.is_loopback())
}

/// Statuses that may be gone a moment later.
fn is_trouble(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
}

/// How many seconds the server wants to be left alone; its other form, a date, is for people.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn failure(error: reqwest::Error, url: &Url, after: Duration) -> RegistryError {
    let fault = handshake_fault(&error);
    let (source, url) = (error.without_url(), shown(url));
    match fault {
        Some(HandshakeFault::UnknownAuthority) => RegistryError::UnknownAuthority { url, source },
        Some(HandshakeFault::Certificate) => RegistryError::Certificate { url, source },
        _ if source.is_timeout() => RegistryError::TimedOut { url, after, source },
        _ if source.is_redirect() => RegistryError::Redirect { url, source },
        _ => RegistryError::Unreachable { url, source },
    }
}

fn broken(error: reqwest::Error, url: &Url, after: Duration) -> RegistryError {
    let (source, url) = (error.without_url(), shown(url));
    if source.is_timeout() {
        RegistryError::TimedOut { url, after, source }
    } else {
        RegistryError::Interrupted { url, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What never leaves this machine is safe only where the registry itself is on it: any other that names an address
    /// here wants the credentials for whoever listens on it.
    #[test]
    fn credentials_go_without_tls_from_a_registry_here_to_an_address_here_alone() {
        for (registry, url, safe) in [
            ("127.0.0.1:5000", "http://127.0.0.1:5001/token", true),
            ("localhost:5000", "http://[::1]/token", true),
            ("127.0.0.1:5000", "http://192.0.2.1/token", false),
            ("127.0.0.1:5000", "http://127.0.0.1.example.org/token", false),
            ("git.example.org", "http://127.0.0.1:5001/token", false),
            ("git.example.org", "http://localhost/token", false),
            ("git.example.org", "http://[::1]/token", false),
            ("git.example.org", "http://git.example.org/token", false),
            ("git.example.org", "ftp://127.0.0.1/token", false),
            ("git.example.org", "https://auth.example.org/token", true),
        ] {
            let roots = Roots::load(None).unwrap();
            let wire = Wire::new(&registry.parse().unwrap(), &roots, Limits::default()).unwrap();
            assert_eq!(wire.is_safe(&url.parse().unwrap()), safe, "{registry} to {url}");
        }
    }
}
