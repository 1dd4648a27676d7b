//! The companion's side of the hand-off directory: claims every request, keeps it in the ledger, chooses the next one,
//! and answers.
//!
//! Each request that was claimed is answered once, whatever happens in between: it is in the ledger before its file is
//! deleted, its answer is in the ledger before it is written, and it is closed only after that. What a deploy does, and
//! whether a request is trusted, is not known here.

mod judge;
mod ledger;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tagship_core::{
    explain::{self, Explain},
    handoff::{
        dir::{Claim, Dir, DirError, Owners, Stamp},
        fields::BootId,
        names::{Name, RequestId},
        request,
        status::{Outcome, Status},
        watch::Watch,
    },
    reference::Tag,
};
use tokio::sync::oneshot;

use crate::{
    answer::{self, Progress},
    state_dir::StateError,
};
use judge::{Invalid, Present, TRIGGER_LIMIT};

pub use judge::Asked;
pub use ledger::{Entry, EntryForm, Ledger, Stage};

/// How often a claimed request's log shows that the companion is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The shortest time between two looks at the directory. A requester waits no longer for its claim, and whoever plants
/// files as fast as possible keeps no processor busy.
const BREATH: Duration = Duration::from_millis(100);

/// By what requests are held.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whose files are read.
    pub owners: Owners,
    /// How long a deploy may take; a plain request that is older is not begun.
    pub budget: Duration,
    /// This boot.
    pub boot: BootId,
    /// When it began.
    pub booted: Timestamp,
}

impl Rules {
    /// Rules for this boot of this machine.
    pub fn here(owners: Owners, budget: Duration) -> io::Result<Rules> {
        let uptime = Duration::from_secs(u64::try_from(rustix::system::sysinfo().uptime).unwrap_or(0));
        let booted = Timestamp::now().saturating_sub(uptime).unwrap_or(Timestamp::MIN);
        Ok(Rules { owners, budget, boot: BootId::current()?, booted })
    }
}

/// A request that was claimed, and waits for its deploy or its answer.
#[derive(Debug, Clone)]
pub struct Arrival {
    entry: Entry,
    asked: Asked,
}

impl Arrival {
    /// Names the request; a plain one has its name only here and in the ledger.
    pub fn id(&self) -> RequestId {
        self.entry.id
    }

    /// What is asked for.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The tag asked for.
    pub fn tag(&self) -> &Tag {
        self.asked.tag()
    }

    /// When it was claimed.
    pub fn claimed(&self) -> Timestamp {
        self.entry.claimed
    }
}

/// Why the inbox does not work. What requesters write is no such error.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// The hand-off directory.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The ledger.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Explain for InboxError {
    fn kind(&self) -> &'static str {
        match self {
            InboxError::Dir(error) => error.kind(),
            InboxError::State(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            InboxError::Dir(error) => error.hint(),
            InboxError::State(error) => error.hint(),
        }
    }
}

/// The inbox of one app. Clones are the same inbox.
#[derive(Clone)]
pub struct Inbox {
    shared: Arc<Shared>,
}

struct Shared {
    dir: Dir,
    rules: Rules,
    ledger: Box<dyn Ledger>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The one that is deployed next. There is never more than one: an older one is answered at once.
    waiting: Option<Arrival>,
    /// Those whose deploy had begun when the companion was stopped.
    interrupted: Vec<Arrival>,
    /// Answers that could not be written yet.
    unanswered: Vec<Entry>,
    /// The logs of requests without an answer.
    logs: HashMap<RequestId, Progress>,
    /// The last plain request: another link to the same file is the same request.
    last_plain: Option<Stamp>,
}

impl Inbox {
    /// Opens the inbox: takes up what an earlier run left, then claims all that waits.
    ///
    /// The caller holds the app's lock: no other companion works in this directory.
    pub async fn open(dir: Dir, rules: Rules, ledger: impl Ledger + 'static) -> Result<Inbox, InboxError> {
        let entries = ledger.open_entries()?;
        let shared = Shared { dir, rules, ledger: Box::new(ledger), state: Mutex::default() };
        let inbox = Inbox { shared: Arc::new(shared) };
        let mut left = Vec::new();
        for name in inbox.shared.dir.names()? {
            let was = Name::of(name.as_encoded_bytes());
            if matches!(was, Name::ClaimedRequest(_) | Name::ClaimedTrigger) {
                left.push(Claim { name, was });
            }
        }
        let told = |claim: &Claim| {
            entries.iter().any(|entry| {
                matches!(&entry.form, EntryForm::Plain { claim: name, .. } if claim.name.as_os_str() == name.as_str())
            })
        };
        let (told, new): (Vec<_>, Vec<_>) = left.into_iter().partition(told);
        for claim in told {
            inbox.shared.dir.discard(&claim.name)?;
        }
        for entry in entries {
            inbox.shared.resume(entry)?;
        }
        inbox.admit(new).await?;
        inbox.take().await?;
        Ok(inbox)
    }

