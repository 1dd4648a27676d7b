//! What becomes of claimed files: into the ledger, superseded, refused, decided, answered, closed.
//!
//! When to look for files, and when to deploy, is the inbox's.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use tagship_core::{
    explain::{Explain, chain},
    handoff::{
        dir::{Claim, Dir, DirError, Stamp},
        names::{Name, RequestId},
        request,
        status::{Outcome, Status},
        watch::Watch,
    },
};

use super::{
    Arrival, Asked, Entry, EntryForm, InboxError, Ledger, Rules, Stage,
    judge::{self, Invalid, TRIGGER_LIMIT},
    warn, writer,
};
use crate::{
    answer::{self, Progress},
    state_dir::StateError,
};

/// How long an answer is kept for a directory that is configured no more and takes none: whoever asked has long given up.
const MISSED: SignedDuration = SignedDuration::from_hours(24);

/// What such a directory means for an answer.
enum Elsewhere {
    /// It is tried again by the next run.
    JustNow,
    /// Nobody will read it.
    ForGood,
}

pub(super) struct Shared {
    pub(super) dir: Dir,
    pub(super) rules: Rules,
    pub(super) ledger: Box<dyn Ledger>,
    pub(super) state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// The one that is deployed next. There is never more than one: an older one is answered at once.
    pub(super) waiting: Option<Arrival>,
    /// Those whose deploy had begun when the companion was stopped.
    pub(super) interrupted: Vec<Arrival>,
    /// Answers that could not be written yet.
    pub(super) unanswered: Vec<Entry>,
    /// Files that are no requests, whose answers could not be written yet.
    pub(super) unrefused: Vec<(Claim, Invalid)>,
    /// The logs of requests without an answer.
    pub(super) logs: HashMap<RequestId, Progress>,
    /// The last plain request: another link to the same file is the same request.
    pub(super) last_plain: Option<Stamp>,
    /// The watch over the directory while nobody waits with it: to end one and begin another takes the kernel
    /// milliseconds.
    pub(super) watch: Option<Watch>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves at worst a request waiting, which the ledger has.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watch over the directory. Whoever has it puts it back.
    pub(super) fn watch(&self) -> Watch {
        let kept = self.state().watch.take();
        kept.unwrap_or_else(|| Watch::new(&self.dir))
    }

    pub(super) fn beat(&self) {
        for progress in self.state().logs.values() {
            progress.beat();
        }
        warn(self.answer_again());
    }

