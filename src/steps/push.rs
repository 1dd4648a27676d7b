//! Pushes the version tag through the engine and reads the manifest back from the registry.
//!
//! The digest that counts is the registry's: engines write manifests anew when they push, so that the digest they keep
//! locally may be one that nobody can pull.

use std::collections::HashSet;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::PushImageInfo;
use bollard::query_parameters::PushImageOptionsBuilder;
use futures_util::StreamExt as _;
use tagship_core::explain::Explain;
use tagship_core::reference::{Digest, ImageRef, Repository, Tag};
use tagship_core::registry::{Client, Manifest, RegistryError, Target};
use tagship_core::text;

use crate::log::Log;

/// What a push needs to know.
pub struct Needs<'a> {
    /// The image's repository.
    pub image: &'a Repository,
    /// The version tag, by which the engine knows the image.
    pub tag: &'a Tag,
    /// The login that the engine passes on.
    pub credentials: Option<DockerCredentials>,
}

/// Why the image is not in the registry, or not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The engine was refused, or could not reach the registry.
    #[error("the engine cannot push {image}: {message}")]
    Refused {
        /// The image.
        image: String,
        /// What the engine says.
        message: String,
    },
    /// The engine did not push at all.
    #[error("the engine cannot push {image}")]
    Engine {
        /// The image.
        image: String,
        /// Why not.
        source: Error,
    },
    /// The engine reported no digest.
    #[error("the engine pushed {image} and reported no digest")]
    NoDigest {
        /// The image.
        image: String,
    },
    /// The registry cannot be asked what it holds now.
    #[error("cannot read {image} back from the registry")]
    ReadBack {
        /// The image.
        image: String,
        /// Why not.
        source: RegistryError,
    },
    /// The registry does not have what was pushed.
    #[error("the registry does not have {image} after the push")]
    Absent {
        /// The image.
        image: String,
    },
    /// The registry has something else.
    #[error("the registry has {found} at {image}, and the engine pushed {pushed}")]
    Different {
        /// The image.
        image: String,
        /// What was pushed.
        pushed: Digest,
        /// What is there.
        found: Digest,
    },
}

impl Explain for PushError {
    fn kind(&self) -> &'static str {
        match self {
            PushError::Refused { message, .. } => match Reason::of(message) {
                Some(Reason::Login) => "push-denied",
                Some(Reason::Authority) => "engine-unknown-ca",
                Some(Reason::Unreachable) => "engine-unreachable",
                Some(Reason::NoImage) => "image-absent",
                None => "push-failed",
            },
            PushError::Engine { .. } => "engine-failed",
            PushError::NoDigest { .. } => "push-without-digest",
            PushError::ReadBack { source, .. } => source.kind(),
            PushError::Absent { .. } => "push-lost",
            PushError::Different { .. } => "push-different",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PushError::Refused { message, .. } => Reason::of(message).map(|reason| reason.hint().to_owned()),
            PushError::Engine { .. } => {
                Some("look at the engine's own log, such as journalctl --user -u podman".to_owned())
            }
            PushError::NoDigest { .. } => Some("Podman 4.4 and later, and Docker, report it".to_owned()),
            PushError::ReadBack { source, .. } => source.hint(),
            PushError::Absent { .. } | PushError::Different { .. } => {
                Some("another job may push the same tag; run one release of a tag at a time".to_owned())
            }
        }
    }
}

/// What users stumble over, told from the engine's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Login,
    Authority,
    Unreachable,
    NoImage,
}

