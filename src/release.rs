//! Runs the steps of a plan in their order, and hands what one learns to the next.
//!
//! The only place that knows how steps depend on each other. What each does lives with it; the order is the plan's.

use std::future::Future;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tagship_core::explain::Explain;
use tagship_core::reference::{Digest, ImageRef, Repository, Tag};
use tagship_core::registry::{Client, Manifest, RegistryError};
use tagship_core::signature::{self, CheckError, Expectation, Policy, TagClaim, Verified};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Code, Failure};
use crate::inputs::{Form, Inputs, Step};
use crate::log::{Log, Summary};
use crate::plan::{self, Asked, Held, Plan};
use crate::signing::sign::Facts;
use crate::steps::deploy::Verdict;
use crate::steps::preflight::{self, Ready};
use crate::steps::promote::Promoted;
use crate::steps::{build, deploy, promote, push, sign};

/// A run from its start to its end, good or bad.
pub struct Report {
    /// What the last lines of the log say, if all went well.
    pub summary: Summary,
    /// For the steps that follow in a workflow; whatever is known.
    pub outputs: Vec<(&'static str, String)>,
    /// Why the run ended early; empty if it did not.
    pub failures: Vec<Failure>,
}

/// Steps that need each other's results, and what could go wrong between them.
#[derive(Debug, thiserror::Error)]
enum ReleaseError {
    /// There is nothing to work on.
    #[error("the registry has no {0}")]
    NoImage(ImageRef),
    /// The registry's tag and the digest that was given are two images.
    #[error("{image} names {}, and its signature names no tag that would tie it to {digest}", held.map_or("nothing".to_owned(), |held| held.to_string()))]
    OtherImage { image: Box<ImageRef>, digest: Digest, held: Option<Digest> },
    /// The signature of what is there cannot be judged.
    #[error(transparent)]
    Check(Box<CheckError>),
    /// The registry stopped answering.
    #[error("cannot look up {image}")]
    LookUp { image: Box<ImageRef>, source: RegistryError },
    /// The host's verdict.
    #[error("the host did not deploy {image}: {outcome} ({kind}){}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
    Verdict { image: ImageRef, outcome: String, kind: String, reason: String, hint: Option<String> },
    /// A signal.
    #[error("interrupted")]
    Interrupted,
    /// The system gives no signals.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
    /// Cannot happen: preflight prepares what the steps need.
    #[error("{0} was not prepared")]
    Unprepared(&'static str),
}

impl Explain for ReleaseError {
    fn kind(&self) -> &'static str {
        match self {
            ReleaseError::NoImage(_) => "image-absent",
            ReleaseError::OtherImage { .. } => "tag-mismatch",
            ReleaseError::Check(source) => source.kind(),
            ReleaseError::LookUp { source, .. } => source.kind(),
            ReleaseError::Verdict { .. } => "host-said-no",
            ReleaseError::Interrupted => "interrupted",
            ReleaseError::Signals(_) => "signals",
            ReleaseError::Unprepared(_) => "unprepared",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ReleaseError::NoImage(_) => Some("push it first, or give the digest of another".to_owned()),
            ReleaseError::OtherImage { .. } => Some("give the digest that the tag names, or none".to_owned()),
            ReleaseError::Check(source) => source.hint(),
            ReleaseError::LookUp { source, .. } => source.hint(),
            ReleaseError::Verdict { hint, .. } => hint.clone(),
            ReleaseError::Interrupted | ReleaseError::Signals(_) | ReleaseError::Unprepared(_) => None,
        }
    }
}

/// Runs everything that the inputs ask for. Says all that there is to say, but for the summary and the failures.
pub async fn run(mut inputs: Inputs, must_be_mount: bool, started: Instant, log: &Log) -> Report {
    let mut course = Course::default();
    let mut failures = match follow(&mut inputs, must_be_mount, &mut course, log).await {
        Ok(()) => Vec::new(),
        Err(failures) => failures,
    };
    log.end();
    if !failures.is_empty()
        && course.must_be_put_back
        && let Err(failure) = put_back(&inputs, &course, log).await
    {
        failures.push(failure);
    }
    Report {
        outputs: course.outputs(&inputs, failures.is_empty()),
        summary: course.summary(&inputs, started.elapsed()),
        failures,
    }
}

/// What has been learned so far.
#[derive(Default)]
struct Course {
    reuse: bool,
    took: Vec<(&'static str, Duration)>,
    manifest: Option<Manifest>,
    digest: Option<Digest>,
    verified: Option<Verified>,
    log_index: Option<u64>,
    verdict: Option<Verdict>,
    promoted: Option<Promoted>,
    /// The moving tag was moved for a host that then did not deploy.
    must_be_put_back: bool,
    client: Option<Client>,
}

async fn follow(inputs: &mut Inputs, must_be_mount: bool, course: &mut Course, log: &Log) -> Result<(), Vec<Failure>> {
    let mut stop = Stop::new().map_err(|source| one(Failure::new(Code::Usage, ReleaseError::Signals(source))))?;
    let image = ImageRef::tagged(&inputs.image, &inputs.tag);
    log.begin(&format!("preflight for {image}"));
    let mut ready = stop.or(preflight::run(inputs, must_be_mount, log)).await.map_err(one)??;
    let plan = stop.or(decide(inputs, &ready, course)).await.map_err(one)?.map_err(one)?;
    show(&plan, inputs, course, log);
    course.took.push(("preflight", log.end()));

    course.reuse = plan.reuse;
    for step in plan.steps {
        log.begin(&heading(step, inputs, course));
        // Only the hand-off may not be left in the middle: it takes its request back when it is asked to stop.
        let done = match step {
            Step::Deploy => perform(step, inputs, &mut ready, course, log).await,
            _ => stop.or(perform(step, inputs, &mut ready, course, log)).await.and_then(|done| done),
        };
        course.took.push((step.name(), log.end()));
        if let Err(failure) = done {
            course.client = ready.registry.map(|registry| registry.client);
            return Err(one(failure));
        }
    }
    Ok(())
}

fn one(failure: Failure) -> Vec<Failure> {
    vec![failure]
}

/// Looks at what the registry holds under the version tag, and makes the plan.
async fn decide(inputs: &Inputs, ready: &Ready, course: &mut Course) -> Result<Plan, Failure> {
    let image = ImageRef::tagged(&inputs.image, &inputs.tag);
    let makes_new = inputs.wants(Step::Build) || inputs.wants(Step::Push);
    let found = ready.registry.as_ref().and_then(|registry| registry.held);
    let held = match (found, &ready.registry, &ready.policy) {
        (Some(digest), Some(registry), Some(policy)) if makes_new && !inputs.force => {
            match check(&registry.client, inputs, digest, policy).await {
                Ok(verified) => {
                    course.digest = Some(digest);
                    course.verified = Some(verified);
                    Held::Verified
                }
                Err(CheckError::Verify(error)) => {
                    if made_here(inputs, ready, &registry.client, digest).await? {
                        course.digest = Some(digest);
                        Held::Pushed
                    } else {
                        Held::Unverified { digest, why: error.fault().to_string() }
                    }
                }
                Err(error @ CheckError::Fetch(_)) => {
                    return Err(Failure::new(Code::Registry, ReleaseError::Check(Box::new(error))));
                }
            }
        }
        (Some(digest), _, None) => Held::Unverified { digest, why: "no key was given to verify it with".to_owned() },
        _ => Held::Nothing,
    };
    let asked = Asked {
        steps: &inputs.steps,
        form: inputs.handoff.form,
        moving: inputs.moving_tag.is_some(),
        force: inputs.force,
    };
    let plan = plan::plan(asked, &image, held).map_err(|error| Failure::new(Code::Registry, error))?;
    if !makes_new {
        let digest = inputs.digest.or(found);
        course.digest = Some(digest.ok_or_else(|| Failure::new(Code::Registry, ReleaseError::NoImage(image)))?);
    }
    Ok(plan)
}

/// Whether an image in the registry is the one that this engine built from this very commit under this tag: then a run
/// that stopped between push and signature is gone on with. The registry's word alone would let anybody who may push
/// have their image signed.
async fn made_here(inputs: &Inputs, ready: &Ready, client: &Client, digest: Digest) -> Result<bool, Failure> {
    let (Some(engine), Some(commit)) = (&ready.engine, &inputs.origin.commit) else { return Ok(false) };
    if !inputs.wants(Step::Sign) {
        return Ok(false);
    }
    let image = ImageRef::tagged(&inputs.image, &inputs.tag);
    match build::built_before(engine, &image, commit).await {
        Some(built) => push::is_of(client, &inputs.image, digest, &built).await,
        None => Ok(false),
    }
    .map_err(|source| Failure::new(Code::Registry, ReleaseError::LookUp { image: Box::new(image), source }))
}

fn show(plan: &Plan, inputs: &Inputs, course: &Course, log: &Log) {
    if let (true, Some(digest)) = (plan.reuse, course.digest) {
        let why =
            if course.verified.is_some() { "its signature verifies" } else { "this engine built it from this commit" };
        log.say(&format!(
            "{}:{} is in the registry as {digest}, and {why}: nothing is built again",
            inputs.image, inputs.tag
        ));
    }
    if inputs.wants(Step::Promote) && inputs.moving_tag.is_none() {
        log.say("no moving tag: nothing is promoted");
    }
    let names: Vec<_> = plan.steps.iter().map(|step| step.name()).collect();
    log.say(&match names.as_slice() {
        [] => "nothing is left to do".to_owned(),
        names => format!("all is ready for: {}", names.join(", ")),
    });
}

fn heading(step: Step, inputs: &Inputs, course: &Course) -> String {
    let (image, tag) = (&inputs.image, &inputs.tag);
    let digest = course.digest.map_or_else(String::new, |digest| digest.to_string());
    match step {
        Step::Build | Step::Push => format!("{step} {image}:{tag}"),
        Step::Sign => format!("{step} {digest}"),
        Step::Deploy => format!("{step} {tag}"),
        Step::Promote => match &inputs.moving_tag {
            Some(moving) => format!("{step} {tag} to {moving}"),
            None => format!("{step} {tag}"),
        },
    }
}

async fn perform(
    step: Step,
    inputs: &Inputs,
    ready: &mut Ready,
    course: &mut Course,
    log: &Log,
) -> Result<(), Failure> {
    match step {
        Step::Build => {
            let needs = build::Needs {
                image: &inputs.image,
                tag: &inputs.tag,
                build: &inputs.build,
                context: prepared(ready.context.take(), "the build context")?,
                origin: &inputs.origin,
                credentials: std::mem::take(&mut ready.base_images),
                now: Timestamp::now(),
            };
            let engine = prepared(ready.engine.as_ref(), "the engine")?;
            build::run(engine, needs, log).await.map_err(|error| Failure::new(Code::Build, error))?;
        }
        Step::Push => {
            let registry = prepared(ready.registry.as_mut(), "the registry")?;
            let credentials = registry.credentials.take();
            let needs = push::Needs { image: &inputs.image, tag: &inputs.tag, credentials };
            let engine = prepared(ready.engine.as_ref(), "the engine")?;
            let pushed = push::run(engine, &registry.client, needs, log)
                .await
                .map_err(|error| Failure::new(Code::Registry, error))?;
            course.digest = Some(pushed.manifest.digest());
            course.manifest = Some(pushed.manifest);
        }
        Step::Sign => {
            let facts = Facts {
                tag: inputs.tag.clone(),
                commit: inputs.origin.commit.clone(),
                run: inputs.origin.run.clone(),
                further: inputs.annotations.clone(),
            };
            let needs = sign::Needs {
                client: &prepared(ready.registry.as_ref(), "the registry")?.client,
                repository: &inputs.image,
                digest: prepared(course.digest, "the digest")?,
                facts: &facts,
                key: prepared(ready.key.as_ref(), "the key")?,
                log: ready.rekor.as_ref(),
            };
            let signed = sign::run(needs, log).await.map_err(|error| Failure::new(Code::Signing, error))?;
            course.log_index = signed.log_index;
            course.verified = Some(signed.verified);
        }
        Step::Deploy => {
            let digest = verified(inputs, ready, course, log).await?.digest();
            let needs = deploy::Needs {
                place: prepared(ready.place.as_ref(), "the hand-off directory")?,
                form: inputs.handoff.form,
                timeout: inputs.handoff.timeout,
                image: &inputs.image,
                tag: &inputs.tag,
                digest: &digest,
                origin: &inputs.origin,
                rollback: false,
                key: ready.key.as_ref(),
            };
            let asked = deploy::run(needs, log).await;
            let failed = match asked {
                Ok(verdict) => {
                    let failed = (!verdict.is_ok()).then(|| Failure::new(Code::HostSaidNo, said_no(inputs, &verdict)));
                    course.must_be_put_back = failed.is_some();
                    course.verdict = Some(verdict);
                    failed
                }
                Err(error) => {
                    course.must_be_put_back = !error.may_be_claimed();
                    Some(Failure::new(error.code(), error))
                }
            };
            // Only a host that speaks plain is asked after the moving tag was moved for it.
            course.must_be_put_back &= inputs.handoff.form == Form::Plain && course.promoted.is_some();
            return failed.map_or(Ok(()), Err);
        }
        Step::Promote => {
            let moving = prepared(inputs.moving_tag.as_ref(), "the moving tag")?;
            verified(inputs, ready, course, log).await?;
            let verified = prepared(course.verified.as_ref(), "the signature")?;
            let client = &prepared(ready.registry.as_ref(), "the registry")?.client;
            let failed = |error| Failure::new(Code::Registry, error);
            let manifest = match course.manifest.take() {
                Some(manifest) => manifest,
                None => promote::fetch(client, &inputs.image, moving, verified.digest()).await.map_err(failed)?,
            };
            course.promoted = Some(promote::run(client, verified, moving, &manifest, log).await.map_err(failed)?);
        }
    }
    Ok(())
}

/// The proof that the image's signature counts: from signing it, or from what is in the registry.
async fn verified<'a>(
    inputs: &Inputs,
    ready: &Ready,
    course: &'a mut Course,
    log: &Log,
) -> Result<&'a Verified, Failure> {
    if course.verified.is_none() {
        let client = &prepared(ready.registry.as_ref(), "the registry")?.client;
        let digest = prepared(course.digest, "the digest")?;
        let policy = prepared(ready.policy.as_ref(), "the key")?;
        let verified = check(client, inputs, digest, policy).await.map_err(|error| {
            let code = if matches!(error, CheckError::Fetch(_)) { Code::Registry } else { Code::Signing };
            Failure::new(code, ReleaseError::Check(Box::new(error)))
        })?;
        if *verified.tag_claim() == TagClaim::Unsigned {
            same_as_tag(client, &inputs.image, &inputs.tag, digest).await?;
        }
        log.say(&format!("the signature of {digest} by {} verifies", verified.key_fingerprint()));
        course.log_index = verified.logged().map(|logged| logged.index());
        course.verified = Some(verified);
    }
    prepared(course.verified.as_ref(), "the signature")
}

