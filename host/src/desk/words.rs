//! How a deploy's end reads in an answer. What it was is decided elsewhere.

use tagship_core::{
    explain::Explain,
    handoff::{
        fields::{Line, Word},
        status::{Outcome, Service, Status},
    },
    reference::Tag,
};

use crate::{
    config::ServiceName,
    deploy::{Failure, Left, Role, ServiceEnd},
};

/// A refusal in the words of an answer.
pub fn refusal(error: &dyn Explain) -> Status {
    Status::new(Outcome::Refused, error.kind(), &words(&Failure::of(error), &[]))
}

/// The refusal of something new while `what` has to be done first and fails.
pub(super) fn in_the_way(what: &str, failure: &Failure) -> Status {
    let cause = Failure { reason: format!("{what}: {}", failure.reason), ..failure.clone() };
    Status::new(Outcome::Refused, &failure.kind, &words(&cause, &[]))
}

pub(super) fn words(cause: &Failure, broken: &[Failure]) -> String {
    let mut words = sentence(cause);
    for failure in broken {
        words.push_str("; going back failed, too: ");
        words.push_str(&sentence(failure));
    }
    if let Some(hint) = &cause.hint {
        words.push_str("; hint: ");
        words.push_str(hint);
    }
    words
}

/// A rollback to what ran before tagship came, or before its version was forgotten.
pub(super) fn unproven(cause: &Failure) -> Failure {
    Failure { reason: format!("{}; what runs again was never proven here", cause.reason), ..cause.clone() }
}

/// A success: what runs, and which services are not known to be well.
pub(super) fn success(asked: &Tag, services: &[ServiceEnd]) -> String {
    let named = |which: &dyn Fn(&&ServiceEnd) -> bool| -> Vec<&ServiceName> {
        let kept = services.iter().filter(|end| end.role == Role::Service).filter(which);
        kept.map(|end| &end.name).collect()
    };
    let resting = named(&|end| end.state == Left::Placed);
    let runs = resting.is_empty() || !named(&|end| end.state != Left::Placed).is_empty();
    let unchecked = named(&|end| end.unchecked);
    let mut words = format!("{asked} {}", if runs { "runs" } else { "is in place" });
    if resting.is_empty() && unchecked.is_empty() {
        words.push_str(", healthy");
    }
    if !resting.is_empty() {
        words.push_str("; ");
        words.push_str(&of_all(&resting, "is stopped and was not started", "are stopped and were not started"));
    }
    words + &without_check(&unchecked)
}

/// A deploy that was not needed.
pub(super) fn unchanged(tag: &Tag, unchecked: &[&ServiceName]) -> String {
    let well = if unchecked.is_empty() { ", healthy" } else { "" };
    format!("{tag} runs already{well}{}", without_check(unchecked))
}

fn without_check(services: &[&ServiceName]) -> String {
    match services {
        [] => String::new(),
        services => format!("; {}", of_all(services, "has no healthcheck", "have no healthcheck")),
    }
}

/// The services in a row, with what is true of one or of several.
fn of_all(services: &[&ServiceName], one: &str, several: &str) -> String {
    let names: Vec<&str> = services.iter().map(|name| name.as_str()).collect();
    match names.as_slice() {
        [name] => format!("{name} {one}"),
        [rest @ .., last] => format!("{} and {last} {several}", rest.join(", ")),
        [] => String::new(),
    }
}

/// What happened, with its service in front where the words do not begin with it.
fn sentence(failure: &Failure) -> String {
    match &failure.service {
        Some(service) if !failure.reason.contains(service.as_str()) => format!("{service}: {}", failure.reason),
        _ => failure.reason.clone(),
    }
}

/// A service as an answer tells of it.
pub(super) fn service(end: &ServiceEnd) -> Service {
    let state = match end.state {
        Left::Untouched => "untouched",
        Left::Deployed => "deployed",
        Left::Placed => "placed",
        Left::Restored => "restored",
        Left::Stopped => "stopped",
        Left::Broken => "broken",
    };
    let detail = end.image.as_ref().map(|image| format!("image {}", image.short())).unwrap_or_default();
    Service { name: Line::lossy(end.name.as_str()), state: Word::lossy(state), detail: Line::lossy(&detail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_says_no_more_than_is_known() {
        let end = |name: &str, state, unchecked| ServiceEnd {
            name: name.parse().unwrap(),
            role: if name == "migrate" { Role::OneShot } else { Role::Service },
            state,
            unchecked,
            image: None,
        };
        let migrate = end("migrate", Left::Placed, false);
        let web = end("web", Left::Deployed, false);
        let bare = end("bare", Left::Deployed, true);
        let beat = end("beat", Left::Placed, false);
        let flower = end("flower", Left::Placed, false);
        for (services, words) in [
            (vec![&migrate, &web], "v0.1.0 runs, healthy"),
            (vec![&web, &beat], "v0.1.0 runs; beat is stopped and was not started"),
            (vec![&web, &bare], "v0.1.0 runs; bare has no healthcheck"),
            (
                vec![&web, &bare, &beat, &flower],
                "v0.1.0 runs; beat and flower are stopped and were not started; bare has no healthcheck",
            ),
            (vec![&migrate, &beat], "v0.1.0 is in place; beat is stopped and was not started"),
        ] {
            let services: Vec<_> = services.into_iter().cloned().collect();
            assert_eq!(success(&"v0.1.0".parse().unwrap(), &services), words);
        }
    }
}