impl Reason {
    fn of(message: &str) -> Option<Reason> {
        let lower = message.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        // Whole words: digests are full of such numbers.
        let status = |wanted: &str| lower.split(|c: char| !c.is_alphanumeric()).any(|word| word == wanted);
        let denied = has(&["unauthorized", "authentication required", "denied", "reqpackageaccess"]);
        if has(&["x509", "unknown authority", "certificate"]) {
            Some(Reason::Authority)
        } else if denied || status("401") || status("403") {
            Some(Reason::Login)
        } else if has(&["connection refused", "no such host", "i/o timeout", "no route to host", "unreachable"]) {
            Some(Reason::Unreachable)
        } else if has(&["image not known", "no such image", "does not exist locally", "locate image"]) {
            Some(Reason::NoImage)
        } else {
            None
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Reason::Login => {
                "the login must be allowed to push: on Forgejo a personal access token with write:package, since the \
                 automatic token of a job cannot push packages"
            }
            Reason::Authority => {
                "the engine does the push: it must trust the registry's authority itself, in \
                 /etc/containers/certs.d/REGISTRY/ca.crt or ~/.config/containers/certs.d on its machine"
            }
            Reason::Unreachable => "the engine does the push: its machine must reach the registry by this name",
            Reason::NoImage => "build it first, under its version tag",
        }
    }
}

/// Pushes, and returns the manifest as the registry holds it. Its digest is the one to sign.
///
/// # Errors
/// When the engine or the registry refuses, or the registry holds anything but what the engine says it pushed.
pub async fn run(engine: &Docker, registry: &Client, needs: Needs<'_>, log: &Log) -> Result<Manifest, PushError> {
    let image = ImageRef::tagged(needs.image, needs.tag).to_string();
    let options = PushImageOptionsBuilder::new().tag(needs.tag.as_str()).build();
    let name = needs.image.to_string();
    let messages = engine.push_image(&name, Some(options), needs.credentials);
    let pushed = follow(Box::pin(messages), &image, log).await?;
    let target = Target::Tag(needs.tag.clone());
    let manifest = match registry.manifest(needs.image, &target).await {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Err(PushError::Absent { image }),
        Err(source) => return Err(PushError::ReadBack { image, source }),
    };
    let found = manifest.digest();
    if found != pushed {
        return Err(PushError::Different { image, pushed, found });
    }
    log.say(&format!("pushed {image}, digest {found}, as the registry confirms"));
    Ok(manifest)
}

/// Shows the engine's words, each once and without the progress of uploads, and finds the digest among them.
async fn follow(
    mut messages: impl futures_util::Stream<Item = Result<PushImageInfo, Error>> + Unpin,
    image: &str,
    log: &Log,
) -> Result<Digest, PushError> {
    let mut shown = HashSet::new();
    let mut digest = None;
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => {
                let Some(status) = message.status else { continue };
                digest = digest_in(&status).or(digest);
                let is_progress = message.progress_detail.is_some_and(|detail| detail.current.is_some());
                if !is_progress && shown.insert(status.clone()) {
                    log.quote(&status);
                }
            }
            Err(
                Error::DockerStreamError { error: words } | Error::DockerResponseServerError { message: words, .. },
            ) => {
                return Err(PushError::Refused { image: image.to_owned(), message: text::escape(said(&words).trim()) });
            }
            Err(source) => return Err(PushError::Engine { image: image.to_owned(), source }),
        }
    }
    digest.ok_or_else(|| PushError::NoDigest { image: image.to_owned() })
}

