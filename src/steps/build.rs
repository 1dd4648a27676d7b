//! Builds the image with the engine, from the streamed context, and checks what came out.
//!
//! What goes into the context is decided in `context`; pushing is another step.

mod containerfile;
mod follow;
mod healthcheck;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{BuildImageOptions, BuildImageOptionsBuilder};
use jiff::Timestamp;
use tagship_core::explain::Explain;
use tagship_core::reference::{ImageRef, Repository, Tag};

use crate::context::{Context, ContextError, Sent};
use crate::inputs::{self, Origin};
use crate::log::Log;
use follow::follow;

/// How long the engine may take to answer at all. It does so once it has the whole context, which can be large and the
/// disk slow; what follows has no limit of its own.
const FIRST_ANSWER: Duration = Duration::from_secs(3600);

/// How long to wait for the context's thread once the engine is done: it ends as soon as nobody reads any more.
const CONTEXT_ENDS: Duration = Duration::from_secs(5);

/// The build argument that carries the commit.
const COMMIT_ARG: &str = "GIT_HASH";

/// What a build needs to know.
pub struct Needs<'a> {
    /// The image's repository.
    pub image: &'a Repository,
    /// The version tag: the only name that the image gets in the engine.
    pub tag: &'a Tag,
    /// What to build.
    pub build: &'a inputs::Build,
    /// Its context.
    pub context: Context,
    /// Where it comes from, for the labels.
    pub origin: &'a Origin,
    /// Logins for private base images, by registry.
    pub credentials: HashMap<String, DockerCredentials>,
    /// The time for the label.
    pub now: Timestamp,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The context could not be read.
    #[error("cannot send the build context")]
    Context(#[source] ContextError),
    /// The Containerfile's instructions failed.
    #[error("the build failed{}: {message}", at(step))]
    Failed {
        /// The instruction, as the engine showed it.
        step: Option<String>,
        /// What the engine says.
        message: String,
    },
    /// The engine did not build at all.
    #[error("the engine cannot build")]
    Engine(#[source] bollard::errors::Error),
    /// There is no image after a build that reported no error.
    #[error("the engine built {image}, and then does not know it")]
    Lost {
        /// The image.
        image: String,
        /// What the engine says.
        source: bollard::errors::Error,
    },
    /// The image has no healthcheck although the Containerfile declares one.
    #[error("the Containerfile declares a HEALTHCHECK, and the image {image} has none")]
    HealthcheckLost {
        /// The image.
        image: String,
    },
}

fn at(step: &Option<String>) -> String {
    step.as_ref().map(|step| format!(" at {}", tagship_core::text::escape(step))).unwrap_or_default()
}

impl Explain for BuildError {
    fn kind(&self) -> &'static str {
        match self {
            BuildError::Context(source) => source.kind(),
            BuildError::Failed { .. } => "build-failed",
            BuildError::Engine(_) => "engine-failed",
            BuildError::Lost { .. } => "image-lost",
            BuildError::HealthcheckLost { .. } => "healthcheck-lost",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            BuildError::Context(source) => source.hint(),
            BuildError::Failed { message, .. } => hint_for(message).map(str::to_owned),
            BuildError::Engine(_) => {
                Some("look at the engine's own log, such as journalctl --user -u podman".to_owned())
            }
            BuildError::Lost { .. } => Some("another job may have removed it; run one build at a time".to_owned()),
            BuildError::HealthcheckLost { .. } => Some(
                "only images in Docker's format have one; use the engine's Docker-compatible socket and no format of \
                 your own in containers.conf"
                    .to_owned(),
            ),
        }
    }
}

/// What to try for the failures that have nothing to do with the Containerfile.
fn hint_for(message: &str) -> Option<&'static str> {
    // A file that a build may not open is denied, too, and no login helps.
    let lower = message.to_lowercase().replace("permission denied", "");
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["x509", "unknown authority"]) {
        Some("the engine pulls base images: it must trust their registry's authority, in /etc/containers/certs.d")
    } else if has(&["unauthorized", "authentication required", "denied"]) {
        Some("a base image needs a login: give registry-auth-file with one for its registry")
    } else if has(&["no space left"]) {
        Some("free some space in the engine's storage, for example with podman image prune")
    } else {
        None
    }
}

/// Builds.
///
/// # Errors
/// When the context cannot be read, the build fails, or the image is not what the Containerfile declares.
pub async fn run(engine: &Docker, needs: Needs<'_>, log: &Log) -> Result<(), BuildError> {
    let name = ImageRef::tagged(needs.image, needs.tag).to_string();
    let declared = containerfile::declares_healthcheck(
        &needs.context.read_containerfile().map_err(BuildError::Context)?,
        needs.build.target.as_deref(),
    );
    let options = options(&needs, &name);
    // Not every Containerfile wants to know the commit, and nobody has asked for it to be passed.
    let unasked = (!needs.build.args.contains_key(COMMIT_ARG)).then_some(COMMIT_ARG);
    let stream = needs.context.stream();
    let pieces = futures_util::stream::unfold(stream.pieces, |mut pieces| async {
        pieces.recv().await.map(|piece| (piece, pieces))
    });
    let engine = engine.clone().with_timeout(FIRST_ANSWER);
    let credentials = (!needs.credentials.is_empty()).then_some(needs.credentials);
    let built =
        follow(engine.build_image(options, credentials, Some(bollard::body_try_stream(pieces))), unasked, log).await;
    // What the engine says about half a context is not what went wrong.
    match tokio::time::timeout(CONTEXT_ENDS, stream.outcome).await {
        Ok(Ok(Ok(Sent { entries, bytes }))) => {
            log.say(&format!("sent {entries} files and directories, {}", size(bytes)));
        }
        Ok(Ok(Err(ContextError::Refused))) | Ok(Err(_)) | Err(_) => {}
        Ok(Ok(Err(error))) => return Err(BuildError::Context(error)),
    }
    built?;
    let image = match engine.inspect_image(&name).await {
        Ok(image) => image,
        Err(source) => return Err(BuildError::Lost { image: name, source }),
    };
    if declared && !healthcheck::survived(&image, &name).await {
        return Err(BuildError::HealthcheckLost { image: name });
    }
    log.say(&format!("built {name}, image {}", image.id.unwrap_or_default()));
    Ok(())
}