async fn check(client: &Client, inputs: &Inputs, digest: Digest, policy: &Policy) -> Result<Verified, CheckError> {
    let expected = Expectation { repository: inputs.image.clone(), digest, tag: Some(inputs.tag.clone()) };
    signature::check(client, &expected, policy).await
}

/// A signature that names no tag counts under the tag only if the registry ties the two together.
async fn same_as_tag(client: &Client, repository: &Repository, tag: &Tag, digest: Digest) -> Result<(), Failure> {
    let image = Box::new(ImageRef::tagged(repository, tag));
    match client.resolve(repository, tag).await {
        Ok(Some(held)) if held == digest => Ok(()),
        Ok(held) => Err(Failure::new(Code::Signing, ReleaseError::OtherImage { image, digest, held })),
        Err(source) => Err(Failure::new(Code::Registry, ReleaseError::LookUp { image, source })),
    }
}

/// The host's words, and its hint, which the companion puts behind its reason.
fn said_no(inputs: &Inputs, verdict: &Verdict) -> ReleaseError {
    let (reason, hint) = match (verdict.reason.as_str().split_once("; hint: "), inputs.handoff.form) {
        (Some((reason, hint)), _) => (reason, Some(hint.to_owned())),
        (None, Form::Plain) => (verdict.reason.as_str(), None),
        (None, Form::Full) => {
            let more =
                "on the host, `tagship-host status APP` and `journalctl --user -u tagship@APP.service` know more";
            (verdict.reason.as_str(), Some(more.to_owned()))
        }
    };
    ReleaseError::Verdict {
        image: ImageRef::tagged(&inputs.image, &inputs.tag),
        outcome: verdict.outcome.to_string(),
        kind: verdict.kind.to_string(),
        reason: reason.to_owned(),
        hint,
    }
}