    /// Claims all that waits, answers what can be answered at once, and remembers what is to be deployed.
    ///
    /// Does all that can be done, and returns the first error.
    pub async fn take(&self) -> Result<(), InboxError> {
        let mut first = self.shared.answer_again();
        let mut claims = Vec::new();
        for name in self.shared.dir.names()? {
            if matches!(Name::of(name.as_encoded_bytes()), Name::Request(_) | Name::Trigger) {
                match self.shared.dir.claim(&name) {
                    Ok(claim) => claims.extend(claim),
                    Err(error) => first = first.and(Err(error.into())),
                }
            }
        }
        first.and(self.admit(claims).await)
    }

    /// Deploys one request after the other until none waits, and answers each with what `deploy` returns.
    ///
    /// Does all that can be done, and returns the first error. When it returns, nothing that was claimed is without its
    /// answer, unless answers cannot be written at all.
    pub async fn work<F: Future<Output = Status>>(
        &self,
        mut deploy: impl FnMut(Arrival, Progress) -> F,
    ) -> Result<(), InboxError> {
        let mut first = Ok(());
        loop {
            first = first.and(self.take().await);
            match self.next(Timestamp::now()) {
                Ok(Some(arrival)) => {
                    let progress = self.progress(&arrival);
                    let work = async { self.answer(&arrival, deploy(arrival.clone(), progress).await) };
                    first = first.and(self.beside(work).await);
                }
                Ok(None) if !self.answers_are_due().await => return first,
                Ok(None) => {}
                Err(error) => first = first.and(Err(error)),
            }
        }
    }