/// The id of the image that this engine holds under the version tag, if it was built from this commit.
pub async fn built_before(engine: &Docker, image: &ImageRef, commit: &str) -> Option<String> {
    let held = engine.inspect_image(&image.to_string()).await.ok()?;
    let labels = held.config.and_then(|config| config.labels).unwrap_or_default();
    (labels.get("org.opencontainers.image.revision").map(String::as_str) == Some(commit)).then_some(held.id).flatten()
}

fn options(needs: &Needs<'_>, name: &str) -> BuildImageOptions {
    let options = BuildImageOptionsBuilder::new()
        .dockerfile(&needs.context.containerfile())
        .t(name)
        .rm(true)
        .forcerm(true)
        .buildargs(&args(needs).into_iter().collect::<HashMap<_, _>>())
        .labels(&labels(needs).into_iter().collect::<HashMap<_, _>>());
    let options = match &needs.build.target {
        Some(target) => options.target(target),
        None => options,
    };
    match &needs.build.platform {
        Some(platform) => options.platform(platform),
        None => options,
    }
    .build()
}

/// The build arguments: those that were given, and the commit.
fn args(needs: &Needs<'_>) -> BTreeMap<String, String> {
    let known = needs.origin.short_commit().map(|commit| (COMMIT_ARG.to_owned(), commit.to_owned()));
    known.into_iter().chain(needs.build.args.clone()).collect()
}

/// The labels of the OCI image specification (annotations.md) that a release knows, beneath those that were given.
fn labels(needs: &Needs<'_>) -> BTreeMap<String, String> {
    let known = [
        ("version", Some(needs.tag.to_string())),
        ("revision", needs.origin.commit.clone()),
        ("source", needs.origin.source.clone()),
        ("created", Some(needs.now.strftime("%FT%TZ").to_string())),
    ];
    let known =
        known.into_iter().filter_map(|(name, value)| Some((format!("org.opencontainers.image.{name}"), value?)));
    known.chain(needs.build.labels.clone()).collect()
}

fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    match bytes {
        0..KIB => format!("{bytes} bytes"),
        _ if bytes < KIB * KIB => format!("{} KiB", bytes / KIB),
        _ => format!("{} MiB", bytes / KIB / KIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints() {
        let vectors = [
            ("tls: x509: certificate signed by unknown authority", Some("certs.d")),
            ("unauthorized: authentication required", Some("registry-auth-file")),
            ("write /x: no space left on device", Some("prune")),
            ("exit status 1", None),
            ("creating build container: open /x: permission denied", None),
        ];
        for (message, expected) in vectors {
            let hint = hint_for(message);
            assert_eq!(hint.is_some(), expected.is_some(), "{message}");
            assert!(expected.is_none_or(|word| hint.is_some_and(|hint| hint.contains(word))), "{message}");
        }
    }

    #[test]
    fn arguments_and_labels() {
        let origin = Origin {
            commit: Some("0123456789".repeat(4)),
            source: Some("https://forge.test/chris/app".to_owned()),
            ..Origin::default()
        };
        let (image, tag) = ("registry.test/chris/app".parse().expect("an image"), "v1".parse().expect("a tag"));
        let given = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let context = tempfile::tempdir().expect("a directory");
        std::fs::write(context.path().join("Containerfile"), "FROM x").expect("written");
        for (asked, hash, version) in [(&[][..], "0123456", "v1"), (&[("GIT_HASH", "own")], "own", "own")] {
            let build = inputs::Build {
                context: context.path().to_owned(),
                file: None,
                target: None,
                args: given(asked),
                labels: given(&[("org.opencontainers.image.version", version)]),
                platform: None,
            };
            let needs = Needs {
                image: &image,
                tag: &tag,
                context: Context::open(context.path(), None).expect("a context"),
                build: &build,
                origin: &origin,
                credentials: HashMap::new(),
                now: "2026-10-01T12:00:00Z".parse().expect("a time"),
            };
            assert_eq!(args(&needs), given(&[("GIT_HASH", hash)]));
            let expected = given(&[
                ("org.opencontainers.image.version", version),
                ("org.opencontainers.image.revision", &"0123456789".repeat(4)),
                ("org.opencontainers.image.source", "https://forge.test/chris/app"),
                ("org.opencontainers.image.created", "2026-10-01T12:00:00Z"),
            ]);
            assert_eq!(labels(&needs), expected);
        }
    }

    #[test]
    fn sizes() {
        for (bytes, expected) in [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (5 << 20, "5 MiB")] {
            assert_eq!(size(bytes), expected);
        }
    }
}
