//! Each step of a release with what it needs, out of what preflight prepared and earlier steps learned.

use jiff::Timestamp;
use tagship_core::reference::ImageRef;
use tagship_core::signature::{TagClaim, Verified};

use super::course::Course;
use super::error::ReleaseError;
use super::held;
use crate::failure::{Code, Failure};
use crate::inputs::{Form, Inputs};
use crate::log::Log;
use crate::steps::deploy::Verdict;
use crate::steps::preflight::Ready;
use crate::steps::sign::SignStepError;
use crate::steps::{build, deploy, promote, push, sign};
use crate::stop::Stop;

pub(super) async fn build(inputs: &Inputs, ready: &mut Ready, log: &Log) -> Result<(), Failure> {
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
    build::run(engine, needs, log).await.map_err(|error| Failure::new(Code::Build, error))
}

pub(super) async fn push(inputs: &Inputs, ready: &mut Ready, course: &mut Course, log: &Log) -> Result<(), Failure> {
    let registry = prepared(ready.registry.as_mut(), "the registry")?;
    let credentials = registry.credentials.take();
    let needs = push::Needs { image: &inputs.image, tag: &inputs.tag, credentials };
    let engine = prepared(ready.engine.as_ref(), "the engine")?;
    let manifest =
        push::run(engine, &registry.client, needs, log).await.map_err(|error| Failure::new(Code::Registry, error))?;
    course.digest = Some(manifest.digest());
    course.manifest = Some(manifest);
    Ok(())
}

pub(super) async fn sign(inputs: &Inputs, ready: &mut Ready, course: &mut Course, log: &Log) -> Result<(), Failure> {
    let facts = inputs.facts();
    let registry = prepared(ready.registry.as_mut(), "the registry")?;
    let (client, repository) = (&registry.client, &inputs.image);
    let digest = prepared(course.digest, "the digest")?;
    let failed = |error: SignStepError| Failure::new(error.code(), error);
    let ahead = match registry.signatures.take() {
        Some(ahead) => ahead,
        None => sign::look(client, repository, &digest, inputs.formats).await.map_err(|error| failed(error.into()))?,
    };
    let needs = sign::Needs {
        client,
        repository,
        digest,
        facts: &facts,
        key: prepared(ready.key.as_ref(), "the key")?,
        log: ready.rekor.as_ref(),
        formats: inputs.formats,
    };
    let verified = sign::run(needs, ahead, log).await.map_err(failed)?;
    course.verified = Some(verified);
    Ok(())
}

/// Hands the image to the host, and remembers whether the moving tag was moved for nothing.
pub(super) async fn hand_off(
    inputs: &Inputs,
    ready: &Ready,
    course: &mut Course,
    stop: &mut Stop,
    log: &Log,
) -> Result<(), Failure> {
    let digest = verified(inputs, ready, course, log).await?.digest();
    let needs = deploy::Needs {
        place: prepared(ready.place.as_ref(), "the hand-off directory")?,
        form: inputs.handoff.form,
        timeout: inputs.handoff.timeout,
        image: &inputs.image,
        tag: &inputs.tag,
        digest: &digest,
        origin: &inputs.origin,
        rollback: inputs.rollback,
        key: ready.key.as_ref(),
    };
    let (undone, failed) = match deploy::run(needs, stop, log).await {
        Ok(verdict) => {
            let failed = (!verdict.is_ok()).then(|| Failure::new(Code::HostSaidNo, said_no(inputs, &verdict)));
            course.verdict = Some(verdict);
            (failed.is_some(), failed)
        }
        Err(error) => (!error.may_be_claimed(), Some(Failure::new(error.code(), error))),
    };
    // Only a host that speaks plain is asked after the moving tag was moved for it.
    course.must_be_put_back = undone && inputs.handoff.form == Form::Plain && course.promoted.is_some();
    failed.map_or(Ok(()), Err)
}

pub(super) async fn promote(inputs: &Inputs, ready: &Ready, course: &mut Course, log: &Log) -> Result<(), Failure> {
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
    Ok(())
}

/// Puts the moving tag back for a host that deploys what it names, and did not.
pub(super) async fn put_back(inputs: &Inputs, course: &Course, log: &Log) -> Result<(), Failure> {
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
        let verified = held::check(client, inputs, digest, policy)
            .await
            .map_err(|error| Failure::new(Code::of_check(&error), ReleaseError::Check(Box::new(error))))?;
        if *verified.tag_claim() == TagClaim::Unsigned {
            held::same_as_tag(client, &inputs.image, &inputs.tag, digest).await?;
        }
        log.say(&format!("the signature of {digest} by {} verifies", verified.key_fingerprint()));
        course.verified = Some(verified);
    }
    prepared(course.verified.as_ref(), "the signature")
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

fn prepared<T>(thing: Option<T>, name: &'static str) -> Result<T, Failure> {
    thing.ok_or_else(|| Failure::new(Code::Usage, ReleaseError::Unprepared(name)))
}