    /// What a claimed file asks for. `None` if somebody removed it.
    pub(super) fn read_full(&self, claim: &Claim, named: Option<RequestId>) -> Option<Result<Arrival, Invalid>> {
        let opened = self.dir.open_file(&claim.name, &self.rules.owners);
        let bytes = opened.and_then(|opened| opened.map(|opened| opened.read(request::LIMIT)).transpose());
        let received = match bytes {
            Ok(bytes) => bytes.map(|bytes| judge::full(named, &bytes).map(|received| (received, bytes)))?,
            Err(error) => return Some(Err(judge::unreadable(named, &error))),
        };
        Some(received.map(|(received, bytes)| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let form = EntryForm::Full { text };
            let entry = self.entry(received.request.id, form);
            Arrival { entry, asked: Asked::Full(Box::new(received)) }
        }))
    }

    /// What has just been claimed here.
    fn entry(&self, id: RequestId, form: EntryForm) -> Entry {
        let handoff = Some(self.dir.path().to_owned());
        Entry { id, claimed: Timestamp::now(), form, stage: Stage::Waiting, handoff }
    }

    /// Writes in the directory that an entry came from: another one may have been configured since. One that cannot be
    /// opened is tried again like a file that cannot be written.
    fn write_for<T>(&self, entry: &Entry, write: impl FnOnce(&Dir) -> Result<T, DirError>) -> Result<T, DirError> {
        match &entry.handoff {
            Some(other) if other != self.dir.path() => write(&Dir::open(other)?),
            _ => write(&self.dir),
        }
    }

    /// Whether the answer to a full request is in the directory that it came from.
    fn has_answer(&self, entry: &Entry) -> bool {
        let is_full = matches!(entry.form, EntryForm::Full { .. });
        is_full && self.write_for(entry, |dir| Ok(answer::is_there(dir, entry.id))).is_ok_and(|there| there)
    }

    /// What it means that an answer cannot be written in a directory that is configured no more, and may be gone. It may
    /// also be one that is mounted again, so the entry is kept for a while; nobody waits for it as for one in use.
    fn elsewhere(&self, entry: &Entry, error: &DirError) -> Option<Elsewhere> {
        entry.handoff.as_deref().filter(|other| *other != self.dir.path())?;
        let (id, why) = (entry.id, chain(error));
        if Timestamp::now().duration_since(entry.claimed) > MISSED {
            tracing::warn!(request = %id, "it is closed without an answer: {why}");
            return Some(Elsewhere::ForGood);
        }
        tracing::warn!(request = %id, "its answer is kept for a day, and tried again with each run: {why}");
        Some(Elsewhere::JustNow)
    }

    /// Takes a plain request. `stands`: the answer that is there does not give way to one to a file that is none.
    pub(super) async fn accept_plain(&self, claim: Claim, stands: bool) -> Result<(), InboxError> {
        let refuse = |claim: Claim, invalid| match stands {
            true => Ok(self.dir.discard(&claim.name)?),
            false => self.refuse(claim, invalid),
        };
        let opened = match self.dir.open_file(&claim.name, &self.rules.owners) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(()),
            Err(error) => return refuse(claim, judge::unreadable(None, &error)),
        };
        // One that an earlier run claimed has been written long ago. To wait there would let whoever plants such names,
        // and keeps the files open, hold up the start for a second each.
        if claim.was == Name::Trigger {
            writer::done(&opened).await;
        }
        let content = opened.stamp_now().and_then(|stamp| Ok((stamp, opened.read(TRIGGER_LIMIT)?)));
        let (stamp, bytes) = match content {
            Ok(content) => content,
            Err(error) => return refuse(claim, judge::unreadable(None, &error)),
        };
        if self.state().last_plain.replace(stamp) == Some(stamp) {
            return Ok(self.dir.discard(&claim.name)?);
        }
        match judge::plain(&bytes) {
            Ok(tag) => {
                let asked = Asked::Plain { tag: tag.clone(), written: stamp.modified() };
                let claimed_as = claim.name.to_string_lossy().into_owned();
                let form = EntryForm::Plain { tag, written: stamp.modified(), claim: claimed_as };
                let entry = self.entry(RequestId::generate(), form);
                self.accept(&claim, Arrival { entry, asked })
            }
            Err(invalid) => refuse(claim, invalid),
        }
    }

    /// Takes a good request into the ledger, deletes its file, and lets it wait, unless a newer one does.
    pub(super) fn accept(&self, claim: &Claim, arrival: Arrival) -> Result<(), InboxError> {
        let mut state = self.state();
        let state = &mut *state;
        match self.ledger.knows(arrival.id()) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(request = %arrival.id(), "a request that was seen before was removed");
                return Ok(self.dir.discard(&claim.name)?);
            }
            Err(error) => return self.reject(state, claim, &arrival, error),
        }
        if let Some(waiting) = &state.waiting
            && judge::order((waiting.tag(), waiting.id()), (arrival.tag(), arrival.id())).is_gt()
        {
            let status = judge::superseded(waiting);
            let decided = self.decide(state, &arrival, status);
            return decided.and(self.dir.discard(&claim.name).map_err(InboxError::from));
        }
        if let Err(error) = self.ledger.put(&arrival.entry) {
            return self.reject(state, claim, &arrival, error);
        }
        let discarded = self.dir.discard(&claim.name).map_err(InboxError::from);
        discarded.and(self.wait(state, arrival))
    }

    /// Lets a request wait that is in the ledger, and answers the one that waited before.
    fn wait(&self, state: &mut State, arrival: Arrival) -> Result<(), InboxError> {
        let shown = self.show(state, &arrival);
        let status = judge::superseded(&arrival);
        match state.waiting.replace(arrival) {
            Some(older) => shown.and(self.decide(state, &older, status)),
            None => shown,
        }
    }

    /// Shows the claim of a full request: its log.
    fn show(&self, state: &mut State, arrival: &Arrival) -> Result<(), InboxError> {
        if matches!(arrival.asked, Asked::Full(_)) {
            let log = self.write_for(&arrival.entry, |dir| Progress::create(dir, arrival.id()))?;
            state.logs.insert(arrival.id(), log);
        }
        Ok(())
    }

    /// Answers a good request that the ledger cannot keep.
    fn reject(&self, state: &mut State, claim: &Claim, arrival: &Arrival, error: StateError) -> Result<(), InboxError> {
        let without = state.unanswered.len();
        // The answer is what matters, and the ledger's error is what is told.
        let _ = self.settle(state, decided(arrival, refused(&error)));
        // Until the answer is there the claim is all that knows of the request: the next run finds it.
        if state.unanswered.len() == without {
            self.dir.discard(&claim.name)?;
        }
        Err(error.into())
    }

    /// Answers a claimed file that is no request, if it says whom, and deletes it. If that fails, it is tried again with
    /// the answers that could not be written, and the next run finds the file.
    pub(super) fn refuse(&self, claim: Claim, invalid: Invalid) -> Result<(), InboxError> {
        tracing::warn!(kind = %invalid.status.kind, "an invalid request is removed: {}", invalid.status.reason);
        self.refuse_now(&mut self.state(), claim, invalid)
    }

    fn refuse_now(&self, state: &mut State, claim: Claim, invalid: Invalid) -> Result<(), InboxError> {
        let refused = self.answer_invalid(&claim, &invalid).and_then(|()| Ok(self.dir.discard(&claim.name)?));
        if refused.is_err() {
            state.unrefused.push((claim, invalid));
        }
        refused
    }

    fn answer_invalid(&self, claim: &Claim, Invalid { id, status }: &Invalid) -> Result<(), InboxError> {
        let full = matches!(claim.was, Name::Request(_) | Name::ClaimedRequest(_));
        match *id {
            // Its answer is there, or will be. It is not touched for what anybody else writes.
            Some(id) if self.ledger.knows(id)? => {}
            Some(id) => {
                // A crash may have come between the answer to another file that names it, and the note of that.
                if !answer::is_there(&self.dir, id) {
                    answer::write(&self.dir, status)?;
                }
                self.ledger.close(id)?;
            }
            None if full => {}
            None => answer::write(&self.dir, status)?,
        }
        Ok(())
    }

    /// Decides a request: into the ledger, then the answer, then closed.
    pub(super) fn decide(&self, state: &mut State, arrival: &Arrival, status: Status) -> Result<(), InboxError> {
        let entry = decided(arrival, status);
        let kept = self.ledger.put(&entry).map_err(InboxError::from);
        // Told even if it could not be kept: an answer that is known is worth more than one that is safe.
        kept.and(self.settle(state, entry))
    }

    /// Writes the answer of a decided entry, and closes it.
    fn settle(&self, state: &mut State, entry: Entry) -> Result<(), InboxError> {
        let Stage::Decided(status) = &entry.stage else { return Ok(()) };
        if let Err(error) = self.write_for(&entry, |dir| answer::write(dir, status)) {
            match self.elsewhere(&entry, &error) {
                None => {
                    state.unanswered.push(entry);
                    return Err(error.into());
                }
                Some(Elsewhere::JustNow) => return Ok(()),
                Some(Elsewhere::ForGood) => {}
            }
        }
        state.logs.remove(&entry.id);
        Ok(self.ledger.close(entry.id)?)
    }

    /// Writes answers that could not be written before.
    pub(super) fn answer_again(&self) -> Result<(), InboxError> {
        let mut state = self.state();
        let mut first = Ok(());
        for (claim, invalid) in std::mem::take(&mut state.unrefused) {
            first = first.and(self.refuse_now(&mut state, claim, invalid));
        }
        // Last: the plain form has one answer, and what became of a request must not give way to a file that was none.
        for entry in std::mem::take(&mut state.unanswered) {
            first = first.and(self.settle(&mut state, entry));
        }
        first
    }

    /// Takes up an entry of an earlier run.
    pub(super) fn resume(&self, entry: Entry) -> Result<(), InboxError> {
        let mut state = self.state();
        let asked = match &entry.form {
            EntryForm::Plain { tag, written, .. } => Asked::Plain { tag: tag.clone(), written: *written },
            EntryForm::Full { text } => match judge::full(Some(entry.id), text.as_bytes()) {
                Ok(received) => Asked::Full(Box::new(received)),
                // Only another version of this program could have kept it.
                Err(Invalid { status, .. }) => {
                    let entry = Entry { stage: Stage::Decided(status), ..entry };
                    return self.settle(&mut state, entry);
                }
            },
        };
        let arrival = Arrival { entry, asked };
        match arrival.entry.stage {
            // Told by a run that could not note so, for want of room, say: what becomes of its deploy now is nobody's.
            Stage::Waiting | Stage::Begun if self.has_answer(&arrival.entry) => Ok(self.ledger.close(arrival.id())?),
            Stage::Waiting => match &state.waiting {
                Some(waiting) if judge::order((waiting.tag(), waiting.id()), (arrival.tag(), arrival.id())).is_gt() => {
                    let status = judge::superseded(waiting);
                    self.decide(&mut state, &arrival, status)
                }
                _ => self.wait(&mut state, arrival),
            },
            Stage::Begun => {
                let shown = self.show(&mut state, &arrival);
                state.interrupted.push(arrival);
                shown
            }
            Stage::Decided(_) => self.settle(&mut state, arrival.entry),
        }
    }
}

/// A request's entry once it is decided.
fn decided(arrival: &Arrival, status: Status) -> Entry {
    let request = matches!(arrival.asked, Asked::Full(_)).then_some(arrival.id());
    let status = Status { tag: Some(arrival.tag().clone()), request, ..status };
    Entry { stage: Stage::Decided(Box::new(status)), ..arrival.entry.clone() }
}

pub(super) fn refused(error: &StateError) -> Status {
    Status::new(Outcome::Refused, error.kind(), &judge::told(error))
}
