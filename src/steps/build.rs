//! Builds the image with the engine, from the streamed context, and checks what came out.
//!
//! What goes into the context is decided in `context`; pushing is another step.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::models::BuildInfo;
use bollard::query_parameters::{BuildImageOptions, BuildImageOptionsBuilder};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tagship_core::explain::Explain;
use tagship_core::reference::{ImageRef, Repository, Tag};

use super::containerfile;
use crate::context::{Context, ContextError, Sent};
use crate::inputs::{self, Origin};
use crate::log::Log;

/// How long the engine may take to answer at all. It does so once it has the whole context, which can be large and the
/// disk slow; what follows has no limit of its own.
const FIRST_ANSWER: Duration = Duration::from_secs(3600);

/// How long to wait for the context's thread once the engine is done: it ends as soon as nobody reads any more.
const CONTEXT_ENDS: Duration = Duration::from_secs(5);

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

/// What a build learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The engine's id of the image. Not the digest: that is the registry's to say.
    pub image_id: String,
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
            BuildError::Engine(_) => Some("look at the engine's own log, such as journalctl --user -u podman".to_owned()),
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
    let lower = message.to_lowercase();
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
pub async fn run(engine: &Docker, needs: Needs<'_>, log: &Log) -> Result<Built, BuildError> {
    let name = ImageRef::tagged(needs.image, needs.tag).to_string();
    let declared = containerfile::declares_healthcheck(
        &needs.context.read_containerfile().map_err(BuildError::Context)?,
        needs.build.target.as_deref(),
    );
    let options = options(&needs, &name);
    let stream = needs.context.stream();
    let pieces = futures_util::stream::unfold(stream.pieces, |mut pieces| async {
        pieces.recv().await.map(|piece| (piece, pieces))
    });
    let engine = engine.clone().with_timeout(FIRST_ANSWER);
    let credentials = (!needs.credentials.is_empty()).then_some(needs.credentials);
    let built = follow(engine.build_image(options, credentials, Some(bollard::body_try_stream(pieces))), log).await;
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
    if declared && image.config.and_then(|config| config.healthcheck).and_then(|check| check.test).is_none() {
        return Err(BuildError::HealthcheckLost { image: name });
    }
    let image_id = image.id.unwrap_or_default();
    log.say(&format!("built {name}, image {image_id}"));
    Ok(Built { image_id })
}

