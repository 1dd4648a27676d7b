//! For tests: a registry and a transparency log on the loopback interface, and an engine behind a socket, as small as
//! they can be.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tagship_core::credentials::Credential;
use tagship_core::reference::{Digest, Repository};
use tagship_core::registry::{Client, OCI_INDEX, OCI_MANIFEST};
use tagship_core::signature::PublicKey;
use tagship_core::tls::Roots;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};

use crate::signing::key::SigningKey;
use crate::signing::rekor;

/// A request: `METHOD /path`, and its body.
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) body: Vec<u8>,
}

/// An answer: status, further headers, body. Status 0 closes the connection instead.
pub(crate) struct Reply(pub(crate) u16, pub(crate) String, pub(crate) Vec<u8>);

/// Serves until the test's runtime ends; returns the address.
pub(crate) async fn serve(handle: impl FnMut(Request) -> Reply + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let handle = Arc::new(Mutex::new(handle));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handle = Arc::clone(&handle);
            tokio::spawn(async move { exchange(stream, |request| (handle.lock().unwrap())(request)).await });
        }
    });
    address
}

/// An engine that has one image, tagged `v1`, whose description is `image`; it is gone with the returned directory.
pub(crate) fn engine(image: &'static str) -> (tempfile::TempDir, bollard::Docker) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("engine.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(exchange(stream, move |request| match request.line.ends_with(":v1/json") {
                true => Reply(200, String::new(), image.into()),
                false => Reply(404, String::new(), br#"{"message":"no such image"}"#.to_vec()),
            }));
        }
    });
    let api = bollard::ClientVersion { major_version: 1, minor_version: 44 };
    let engine = bollard::Docker::connect_with_unix(socket.to_str().unwrap(), 10, &api).unwrap();
    (directory, engine)
}

/// One request a connection. What is not HTTP (a TLS greeting) is answered as a plain server answers it.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    handle: impl FnOnce(Request) -> Reply,
) -> Option<()> {
    let mut bytes = Vec::new();
    let end = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if bytes.first() == Some(&0x16) {
            return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    while bytes.len() < end + length {
        stream.read_buf(&mut bytes).await.ok()?;
    }
    let line = String::from_utf8_lossy(&bytes[..end]).split(" HTTP").next().unwrap().to_owned();
    let Reply(status, headers, body) = handle(Request { line, body: bytes.split_off(end) });
    if status == 0 {
        return None;
    }
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(&body).await.ok()
}

/// What a fake registry holds and was asked.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) blobs: HashMap<String, Vec<u8>>,
    /// By tag.
    pub(crate) manifests: HashMap<String, Vec<u8>>,
    pub(crate) asked: Vec<String>,
    /// It has the referrers API.
    pub(crate) lists_referrers: bool,
    /// Manifests that another signer puts under the same tag right after each of ours.
    pub(crate) overwrites: VecDeque<Vec<u8>>,
    /// The same, but once a tag that was written has been looked at.
    pub(crate) overwrites_once_seen: VecDeque<Vec<u8>>,
    /// The name that was written last.
    written: Option<String>,
}

impl Store {
    /// The layers of the image's `.sig` manifest; none without one.
    pub(crate) fn layers(&self, digest: &Digest) -> Vec<Value> {
        let Some(bytes) = self.manifests.get(digest.signature_tag().as_str()) else { return Vec::new() };
        let manifest: Value = serde_json::from_slice(bytes).unwrap();
        manifest["layers"].as_array().unwrap().clone()
    }

    /// The entries of the image's index of referrers; none without one.
    pub(crate) fn referrers(&self, digest: &Digest) -> Vec<Value> {
        let Some(bytes) = self.manifests.get(digest.referrers_tag().as_str()) else { return Vec::new() };
        let index: Value = serde_json::from_slice(bytes).unwrap();
        index["manifests"].as_array().unwrap().clone()
    }

    /// Whether anything was written.
    pub(crate) fn was_written(&self) -> bool {
        self.asked.iter().any(|line| line.starts_with("PUT") || line.starts_with("POST"))
    }

    fn list_referrers(&self, query: &str) -> Reply {
        let digest = query.split('?').next().unwrap();
        let mut manifests = Vec::new();
        for bytes in self.manifests.values() {
            let Ok(manifest) = serde_json::from_slice::<Value>(bytes) else { continue };
            if manifest["subject"]["digest"] == digest {
                manifests.push(json!({ "mediaType": OCI_MANIFEST, "digest": Digest::of(bytes), "size": bytes.len() }));
            }
        }
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        Reply(200, format!("content-type: {OCI_INDEX}\r\n"), index.to_string().into_bytes())
    }