/// Puts the moving tag back for a host that deploys what it names, and did not.
async fn put_back(inputs: &Inputs, course: &Course, log: &Log) -> Result<(), Failure> {
    let (Some(client), Some(moving), Some(promoted), Some(ours)) =
        (&course.client, &inputs.moving_tag, &course.promoted, course.digest)
    else {
        return Ok(());
    };
    log.begin(&format!("put {moving} back"));
    let done = promote::put_back(client, &inputs.image, moving, ours, promoted.previous.as_ref(), log).await;
    log.end();
    done.map_err(|error| Failure::new(Code::Registry, error))
}

fn prepared<T>(thing: Option<T>, name: &'static str) -> Result<T, Failure> {
    thing.ok_or_else(|| Failure::new(Code::Usage, ReleaseError::Unprepared(name)))
}

impl Course {
    fn previous(&self) -> Option<Digest> {
        let told = self.verdict.as_ref().and_then(|verdict| verdict.previous_digest);
        let moved = self.promoted.as_ref().and_then(|promoted| promoted.previous.as_ref());
        told.or(moved.map(Manifest::digest))
    }

    /// One word for how it ended: the host's, where it was asked.
    fn outcome(&self, well: bool) -> String {
        match &self.verdict {
            Some(verdict) => verdict.outcome.to_string(),
            None if well => "done".to_owned(),
            None => "failed".to_owned(),
        }
    }

