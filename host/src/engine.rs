//! What the engine's adapters share: its own words in an error, and requests that Podman alone knows.
//!
//! Images are `images`' business, containers `health`'s.

use std::{
    io::{self, ErrorKind},
    path::Path,
    time::Duration,
};

use bollard::errors::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

/// The largest answer that is read: a healthcheck's log holds a few outputs of some hundred bytes.
const LARGEST: u64 = 1024 * 1024;

/// The longest wait for an answer: as long as a busy machine may take. A pull has no such limit.
pub(crate) const LOOK: Duration = Duration::from_secs(30);

/// The kind of error when the engine is gone, or does not answer.
pub(crate) const UNREACHABLE: &str = "engine-unreachable";

/// What to try where the engine is at fault.
pub(crate) const HINT: &str = "`systemctl --user status podman.socket` and `journalctl --user -u podman` say more";

/// The engine's own words, without the client's around them.
pub(crate) fn words(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        Error::RequestTimeoutError => "it does not answer".to_owned(),
        other => tagship_core::explain::chain(other),
    }
}

/// The engine says that there is no such thing.
pub(crate) fn is_absent(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

/// The engine cannot be asked: it is gone, or does not answer. What it was asked for may have happened all the same.
pub(crate) fn is_unreachable(error: &Error) -> bool {
    matches!(
        error,
        Error::RequestTimeoutError
            | Error::IOError { .. }
            | Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }
            | Error::HttpClientError { .. }
    )
}

/// What a call comes to within this time.
pub(crate) async fn within<T>(patience: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(patience, call).await.unwrap_or(Err(Error::RequestTimeoutError))
}

/// Asks Podman's own API, which the client has no calls for, and returns the status and body of the answer.
///
/// HTTP/1.0, so that the answer ends with the connection and is never chunked.
pub(crate) async fn get(socket: &Path, path: &str, patience: Duration) -> io::Result<(u16, Vec<u8>)> {
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LARGEST + 1).read_to_end(&mut answer).await?;
        // Half an answer would be taken for one that is wrong.
        if answer.len() as u64 > LARGEST {
            let words = format!("its answer is larger than {LARGEST} bytes");
            return Err(io::Error::new(ErrorKind::FileTooLarge, words));
        }
        Ok::<_, io::Error>(answer)
    };
    let silent = || io::Error::new(ErrorKind::TimedOut, format!("it does not answer within {} s", patience.as_secs()));
    let answer = timeout(patience, exchange).await.map_err(|_| silent())??;
    parse(&answer).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no HTTP answer"))
}

/// Text as a query's value.
pub(crate) fn query(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let part = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(part).collect()
}

fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end)?;
    let status = std::str::from_utf8(head).ok()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.get(4..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let answer = b"HTTP/1.0 404 Not Found\r\nServer: Libpod\r\n\r\n{}\r\n\r\n";
        assert_eq!(parse(answer), Some((404, b"{}\r\n\r\n".to_vec())));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (defect, answer) in [
            ("empty", &b""[..]),
            ("no end of head", b"HTTP/1.0 200 OK\r\n"),
            ("no status", b"HTTP/1.0\r\n\r\n"),
            ("status in letters", b"HTTP/1.0 fine\r\n\r\n"),
            ("other protocol", b"SSH-2.0 200\r\n\r\n"),
            ("not UTF-8", b"HTTP/1.0 200 \xff\r\n\r\n"),
        ] {
            assert_eq!(parse(answer), None, "{defect}");
        }
    }

    #[test]
    fn a_query_holds_nothing_but_plain_characters() {
        assert_eq!(query(r#"{"a":["b=c&d é"]}"#), "%7B%22a%22%3A%5B%22b%3Dc%26d%20%C3%A9%22%5D%7D");
    }

    #[tokio::test]
    async fn a_socket_that_closes_at_once_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
        assert!(get(&path, "/", LOOK).await.is_err());
        server.await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_refused_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            let head = b"HTTP/1.0 200 OK\r\n\r\n";
            // It may hang up before the last byte.
            let _ = stream.write_all(&[&head[..], &vec![b' '; LARGEST as usize]].concat()).await;
        });
        assert_eq!(get(&path, "/", LOOK).await.unwrap_err().kind(), ErrorKind::FileTooLarge);
        server.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_never_answers_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert_eq!(get(&path, "/", LOOK).await.unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