fn options(needs: &Needs<'_>, name: &str) -> BuildImageOptions {
    let options = BuildImageOptionsBuilder::new()
        .dockerfile(&needs.context.containerfile().to_string_lossy())
        .t(name)
        .rm(true)
        .forcerm(true)
        .buildargs(&needs.build.args.clone().into_iter().collect::<HashMap<_, _>>())
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

/// The labels of the OCI image specification (annotations.md) that a release knows, beneath those that were given.
fn labels(needs: &Needs<'_>) -> BTreeMap<String, String> {
    let known = [
        ("version", Some(needs.tag.to_string())),
        ("revision", needs.origin.commit.clone()),
        ("source", needs.origin.source.clone()),
        ("created", Some(needs.now.to_string())),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((format!("org.opencontainers.image.{name}"), value?)));
    known.chain(needs.build.labels.clone()).collect()
}

/// Shows the engine's words as they come, a whole line at a time, and remembers the instruction that it is at.
async fn follow(
    mut messages: impl futures_util::Stream<Item = Result<BuildInfo, bollard::errors::Error>> + Unpin,
    log: &Log,
) -> Result<(), BuildError> {
    let mut lines = Lines::default();
    let mut step = None;
    let mut show = |line: &str| {
        if is_step(line) {
            step = Some(line.trim().to_owned());
        }
        log.quote(line);
    };
    let failed = loop {
        match messages.next().await {
            None => break None,
            Some(Ok(message)) => {
                // Progress of a pull comes many times a second, each with the layer's id.
                let status = message.status.filter(|_| message.id.is_none() && message.progress_detail.is_none());
                let words = message.stream.or(status.map(|status| status + "\n")).unwrap_or_default();
                lines.add(&words).iter().for_each(|line| show(line));
            }
            Some(Err(error)) => break Some(error),
        }
    };
    lines.rest().iter().for_each(|line| show(line));
    match failed {
        None => Ok(()),
        Some(bollard::errors::Error::DockerStreamError { error }) => {
            Err(BuildError::Failed { step, message: tagship_core::text::escape(error.trim()) })
        }
        Some(bollard::errors::Error::DockerResponseServerError { message, status_code: 400..500 }) => {
            Err(BuildError::Failed { step, message: tagship_core::text::escape(message.trim()) })
        }
        Some(other) => Err(BuildError::Engine(other)),
    }
}

/// `STEP 2/5: RUN make` of Podman, `Step 2/5 : RUN make` of Docker.
fn is_step(line: &str) -> bool {
    let line = line.trim_start();
    let rest = line.strip_prefix("STEP ").or_else(|| line.strip_prefix("Step "));
    rest.is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
}

/// Lines out of pieces of text that end anywhere.
#[derive(Default)]
struct Lines {
    unfinished: String,
}

impl Lines {
    /// More than any line that a person reads: without an end to it, it is shown as it is.
    const LONGEST: usize = 32 * 1024;

    /// The lines that a piece finishes.
    fn add(&mut self, piece: &str) -> Vec<String> {
        self.unfinished.push_str(piece);
        let mut finished = Vec::new();
        while let Some((line, rest)) = self.unfinished.split_once('\n') {
            finished.extend(shown(line));
            self.unfinished = rest.to_owned();
        }
        if self.unfinished.len() > Lines::LONGEST {
            finished.extend(self.rest());
        }
        finished
    }

    /// What is left without a line's end.
    fn rest(&mut self) -> Option<String> {
        shown(&std::mem::take(&mut self.unfinished))
    }
}

/// What a terminal would show of a line in the end: programs that draw a progress bar start over after a carriage
/// return. Nothing, if that is nothing.
fn shown(line: &str) -> Option<String> {
    let last = line.trim_end().rsplit('\r').next()?;
    (!last.is_empty()).then(|| last.to_owned())
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
    use crate::log::Style;
    use crate::log::testing;
    use bollard::errors::Error;

    fn says(text: &str) -> Result<BuildInfo, Error> {
        Ok(BuildInfo { stream: Some(text.to_owned()), ..BuildInfo::default() })
    }

    async fn follow_all(messages: Vec<Result<BuildInfo, Error>>) -> (Result<(), BuildError>, String) {
        let (log, printed) = testing::log(Style::Runner);
        let result = follow(futures_util::stream::iter(messages), &log).await;
        (result, printed.text())
    }

    #[tokio::test]
    async fn pieces_become_lines() {
        let (result, text) = follow_all(vec![says("STEP 1/2: FR"), says("OM scratch\nSTEP 2/2"), says(": COPY a b")]).await;
        assert!(result.is_ok());
        assert_eq!(text, "| STEP 1/2: FROM scratch\n| STEP 2/2: COPY a b\n");
    }

    #[tokio::test]
    async fn progress_is_no_line() {
        let progress = BuildInfo { status: Some("Downloading".into()), id: Some("ab12".into()), ..BuildInfo::default() };
        let pulling = BuildInfo { status: Some("Pulling from base".into()), ..BuildInfo::default() };
        let bar = says("1%\r50%\r100% done\n");
        let (_, text) = follow_all(vec![Ok(pulling), Ok(progress), bar, says("\n\n")]).await;
        assert_eq!(text, "| Pulling from base\n| 100% done\n");
    }

    #[tokio::test]
    async fn a_failure_names_the_step() {
        let messages = vec![
            says("STEP 1/2: FROM a\nSTEP 2/2: RUN ::false\nsh: no such thing\n"),
            Err(Error::DockerStreamError { error: "exit status 1\n::add-mask::x".to_owned() }),
        ];
        let (result, text) = follow_all(messages).await;
        let message = result.expect_err("failed").to_string();
        assert_eq!(message, "the build failed at STEP 2/2: RUN ::false: exit status 1\\n::add-mask::x");
        assert!(text.ends_with("| sh: no such thing\n"), "{text}");
    }

    #[test]
    fn hints() {
        let vectors = [
            ("tls: x509: certificate signed by unknown authority", Some("certs.d")),
            ("unauthorized: authentication required", Some("registry-auth-file")),
            ("write /x: no space left on device", Some("prune")),
            ("exit status 1", None),
        ];
        for (message, expected) in vectors {
            let hint = hint_for(message);
            assert_eq!(hint.is_some(), expected.is_some(), "{message}");
            assert!(expected.is_none_or(|word| hint.is_some_and(|hint| hint.contains(word))), "{message}");
        }
    }

    #[test]
    fn an_endless_line_is_shown_in_pieces() {
        let mut lines = Lines::default();
        let mut count = 0;
        for _ in 0..100 {
            count += lines.add(&"x".repeat(1024)).len();
        }
        assert!(count >= 3 && lines.unfinished.len() <= Lines::LONGEST);
    }

    #[test]
    fn sizes() {
        for (bytes, expected) in [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (5 << 20, "5 MiB")] {
            assert_eq!(size(bytes), expected);
        }
    }
}
