//! What whoever asks is told while the state cannot be read: nothing is decided then, and nothing written over.

use jiff::Timestamp;
use tagship_core::{
    explain::Explain,
    handoff::{
        dir::Dir,
        status::{Outcome, Status},
    },
};

use super::{CommandError, Configuration, open_handoff, rules};
use crate::{
    config::{ConfigError, Settings},
    desk,
    history::History,
    inbox::{Inbox, InboxError},
    journal::Journal,
    report,
    requests::Unreadable,
    state_dir::{StateDir, StateError},
};

/// Tells whoever asks that the list of requests cannot be read.
///
/// # Errors
/// If the directory to tell it in cannot be made or opened. Where nobody can be waiting there is none, which is no error.
pub(super) async fn without_requests(
    loaded: &Result<Settings, ConfigError>,
    configuration: &Configuration<'_>,
    state: StateDir,
    error: &StateError,
) -> Result<(), CommandError> {
    let unreadable = Unreadable::new(state, error.again());
    let Some(handoff) = open_handoff(loaded, &configuration.fallback, &unreadable)? else { return Ok(()) };
    let inbox = Inbox::open(Dir::open(handoff.path())?, rules(loaded)?, unreadable).await?;
    // What could not be told is told by the next run, which finds its claim.
    match turn_away(&inbox, error).await {
        Ok(()) | Err(InboxError::State(_)) => {}
        Err(untold) => report::error(&untold),
    }
    Ok(())
}

/// Tells whoever asks, and whose deploy was interrupted, that what was proven here, or what is under way, cannot be read.
pub(super) async fn without_history(inbox: &Inbox, state: StateDir, error: &StateError) {
    let told = postpone_interrupted(inbox, state, error);
    if let Err(untold) = told.and(turn_away(inbox, error).await) {
        report::error(&untold);
    }
}

/// Tells all who wait, and who come meanwhile, that the state cannot be read.
async fn turn_away(inbox: &Inbox, error: &StateError) -> Result<(), InboxError> {
    inbox.work(|_, _| async { Status { finished: Some(Timestamp::now()), ..desk::refusal(error) } }).await
}

/// Answers what an earlier run left in the middle while the state that ending it takes is damaged: with its verdict,
/// where what can be read has one, else that it will be ended later, unless it has clearly not begun.
fn postpone_interrupted(inbox: &Inbox, state: StateDir, error: &StateError) -> Result<(), InboxError> {
    let last = History::open(&state).ok().and_then(|history| history.last().map(|last| last.status.clone()));
    let mut journal = Journal::open(state).ok();
    let mut first = Ok(());
    for arrival in inbox.interrupted() {
        let id = Some(arrival.id());
        // A deploy that was postponed already may be this one's: the run that did so may have been killed before it said so.
        let has_begun = journal
            .as_ref()
            .is_none_or(|journal| journal.current().is_some_and(|current| current.request == id || current.postponed));
        let current = journal.as_ref().and_then(Journal::current).filter(|current| current.request == id);
        let verdict = current.and_then(|current| current.verdict.clone());
        let verdict = verdict.or_else(|| last.clone().filter(|last| last.request == id));
        let status = verdict.unwrap_or_else(|| {
            let finished = Some(Timestamp::now());
            if !has_begun {
                return Status { finished, ..desk::nothing_touched() };
            }
            // Before it is told, or whoever ends it would give the request a second verdict.
            if let Some(Err(error)) = journal.as_mut().map(|journal| journal.postpone(id)) {
                report::error(&error);
            }
            Status { finished, ..ended_later(error) }
        });
        first = first.and(inbox.answer(&arrival, status));
    }
    first
}

/// What is said of an interrupted deploy that cannot be ended now.
pub(super) fn ended_later(error: &dyn Explain) -> Status {
    let reason = format!("the deploy was interrupted, and will be ended later: {}", desk::refusal(error).reason);
    Status::new(Outcome::Interrupted, error.kind(), &reason)
}
