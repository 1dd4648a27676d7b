//! The first half of a recovery, which needs no service manager, no registry and no time: after a crash the local names
//! stand for what they stood for before the deploy, so that whatever starts the services starts what was proven.

use tagship_core::failpoint;

use super::{
    outcome::Failure,
    plan,
    ports::{Leave, Store},
    record::{InFlight, Recorded},
    values::LocalName,
};

/// What became of one local name.
#[derive(Debug)]
pub struct NameBack {
    /// Which.
    pub name: LocalName,
    /// What it stands for now, or why it could not be moved.
    pub outcome: Result<StandsFor, Failure>,
}

/// What a local name stands for after the way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandsFor {
    /// The image that it stood for before, in short.
    Image(String),
    /// Nothing, as before.
    Nothing,
    /// Nothing, since the key of what it stood for before is revoked.
    NothingRevoked,
}

/// Puts back the names that a deploy may have moved. Tells each that had to be, and each that could not. The rest of the
/// recovery is left for [`recover`](super::recover), which finds the entry as it was.
pub async fn names_back<S: Store>(store: &S, entry: &InFlight, mut tell: impl FnMut(NameBack)) {
    for index in plan::shape(entry, false).moved_by(&entry.phase) {
        let Some(recorded) = entry.services.get(index) else { continue };
        match back(store, recorded).await {
            Ok(false) => {}
            Ok(true) => {
                let stands = match recorded.restorable() {
                    Some(before) => StandsFor::Image(before.image().short().to_owned()),
                    None if recorded.revoked => StandsFor::NothingRevoked,
                    None => StandsFor::Nothing,
                };
                tell(NameBack { name: recorded.local.clone(), outcome: Ok(stands) });
            }
            Err(failure) => tell(NameBack { name: recorded.local.clone(), outcome: Err(failure) }),
        }
    }
}

/// Whether a deploy may have moved this name by now.
pub fn has_moved(entry: &InFlight, name: &LocalName) -> bool {
    let moved = plan::shape(entry, false).moved_by(&entry.phase);
    moved.into_iter().filter_map(|index| entry.services.get(index)).any(|recorded| recorded.local == *name)
}

/// Lets a name stand for what it stood for before the deploy; whether it had to be moved.
///
/// A name that still stands for a revoked image was not moved yet, and is left: what runs it may go on.
pub(super) async fn back<S: Store>(store: &S, recorded: &Recorded) -> Result<bool, Failure> {
    let failed = |error: S::Error| Failure::of(&error).at(&recorded.name);
    let now = store.resolve(&recorded.local).await.map_err(failed)?;
    match recorded.restorable() {
        Some(before) if now.as_ref() != Some(before.image()) => {
            failpoint::pass("moves", &recorded.local);
            store.place(Leave::Restorable(&before), &recorded.local).await.map_err(failed)?;
        }
        None if now.is_some() && now != recorded.image => {
            failpoint::pass("moves", &recorded.local);
            store.forget(&recorded.local).await.map_err(failed)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}
