//! Runs the steps of a plan in their order, and hands what one learns to the next.
//!
//! The only place that knows how steps depend on each other. What each does lives with it; the order is the plan's.

mod course;
mod error;
mod held;
mod perform;

use std::time::Instant;

use tagship_core::failpoint;
use tagship_core::reference::{Digest, ImageRef};
use tagship_core::registry::Client;
use tagship_core::signature::CheckError;

use crate::failure::{Code, Failure};
use crate::inputs::{Inputs, Step};
use crate::log::{Log, Summary};
use crate::plan::{self, Asked, Held, Plan};
use crate::steps::deploy::Place;
use crate::steps::preflight::{self, Ready};
use crate::stop::Stop;
use course::Course;
use error::ReleaseError;

/// A run from its start to its end, good or bad.
pub struct Report {
    /// What the last lines of the log say, if all went well.
    pub summary: Summary,
    /// For the steps that follow in a workflow; whatever is known.
    pub outputs: Vec<(&'static str, String)>,
    /// Why the run ended early; empty if it did not.
    pub failures: Vec<Failure>,
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
        && let Err(failure) = perform::put_back(&inputs, &course, log).await
    {
        failures.push(failure);
    }
    Report {
        outputs: course.outputs(&inputs, failures.is_empty()),
        summary: course.summary(&inputs, started.elapsed()),
        failures,
    }
}

async fn follow(inputs: &mut Inputs, must_be_mount: bool, course: &mut Course, log: &Log) -> Result<(), Vec<Failure>> {
    let mut stop = Stop::new().map_err(|source| one(Failure::new(Code::Usage, ReleaseError::Signals(source))))?;
    let image = ImageRef::tagged(&inputs.image, &inputs.tag);
    log.begin(&format!("preflight for {image}"));
    let checked = stop.or(preflight::run(inputs, must_be_mount, log)).await;
    let mut ready = checked.unwrap_or_else(|| interrupted().map_err(one))?;
    let plan = stop.or(decide(inputs, &ready, course)).await.unwrap_or_else(interrupted).map_err(one)?;
    show(&plan, inputs, course, log);
    course.took.push(("preflight", log.end()));

    course.reuse = plan.reuse;
    for step in plan.steps {
        log.begin(&heading(step, inputs, course));
        failpoint::pass("begins", step.name());
        // The hand-off takes its request back when it is asked to stop, and a moving tag that moves is remembered:
        // neither may be left in the middle. What comes meanwhile stops the step after it.
        let done = match step {
            Step::Deploy => perform::hand_off(inputs, &ready, course, &mut stop, log).await,
            Step::Promote => perform::promote(inputs, &ready, course, log).await,
            Step::Build => stop.or(perform::build(inputs, &mut ready, log)).await.unwrap_or_else(interrupted),
            Step::Push => stop.or(perform::push(inputs, &mut ready, course, log)).await.unwrap_or_else(interrupted),
            Step::Sign => stop.or(perform::sign(inputs, &mut ready, course, log)).await.unwrap_or_else(interrupted),
        };
        course.took.push((step.name(), log.end()));
        failpoint::pass("has done", step.name());
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

fn interrupted<T>() -> Result<T, Failure> {
    Err(Failure::new(Code::Interrupted, ReleaseError::Interrupted))
}

/// Looks at what the registry holds under the version tag, and makes the plan.
async fn decide(inputs: &Inputs, ready: &Ready, course: &mut Course) -> Result<Plan, Failure> {
    let image = ImageRef::tagged(&inputs.image, &inputs.tag);
    let makes_new = inputs.wants(Step::Build) || inputs.wants(Step::Push);
    let found = ready.registry.as_ref().and_then(|registry| registry.held);
    let held = match (found, &ready.registry, &ready.policy) {
        (Some(digest), Some(registry), Some(policy)) if makes_new && !inputs.force => {
            match held::check(&registry.client, inputs, digest, policy).await {
                Ok(verified) => {
                    course.digest = Some(digest);
                    course.verified = Some(verified);
                    Held::Verified
                }
                Err(CheckError::Verify(error)) => {
                    if is_ours(inputs, ready, &registry.client, &image, digest).await? {
                        course.digest = Some(digest);
                        Held::Pushed
                    } else {
                        Held::Unverified { digest, why: error.fault().to_string() }
                    }
                }
                Err(error @ (CheckError::Fetch(_) | CheckError::Unread { .. })) => {
                    return Err(Failure::new(Code::of_check(&error), ReleaseError::Check(Box::new(error))));
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
        runs: ready.place.as_ref().and_then(Place::running) == Some(&inputs.tag),
    };
    let plan = plan::plan(asked, &image, held).map_err(|error| Failure::new(error.code(), error))?;
    if !makes_new {
        let digest = inputs.digest.or(found);
        course.digest = Some(digest.ok_or_else(|| Failure::new(Code::Registry, ReleaseError::NoImage(image)))?);
    }
    Ok(plan)
}

/// Whether an earlier run of this release pushed the image and got no further. It is pushed once more: that the registry
/// names our image by its configuration says nothing about the layers beside it.
async fn is_ours(
    inputs: &Inputs,
    ready: &Ready,
    client: &Client,
    image: &ImageRef,
    digest: Digest,
) -> Result<bool, Failure> {
    let (Some(engine), Some(commit)) = (&ready.engine, &inputs.origin.commit) else { return Ok(false) };
    if !inputs.wants(Step::Push) || !inputs.wants(Step::Sign) {
        return Ok(false);
    }
    let failed = |source| ReleaseError::LookUp { image: Box::new(image.clone()), source };
    let ours = held::made_here(engine, client, image, commit, digest).await;
    ours.map_err(|source| Failure::new(Code::Registry, failed(source)))
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
        Step::Deploy if inputs.rollback => format!("{step} {tag}, going back"),
        Step::Deploy => format!("{step} {tag}"),
        Step::Promote => match &inputs.moving_tag {
            Some(moving) => format!("{step} {tag} to {moving}"),
            None => format!("{step} {tag}"),
        },
    }
}