    fn answer(&mut self, request: Request) -> Reply {
        let found = |bytes: Option<&Vec<u8>>, kind: &str| match bytes {
            Some(bytes) => Reply(200, format!("content-type: {kind}\r\n"), bytes.clone()),
            None => Reply(404, String::new(), Vec::new()),
        };
        self.asked.push(request.line.clone());
        let (method, path) = request.line.split_once(' ').unwrap();
        let name = path.rsplit('/').next().unwrap().to_owned();
        match method {
            "GET" if path.contains("/manifests/") => {
                let by_digest = |bytes: &&Vec<u8>| Digest::of(bytes).to_string() == name;
                let bytes = self.manifests.get(&name).or_else(|| self.manifests.values().find(by_digest));
                let is_index =
                    bytes.is_some_and(|bytes| bytes.windows(OCI_INDEX.len()).any(|w| w == OCI_INDEX.as_bytes()));
                // The image that a bundle refers to is no index in these tests.
                let reply = found(bytes, if is_index { OCI_INDEX } else { OCI_MANIFEST });
                if self.written.as_ref() == Some(&name)
                    && let Some(theirs) = self.overwrites_once_seen.pop_front()
                {
                    self.manifests.insert(name, theirs);
                    self.written = None;
                }
                reply
            }
            "GET" if path.contains("/referrers/") && self.lists_referrers => self.list_referrers(&name),
            "GET" => found(self.blobs.get(&name), "application/octet-stream"),
            "POST" => {
                self.blobs.insert(Digest::of(&request.body).to_string(), request.body);
                Reply(201, String::new(), Vec::new())
            }
            "PUT" => {
                let theirs = if name.contains(':') { None } else { self.overwrites.pop_front() };
                let body = theirs.unwrap_or(request.body);
                let subject = serde_json::from_slice::<Value>(&body).ok().and_then(|m| m.get("subject").cloned());
                self.written = Some(name.clone());
                self.manifests.insert(name, body);
                let header = match subject {
                    Some(subject) if self.lists_referrers => {
                        format!("oci-subject: {}\r\n", subject["digest"].as_str().unwrap())
                    }
                    _ => String::new(),
                };
                Reply(201, header, Vec::new())
            }
            _ => Reply(405, String::new(), Vec::new()),
        }
    }
}

/// A registry, a client for it, and a repository in it.
pub(crate) async fn registry() -> (Arc<Mutex<Store>>, Client, Repository) {
    let store = Arc::new(Mutex::new(Store::default()));
    let served = Arc::clone(&store);
    let address = serve(move |request| served.lock().unwrap().answer(request)).await;
    let repository: Repository = format!("{address}/chris/mastosum").parse().unwrap();
    let roots = Roots::load(None).unwrap();
    let client = Client::new(repository.registry(), Credential::Anonymous, &roots).unwrap();
    (store, client, repository)
}

/// A log's key, and what it would answer about an entry.
pub(crate) struct FakeLog(SigningKey);

impl FakeLog {
    pub(crate) fn new() -> Self {
        Self(SigningKey::generate().unwrap())
    }

    pub(crate) fn public(&self) -> PublicKey {
        self.0.public().clone()
    }

    /// The answer about what it was sent: the only leaf of its tree.
    pub(crate) fn answer(&self, proposed: &[u8]) -> Vec<u8> {
        let body = &kept(proposed);
        let id = self.0.public().fingerprint();
        let encoded = STANDARD.encode(body);
        let signed = format!(r#"{{"body":"{encoded}","integratedTime":1790000000,"logID":"{id}","logIndex":7}}"#);
        let root = Sha256::digest([&[0][..], body].concat());
        let note = format!("log.test - 1\n1\n{}\n", STANDARD.encode(root));
        let signature = [&[0; 4], &self.0.sign(note.as_bytes()).unwrap()[..]].concat();
        let answer = json!({ "0123456789abcdef": {
            "body": encoded,
            "integratedTime": 1_790_000_000,
            "logID": id.to_string(),
            "logIndex": 7,
            "verification": {
                "inclusionProof": {
                    "checkpoint": format!("{note}\n\u{2014} log.test {}\n", STANDARD.encode(signature)),
                    "hashes": [],
                    "logIndex": 0,
                    "rootHash": root.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
                    "treeSize": 1,
                },
                "signedEntryTimestamp": STANDARD.encode(self.0.sign(signed.as_bytes()).unwrap()),
            },
        }});
        answer.to_string().into_bytes()
    }

    /// A client of a log at this address that believes this log's key.
    pub(crate) fn client(&self, address: &str) -> rekor::Log {
        let url = format!("http://{address}").parse().unwrap();
        rekor::Log::new(&url, self.public(), &Roots::load(None).unwrap()).unwrap().impatient()
    }
}

/// What a log keeps of what it was sent: of an envelope its hashes and its signature, of anything else all.
fn kept(proposed: &[u8]) -> Vec<u8> {
    let Ok(mut entry) = serde_json::from_slice::<Value>(proposed) else { return proposed.to_vec() };
    let Some(content) = entry.pointer("/spec/proposedContent").cloned() else { return proposed.to_vec() };
    let text = content["envelope"].as_str().unwrap();
    let envelope: Value = serde_json::from_str(text).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let hash = |bytes: &[u8]| json!({ "algorithm": "sha256", "value": Digest::of(bytes).hex() });
    entry["spec"] = json!({
        "envelopeHash": hash(text.as_bytes()),
        "payloadHash": hash(&payload),
        "signatures": [{ "signature": envelope["signatures"][0]["sig"], "verifier": content["verifiers"][0] }],
    });
    entry.to_string().into_bytes()
}
