//! How a deploy's end reads in an answer. What it was is decided elsewhere.

use tagship_core::{
    explain::Explain,
    handoff::{
        fields::{Line, Word},
        status::{Outcome, Service, Status},
    },
};

use crate::deploy::{Failure, Left, ServiceEnd};

/// A refusal in the words of an answer.
pub fn refusal(error: &dyn Explain) -> Status {
    Status::new(Outcome::Refused, error.kind(), &words(&Failure::of(error), &[]))
}

/// The refusal of something new while what was interrupted cannot be ended.
pub fn in_the_way(failure: &Failure) -> Status {
    let cause =
        Failure { reason: format!("an interrupted deploy must be ended first: {}", failure.reason), ..failure.clone() };
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