    fn outputs(&self, inputs: &Inputs, well: bool) -> Vec<(&'static str, String)> {
        let known = [
            ("image", Some(inputs.image.to_string())),
            ("tag", Some(inputs.tag.to_string())),
            ("digest", self.digest.map(|digest| digest.to_string())),
            ("rekor-log-index", self.log_index.map(|index| index.to_string())),
            ("outcome", Some(self.outcome(well))),
            ("previous-digest", self.previous().map(|digest| digest.to_string())),
        ];
        known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn summary(&self, inputs: &Inputs, total: Duration) -> Summary {
        let image = ImageRef::tagged(&inputs.image, &inputs.tag);
        let verb = match (&self.verdict, &self.promoted, inputs.steps.last()) {
            (Some(_), ..) | (None, Some(_), _) => "released",
            (None, None, Some(Step::Sign)) => "signed",
            (None, None, Some(Step::Push)) => "pushed",
            (None, None, Some(Step::Build)) => "built",
            (None, None, _) => "checked",
        };
        let moved = self.promoted.as_ref().and_then(|promoted| {
            let before = promoted.previous.as_ref().map(|manifest| manifest.digest());
            Some(match (inputs.moving_tag.as_ref()?, before) {
                (moving, Some(before)) if Some(before) == self.digest => format!("{moving}, as before"),
                (moving, Some(before)) => format!("{moving}, before that {before}"),
                (moving, None) => format!("{moving}, for the first time"),
            })
        });
        let facts = [
            ("digest", self.digest.map(|digest| digest.to_string())),
            ("log entry", self.log_index.map(|index| index.to_string())),
            ("host", self.verdict.as_ref().map(|verdict| verdict.outcome.to_string())),
            ("moving tag", moved),
        ];
        let again = if self.reuse { ", which was there already" } else { "" };
        Summary {
            headline: format!("{verb} {image}{again}"),
            facts: facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
            steps: self.took.clone(),
            total,
        }
    }
}

/// The signals that end a run.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> std::io::Result<Stop> {
        Ok(Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Does a thing, or leaves it when a signal comes.
    async fn or<T>(&mut self, thing: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            done = thing => Ok(done),
            _ = self.terminate.recv() => Err(Failure::new(Code::Interrupted, ReleaseError::Interrupted)),
            _ = self.interrupt.recv() => Err(Failure::new(Code::Interrupted, ReleaseError::Interrupted)),
        }
    }
}
