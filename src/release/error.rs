//! What can go wrong between steps that need each other's results.

use tagship_core::explain::Explain;
use tagship_core::reference::{Digest, ImageRef};
use tagship_core::registry::RegistryError;
use tagship_core::signature::CheckError;

/// Steps that need each other's results, and what could go wrong between them.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReleaseError {
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