    /// Waits for something long, claiming what comes and keeping the logs alive all the while.
    pub async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let (stop, stopped) = oneshot::channel();
        let work = async {
            let done = work.await;
            // The other side is gone only if this whole future is.
            let _ = stop.send(());
            done
        };
        tokio::join!(work, self.keep_taking(stopped)).0
    }

    /// Stops between two looks only: a claimed file is never left half read.
    async fn keep_taking(&self, mut stopped: oneshot::Receiver<()>) {
        let mut watch = Watch::new(&self.shared.dir);
        let mut heart = tokio::time::interval(HEARTBEAT);
        self.take_or_warn().await;
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => return,
                _ = heart.tick() => self.shared.beat(),
                () = watch.changed(is_request) => {
                    self.take_or_warn().await;
                    tokio::select! {
                        _ = &mut stopped => return,
                        () = tokio::time::sleep(BREATH) => {}
                    }
                }
            }
        }
    }

    async fn take_or_warn(&self) {
        if let Err(error) = self.take().await {
            tracing::warn!(kind = error.kind(), "{}", explain::chain(&error));
        }
    }

    /// Tries for a minute to write answers that could not be written. Whether to look for requests again.
    async fn answers_are_due(&self) -> bool {
        for _ in 0..12 {
            if self.shared.answer_again().is_ok() {
                break;
            }
            self.beside(tokio::time::sleep(HEARTBEAT)).await;
        }
        self.shared.state().waiting.is_some()
    }

    /// The requests whose deploy had begun when the companion was stopped: each is to be answered once the deploy is
    /// recovered.
    pub fn interrupted(&self) -> Vec<Arrival> {
        std::mem::take(&mut self.shared.state().interrupted)
    }

    /// The request to deploy now, if any. One that is too late is answered instead.
    ///
    /// From here on the request counts as begun: after a crash it is among the interrupted ones.
    fn next(&self, now: Timestamp) -> Result<Option<Arrival>, InboxError> {
        let shared = &self.shared;
        let mut state = shared.state();
        let Some(mut arrival) = state.waiting.take() else { return Ok(None) };
        let Rules { boot, booted, budget, .. } = &shared.rules;
        if let Some(status) = arrival.asked.stale(&Present { now, boot, booted: *booted, budget: *budget }) {
            shared.decide(&mut state, &arrival, status)?;
            return Ok(None);
        }
        arrival.entry.stage = Stage::Begun;
        if let Err(error) = shared.ledger.put(&arrival.entry) {
            shared.decide(&mut state, &arrival, refused(&error))?;
            return Err(error.into());
        }
        Ok(Some(arrival))
    }

    /// Where to tell the requester what goes on.
    pub fn progress(&self, arrival: &Arrival) -> Progress {
        self.shared.state().logs.get(&arrival.id()).cloned().unwrap_or_else(Progress::none)
    }

    /// Answers a request. Its tag and identifier are filled in; the rest is the caller's.
    ///
    /// An answer that cannot be written is kept, and written with the next look at the directory or by the next run.
    pub fn answer(&self, arrival: &Arrival, status: Status) -> Result<(), InboxError> {
        self.shared.decide(&mut self.shared.state(), arrival, status)
    }

    /// Reads claimed files. Good requests first: a bad file that names a good one's identifier changes nothing for it.
    async fn admit(&self, claims: Vec<Claim>) -> Result<(), InboxError> {
        let shared = &self.shared;
        let mut good = Vec::new();
        let mut bad = Vec::new();
        let mut plain = Vec::new();
        for claim in claims {
            match claim.was {
                Name::Request(named) | Name::ClaimedRequest(named) => match shared.read_full(&claim, named) {
                    Some(Ok(arrival)) => good.push((claim, arrival)),
                    Some(Err(invalid)) => bad.push((claim, invalid)),
                    None => {}
                },
                _ => plain.push(claim),
            }
        }
        // The newest first: then no other one is worth more in the ledger than its answer.
        good.sort_by(|(_, a), (_, b)| judge::order((b.tag(), b.id()), (a.tag(), a.id())));
        let mut first = Ok(());
        for (claim, arrival) in good {
            first = first.and(shared.accept(&claim, arrival));
        }
        for (claim, invalid) in bad {
            first = first.and(shared.refuse(&claim, invalid));
        }
        for claim in plain {
            first = first.and(shared.accept_plain(&claim).await);
        }
        first
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves at worst a request waiting, which the ledger has.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat(&self) {
        for progress in self.state().logs.values() {
            progress.beat();
        }
        if let Err(error) = self.answer_again() {
            tracing::warn!(kind = error.kind(), "{}", explain::chain(&error));
        }
    }

    /// What a claimed file asks for. `None` if somebody removed it.
    fn read_full(&self, claim: &Claim, named: Option<RequestId>) -> Option<Result<Arrival, Invalid>> {
        let opened = self.dir.open_file(&claim.name, &self.rules.owners);
        let bytes = opened.and_then(|opened| opened.map(|opened| opened.read(request::LIMIT)).transpose());
        let received = match bytes {
            Ok(bytes) => bytes.map(|bytes| judge::full(named, &bytes).map(|received| (received, bytes)))?,
            Err(error) => return Some(Err(judge::unreadable(named, &error))),
        };
        Some(received.map(|(received, bytes)| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let form = EntryForm::Full { text };
            let entry = Entry { id: received.request.id, claimed: Timestamp::now(), form, stage: Stage::Waiting };
            Arrival { entry, asked: Asked::Full(Box::new(received)) }
        }))
    }

    async fn accept_plain(&self, claim: &Claim) -> Result<(), InboxError> {
        let opened = match self.dir.open_file(&claim.name, &self.rules.owners) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(()),
            Err(error) => return self.refuse(claim, judge::unreadable(None, &error)),
        };
        writer::done(&opened).await;
        let content = opened.stamp_now().and_then(|stamp| Ok((stamp, opened.read(TRIGGER_LIMIT)?)));
        let (stamp, bytes) = match content {
            Ok(content) => content,
            Err(error) => return self.refuse(claim, judge::unreadable(None, &error)),
        };
        if self.state().last_plain.replace(stamp) == Some(stamp) {
            return Ok(self.dir.discard(&claim.name)?);
        }
        match judge::plain(&bytes) {
            Ok(tag) => {
                let asked = Asked::Plain { tag: tag.clone(), written: stamp.modified() };
                let claimed_as = claim.name.to_string_lossy().into_owned();
                let form = EntryForm::Plain { tag, written: stamp.modified(), claim: claimed_as };
                let id = RequestId::generate();
                let entry = Entry { id, claimed: Timestamp::now(), form, stage: Stage::Waiting };
                self.accept(claim, Arrival { entry, asked })
            }
            Err(invalid) => self.refuse(claim, invalid),
        }
    }

    /// Takes a good request into the ledger, deletes its file, and lets it wait, unless a newer one does.
    fn accept(&self, claim: &Claim, arrival: Arrival) -> Result<(), InboxError> {
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
            let status = judge::superseded(waiting.tag());
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
        let status = judge::superseded(arrival.tag());
        match state.waiting.replace(arrival) {
            Some(older) => shown.and(self.decide(state, &older, status)),
            None => shown,
        }
    }

    /// Shows the claim of a full request: its log.
    fn show(&self, state: &mut State, arrival: &Arrival) -> Result<(), InboxError> {
        if matches!(arrival.asked, Asked::Full(_)) {
            state.logs.insert(arrival.id(), Progress::create(&self.dir, arrival.id())?);
        }
        Ok(())
    }

    /// Answers a good request that the ledger cannot keep.
    fn reject(&self, state: &mut State, claim: &Claim, arrival: &Arrival, error: StateError) -> Result<(), InboxError> {
        // The ledger will fail again; the answer is what matters, and the ledger's error is what is told.
        let _ = self.decide(state, arrival, refused(&error));
        self.dir.discard(&claim.name)?;
        Err(error.into())
    }

    /// Answers a claimed file that is no request, if it says whom, and deletes it.
    fn refuse(&self, claim: &Claim, invalid: Invalid) -> Result<(), InboxError> {
        let Invalid { id, status } = invalid;
        let full = matches!(claim.was, Name::Request(_) | Name::ClaimedRequest(_));
        tracing::warn!(kind = %status.kind, "an invalid request was removed: {}", status.reason);
        match id {
            // Its answer is there, or will be. It is not touched for what anybody else writes.
            Some(id) if self.ledger.knows(id)? => {}
            Some(id) => {
                answer::write(&self.dir, &status)?;
                self.ledger.close(id)?;
            }
            None if full => {}
            None => answer::write(&self.dir, &status)?,
        }
        Ok(self.dir.discard(&claim.name)?)
    }

    /// Decides a request: into the ledger, then the answer, then closed.
    fn decide(&self, state: &mut State, arrival: &Arrival, status: Status) -> Result<(), InboxError> {
        let request = matches!(arrival.asked, Asked::Full(_)).then_some(arrival.id());
        let status = Status { tag: Some(arrival.tag().clone()), request, ..status };
        let entry = Entry { stage: Stage::Decided(Box::new(status)), ..arrival.entry.clone() };
        let kept = self.ledger.put(&entry).map_err(InboxError::from);
        // Told even if it could not be kept: an answer that is known is worth more than one that is safe.
        kept.and(self.settle(state, entry))
    }

    /// Writes the answer of a decided entry, and closes it.
    fn settle(&self, state: &mut State, entry: Entry) -> Result<(), InboxError> {
        let Stage::Decided(status) = &entry.stage else { return Ok(()) };
        if let Err(error) = answer::write(&self.dir, status) {
            state.unanswered.push(entry);
            return Err(error.into());
        }
        state.logs.remove(&entry.id);
        Ok(self.ledger.close(entry.id)?)
    }

    /// Writes answers that could not be written before.
    fn answer_again(&self) -> Result<(), InboxError> {
        let mut state = self.state();
        let mut first = Ok(());
        for entry in std::mem::take(&mut state.unanswered) {
            first = first.and(self.settle(&mut state, entry));
        }
        first
    }

    /// Takes up an entry of an earlier run.
    fn resume(&self, entry: Entry) -> Result<(), InboxError> {
        let mut state = self.state();
        let asked = match &entry.form {
            EntryForm::Plain { tag, written, .. } => Asked::Plain { tag: tag.clone(), written: *written },
            EntryForm::Full { text } => match judge::full(Some(entry.id), text.as_bytes()) {
                Ok(received) => Asked::Full(Box::new(received)),
                // Only another version of this program could have kept it.
                Err(Invalid { status, .. }) => {
                    let entry = Entry { stage: Stage::Decided(Box::new(status)), ..entry };
                    return self.settle(&mut state, entry);
                }
            },
        };
        let arrival = Arrival { entry, asked };
        match arrival.entry.stage {
            Stage::Waiting => match &state.waiting {
                Some(waiting) if judge::order((waiting.tag(), waiting.id()), (arrival.tag(), arrival.id())).is_gt() => {
                    let status = judge::superseded(waiting.tag());
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

fn refused(error: &StateError) -> Status {
    Status::new(Outcome::Refused, error.kind(), &judge::told(error))
}

fn is_request(name: &[u8]) -> bool {
    matches!(Name::of(name), Name::Request(_) | Name::Trigger)
}
