//! The companion's side of the hand-off directory: claims every request, keeps it in the ledger, chooses the next one,
//! and answers.
//!
//! Each request that was claimed is answered once, whatever happens in between: it is in the ledger before its file is
//! deleted, its answer is in the ledger before it is written, and it is closed only after that, unless its directory is
//! one that is configured no more and stays away. What a deploy does, and whether a request is trusted, is not known here.

mod claimed;
mod judge;
mod ledger;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use tagship_core::{
    explain::{self, Explain},
    handoff::{
        dir::{Claim, Dir, DirError, Owners},
        fields::BootId,
        names::{Name, RequestId},
        status::Status,
    },
    reference::Tag,
};
use tokio::sync::oneshot;

use crate::{answer::Progress, state_dir::StateError};
use claimed::{Shared, refused};
use judge::Present;

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

impl Inbox {
    /// Opens the inbox: takes up what an earlier run left, then claims all that waits.
    ///
    /// The caller holds the app's lock: no other companion works in this directory. What goes wrong with one request is
    /// reported and tried again by [`Inbox::work`]; it keeps nobody else waiting.
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
            warn(inbox.shared.dir.discard(&claim.name).map_err(InboxError::from));
        }
        // Those first whose answers are older than all that follow from the others.
        let (decided, open): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|entry| matches!((&entry.form, &entry.stage), (EntryForm::Plain { .. }, Stage::Decided(_))));
        let stands = !decided.is_empty();
        for entry in decided.into_iter().chain(open) {
            warn(inbox.shared.resume(entry));
        }
        warn(inbox.admit(new, stands).await);
        warn(inbox.take().await);
        Ok(inbox)
    }

    /// Claims all that waits, answers what can be answered at once, and remembers what is to be deployed.
    ///
    /// Does all that can be done, and returns the first error.
    pub async fn take(&self) -> Result<(), InboxError> {
        let mut first = self.shared.answer_again();
        let mut claims = Vec::new();
        for name in self.shared.dir.names()? {
            if Name::of(name.as_encoded_bytes()).is_request() {
                match self.shared.dir.claim(&name) {
                    Ok(claim) => claims.extend(claim),
                    Err(error) => first = first.and(Err(error.into())),
                }
            }
        }
        first.and(self.admit(claims, false).await)
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
        let mut watch = self.shared.watch();
        let mut heart = tokio::time::interval(HEARTBEAT);
        warn(self.take().await);
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                _ = heart.tick() => self.shared.beat(),
                () = watch.changed(is_request) => {
                    warn(self.take().await);
                    tokio::select! {
                        _ = &mut stopped => break,
                        () = tokio::time::sleep(BREATH) => {}
                    }
                }
            }
        }
        self.shared.state().watch = Some(watch);
    }

    /// Tries for a minute to write answers that could not be written, or until a request waits. Whether one does.
    async fn answers_are_due(&self) -> bool {
        for _ in 0..12 {
            if self.is_waiting() || self.shared.answer_again().is_ok() {
                break;
            }
            self.beside(tokio::time::sleep(HEARTBEAT)).await;
        }
        self.is_waiting()
    }

    /// Whether a request waits for its deploy.
    pub fn is_waiting(&self) -> bool {
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

    /// Notes that a rollback request, whose signature counts, is made use of: whatever becomes of it, never again.
    pub fn spend(&self, arrival: &Arrival) -> Result<(), StateError> {
        match arrival.asked() {
            Asked::Full(received) => self.shared.ledger.spend(arrival.id(), received.request.not_after),
            Asked::Plain { .. } => Ok(()),
        }
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
    ///
    /// `stands`: the plain answer that is there is a request's, and newer than these files may be. The plain form has one
    /// answer, and what became of a request must not give way to a file that was none.
    async fn admit(&self, claims: Vec<Claim>, stands: bool) -> Result<(), InboxError> {
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
            first = first.and(shared.refuse(claim, invalid));
        }
        for claim in plain {
            first = first.and(shared.accept_plain(claim, stands).await);
        }
        first
    }
}

fn warn(result: Result<(), InboxError>) {
    if let Err(error) = result {
        tracing::warn!(kind = error.kind(), "{}", explain::chain(&error));
    }
}

fn is_request(name: &[u8]) -> bool {
    Name::of(name).is_request()
}
