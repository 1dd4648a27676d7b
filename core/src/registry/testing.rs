//! A small HTTP/1.1 server on the loopback interface that answers as a test tells it, however badly.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// By lower-case name.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// How the server answers.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// As HTTP wants it.
    Clean,
    /// The connection closes in the middle of a body that was declared longer.
    Cut,
    /// As much as anybody reads, without a declared length.
    Endless,
    /// Nothing more comes after the body, though it was declared longer.
    Stalled,
    /// No answer at all.
    Silent,
    /// The connection closes instead of an answer.
    Closed,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), end: End::Clean }
    }

    pub(crate) fn silent() -> Self {
        Self { end: End::Silent, ..Self::new(0, "") }
    }

    pub(crate) fn closed() -> Self {
        Self { end: End::Closed, ..Self::new(0, "") }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn cut(self) -> Self {
        Self { end: End::Cut, ..self }
    }

    pub(crate) fn endless(self) -> Self {
        Self { end: End::Endless, ..self }
    }

    pub(crate) fn stalled(self) -> Self {
        Self { end: End::Stalled, ..self }
    }
}

type Handler = dyn Fn(&Received) -> Reply + Send + Sync;

/// The server; it ends when it is dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(None, handler).await
    }

    pub(crate) async fn start_tls(
        config: rustls::ServerConfig,
        handler: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Some(TlsAcceptor::from(Arc::new(config))), handler).await
    }

    async fn serve(tls: Option<TlsAcceptor>, handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Handler> = Arc::new(handler);
        let seen = Arc::clone(&received);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, handler, tls) = (Arc::clone(&seen), Arc::clone(&handler), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, &seen, &*handler).await;
                            }
                        }
                        None if is_tls(&stream).await => refuse_tls(stream).await,
                        None => converse(stream, &seen, &*handler).await,
                    }
                });
            }
        });
        Self { port, received, task }
    }

    /// All requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// All requests so far, `METHOD /path`.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.received().iter().map(Received::line).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a TLS handshake comes: its first byte is the record type 22 (RFC 8446, section 5.1).
async fn is_tls(stream: &TcpStream) -> bool {
    let mut first = [0];
    stream.peek(&mut first).await.is_ok() && first == [22]
}

/// What Go's HTTP server, and with it most registries, answers to a TLS handshake.
async fn refuse_tls(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 4096]).await;
    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Mutex<Vec<Received>>, handler: &Handler) {
    while let Some(request) = read(&mut stream).await {
        let reply = handler(&request);
        seen.lock().unwrap().push(request.clone());
        let closes = match reply.end {
            End::Closed => return,
            End::Silent => return std::future::pending().await,
            end => end != End::Clean,
        };
        let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match reply.end {
            End::Clean => head.push_str(&format!("Content-Length: {}\r\n", reply.body.len())),
            End::Cut | End::Stalled => head.push_str(&format!("Content-Length: {}\r\n", reply.body.len() + 1)),
            _ => {}
        }
        head.push_str(if closes { "Connection: close\r\n\r\n" } else { "\r\n" });
        // In one piece: two would wait for each other's acknowledgement.
        let answer = [head.as_bytes(), &reply.body].concat();
        if stream.write_all(&answer).await.is_err() {
            return;
        }
        match reply.end {
            End::Endless => while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {},
            End::Stalled => std::future::pending().await,
            _ => {}
        }
        if closes {
            return;
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Received> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some(Received { method, target, headers, body })
}