/// What an error says: engines answer with its words, or with the JSON of a stream of progress, which has them twice.
fn said(words: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Report {
        #[serde(rename = "errorDetail")]
        detail: Option<Detail>,
        error: Option<String>,
        message: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Detail {
        message: Option<String>,
    }
    let reports = serde_json::Deserializer::from_str(words).into_iter::<Report>();
    let messages = reports
        .map_while(Result::ok)
        .filter_map(|report| report.detail.and_then(|detail| detail.message).or(report.error).or(report.message));
    messages.last().unwrap_or_else(|| words.to_owned())
}

/// The digest in `v1: digest: sha256:… size: 1234`.
fn digest_in(status: &str) -> Option<Digest> {
    status.split_once("digest: ")?.1.split_whitespace().next()?.parse().ok()
}

/// Whether a manifest in the registry is this image's: Podman and Docker call an image by its configuration's digest.
///
/// # Errors
/// When the registry cannot be asked.
pub async fn is_of(
    client: &Client,
    repository: &Repository,
    digest: Digest,
    image: &str,
) -> Result<bool, RegistryError> {
    #[derive(serde::Deserialize)]
    struct Named {
        config: Descriptor,
    }
    #[derive(serde::Deserialize)]
    struct Descriptor {
        digest: Digest,
    }
    let manifest = client.manifest(repository, &digest.into()).await?;
    let named = manifest.and_then(|manifest| serde_json::from_slice::<Named>(manifest.bytes()).ok());
    Ok(named.is_some_and(|named| image.parse() == Ok(named.config.digest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Style, testing};
    use bollard::models::ProgressDetail;

    fn says(status: &str) -> Result<PushImageInfo, Error> {
        Ok(PushImageInfo { status: Some(status.to_owned()), ..PushImageInfo::default() })
    }

    async fn follow_all(messages: Vec<Result<PushImageInfo, Error>>) -> (Result<Digest, PushError>, String) {
        let (log, printed) = testing::log(Style::Runner);
        let result = follow(futures_util::stream::iter(messages), "registry.test/app:v1", &log).await;
        (result, printed.text())
    }

    #[tokio::test]
    async fn the_digest_is_found() {
        let digest = Digest::of(b"x");
        let progress = PushImageInfo {
            status: Some("Pushing".to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(1), total: Some(2) }),
            ..PushImageInfo::default()
        };
        let messages = vec![
            says("The push refers to repository [registry.test/app]"),
            says("Pushed"),
            Ok(progress),
            says("Pushed"),
            says(&format!("v1: digest: {digest} size: 428")),
        ];
        let (result, text) = follow_all(messages).await;
        assert_eq!(result.expect("a digest"), digest);
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[tokio::test]
    async fn no_digest_is_an_error() {
        let short = format!("v1: digest: sha256:{} size: 1", "0".repeat(63));
        for status in ["Pushed", "digest:", "digest: ", "digest: sha512:00 size: 1", short.as_str()] {
            let (result, _) = follow_all(vec![says(status)]).await;
            assert!(matches!(result, Err(PushError::NoDigest { .. })), "{status}");
        }
    }

    #[test]
    fn an_error_in_json_is_its_words() {
        for (words, expected) in [
            (r#"{"errorDetail":{"message":"connection refused"},"error":"connection refused"}"#, "connection refused"),
            (r#"{"status":"Pushing"} {"errorDetail":{"message":"EOF"},"error":"EOF"}"#, "EOF"),
            (r#"{"errorDetail":{},"error":"denied"}"#, "denied"),
            (r#"{"message":"no such image"}"#, "no such image"),
            ("EOF", "EOF"),
            ("", ""),
            ("{}", "{}"),
            (r#"{"error":7}"#, r#"{"error":7}"#),
            (r#"{"error":"cut"#, r#"{"error":"cut"#),
        ] {
            assert_eq!(said(words), expected, "{words}");
        }
    }

    #[test]
    fn numbers_in_a_digest_are_no_status() {
        let message = format!("writing blob sha256:{}401{}: broken pipe", "0".repeat(30), "a".repeat(31));
        assert_eq!(Reason::of(&message), None);
    }

    #[tokio::test]
    async fn refusals_say_what_to_try() {
        let vectors = [
            ("unauthorized: reqPackageAccess", "push-denied", "write:package"),
            ("authentication required", "push-denied", "write:package"),
            ("denied: requested access to the resource is denied", "push-denied", "write:package"),
            (
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
                "engine-unknown-ca",
                "certs.d",
            ),
            ("received unexpected HTTP status: 403 Forbidden", "push-denied", "write:package"),
            ("dial tcp 127.0.0.1:5000: connect: connection refused", "engine-unreachable", "reach"),
            ("dial tcp: lookup registry.test: no such host", "engine-unreachable", "reach"),
            ("registry.test/app:v1: image not known", "image-absent", "build"),
        ];
        for (message, kind, word) in vectors {
            for error in [
                Error::DockerStreamError { error: message.to_owned() },
                Error::DockerResponseServerError { status_code: 500, message: message.to_owned() },
            ] {
                let (result, _) = follow_all(vec![Err(error)]).await;
                let error = result.expect_err("refused");
                assert_eq!(error.kind(), kind, "{message}");
                assert!(error.hint().is_some_and(|hint| hint.contains(word)), "{message}");
            }
        }
    }
}
