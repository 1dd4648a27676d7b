//! One HTTP/1.1 message, read whole and written as the last of its connection (RFC 9112).

use std::io::{self, BufReader, Read};

/// Longest head, in bytes.
const MAX_HEAD: u64 = 64 * 1024;

/// Longest body, in bytes: an image's layer in a test.
const MAX_BODY: u64 = 64 * 1024 * 1024;

/// A request or an answer.
pub(crate) struct Message {
    /// The first line and all fields but those that frame the body.
    head: Vec<String>,
    /// With any transfer coding taken off.
    body: Vec<u8>,
    /// What an answer without a body says of the body that it would have (to HEAD).
    length: Option<u64>,
}

impl Message {
    /// Reads a request, or the answer to one. `None` where the connection ends before the first byte.
    pub(crate) fn read(from: &mut impl Read, answers: Option<&Self>) -> io::Result<Option<Self>> {
        let mut from = BufReader::new(from);
        let mut head = Vec::new();
        let (mut length, mut chunked) = (None, false);
        let mut limited = (&mut from).take(MAX_HEAD);
        loop {
            let line = line(&mut limited)?;
            let Some(line) = line else {
                return if head.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            };
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.trim().parse().map_err(io::Error::other)?),
                "transfer-encoding" => chunked = true,
                "connection" | "keep-alive" => {}
                _ => head.push(line),
            }
        }
        let mut message = Self { head, body: Vec::new(), length: None };
        let bodiless = answers.is_some_and(|request| request.first_line().starts_with("HEAD "))
            || answers.is_some() && matches!(message.status(), "204" | "304");
        if bodiless {
            message.length = length;
        } else if chunked {
            message.body = chunks(&mut from)?;
        } else if length.is_some() || answers.is_some() {
            // An answer without a length ends with its connection.
            let read = from.take(length.unwrap_or(MAX_BODY).min(MAX_BODY)).read_to_end(&mut message.body)?;
            if length.is_some_and(|length| length != read as u64) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Some(message))
    }

    /// An answer that no server gave.
    pub(crate) fn made_up(status: u16) -> Self {
        let head = vec![format!("HTTP/1.1 {status} Made Up"), "Content-Type: application/json".to_owned()];
        let body = format!(r#"{{"code":{status},"message":"made up by the proxy"}}"#).into_bytes();
        Self { head, body, length: None }
    }

    pub(crate) fn first_line(&self) -> &str {
        self.head.first().map_or("", String::as_str)
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The same with another body.
    pub(crate) fn with(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
    }

    /// As it goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = self.head.join("\r\n");
        let length = self.length.unwrap_or(self.body.len() as u64);
        head.push_str(&format!("\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"));
        [head.as_bytes(), &self.body].concat()
    }

    /// The same without the second half of its body.
    pub(crate) fn cut(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes.truncate(bytes.len() - self.body.len().div_ceil(2));
        bytes
    }

    fn status(&self) -> &str {
        self.first_line().split(' ').nth(1).unwrap_or_default()
    }
}

/// A line without its end; `None` at the end of everything.
fn line(from: &mut impl io::BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = from.read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// A chunked body (RFC 9112, section 7.1); trailers are left out.
fn chunks(from: &mut impl io::BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
    loop {
        let size = line(from)?.ok_or_else(end)?;
        let size =
            u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).map_err(io::Error::other)?;
        if size == 0 {
            while line(from)?.is_some_and(|trailer| !trailer.is_empty()) {}
            return Ok(body);
        }
        if body.len() as u64 + size > MAX_BODY {
            return Err(io::Error::other("the body is too long"));
        }
        if from.take(size).read_to_end(&mut body)? as u64 != size {
            return Err(end());
        }
        line(from)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Message {
        Message::read(&mut text.as_bytes(), None).unwrap().unwrap()
    }

    fn answer(text: &str, to: &str) -> io::Result<Message> {
        Ok(Message::read(&mut text.as_bytes(), Some(&request(to)))?.unwrap())
    }

    #[test]
    fn a_message_is_framed_anew() {
        let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for (text, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nabcde", "abcde"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nT: x\r\n\r\n",
                "abcde",
            ),
            ("HTTP/1.1 200 OK\r\n\r\nabcde", "abcde"),
            ("HTTP/1.1 204 No Content\r\n\r\nabcde", ""),
        ] {
            let read = answer(text, get).unwrap();
            let status = text.lines().next().unwrap();
            let length = body.len();
            let framed = format!("{status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            assert_eq!(String::from_utf8(read.bytes()).unwrap(), framed);
        }
        assert_eq!(request(get).body(), b"");
        assert_eq!(request("PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabc").body(), b"ab");
    }

    #[test]
    fn an_answer_to_head_keeps_its_length() {
        let read = answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD / HTTP/1.1\r\n\r\n").unwrap();
        assert!(String::from_utf8(read.bytes()).unwrap().contains("Content-Length: 5\r\n"));
    }

    #[test]
    fn half_a_body_is_cut_off() {
        let cut = answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde", "GET / HTTP/1.1\r\n\r\n").unwrap().cut();
        let text = String::from_utf8(cut).unwrap();
        assert!(text.contains("Content-Length: 5") && text.ends_with("\r\n\r\nab"), "{text}");
    }

    #[test]
    fn what_is_broken_is_no_message() {
        assert!(Message::read(&mut &b""[..], None).unwrap().is_none());
        for text in [
            "GET / HTTP/1.1\r\nHost: x\r\n",
            "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        ] {
            assert!(Message::read(&mut text.as_bytes(), None).is_err(), "{text:?}");
        }
    }
}
