//! The words of the state machine: what it knows of a deploy, what happens to it, and what it wants done.
//!
//! What follows from what is the machine's.

use std::collections::BTreeSet;

use crate::deploy::{
    outcome::{Failure, Left, Verdict},
    record::{Phase, Role, Was},
};

/// The services of a deploy, as far as decisions need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// What each was and is, by index: one-shot units first.
    pub(crate) slots: Vec<Slot>,
    /// The services' indices, group by group, in order.
    pub(crate) groups: Vec<Vec<usize>>,
    /// There is an image to pull first.
    pub(crate) pull: bool,
}

/// One service or one-shot unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) role: Role,
    pub(crate) was: Was,
    /// The image it had is not put back: its key is revoked.
    pub(crate) revoked: bool,
}

/// Towards what is wanted, or back to what was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Forward,
    Back,
}

/// What `run` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Write the phase to disk; if that fails, leave out the rest of the list and say [`Event::Unwritable`].
    Save(Phase),
    /// Give up every task that is under way.
    Abandon,
    /// Begin a task, whose end is told by [`Event::Done`] or [`Event::Failed`].
    Start(Task),
}

/// What takes time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// Fetch the verified image.
    Pull,
    /// Make the local names of these stand for the new image, or for the old one again.
    Place(Way, Vec<usize>),
    /// Run a one-shot unit to its end.
    RunOnce(usize),
    /// Restart a service.
    Restart(Way, usize),
    /// Wait until a service is healthy on the right image.
    Probe(Way, usize),
    /// Watch these for the settle time.
    Settle(Way, Vec<usize>),
    /// Stop a service that has nothing to go back to.
    Stop(usize),
    /// Write [`Phase::Proven`].
    Record,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A task has ended well.
    Done(Task),
    /// A task has failed.
    Failed(Task, Failure),
    /// The journal could not be written.
    Unwritable(Failure),
    /// The time for going forward is over; told again when the time for going back is over, too.
    BudgetSpent(Failure),
    /// The program is to end: what was begun is put back, if it is not on its way already.
    Stopped,
}

/// Where the deploy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Pulling,
    Preparing { one_shot: usize },
    Tagging { group: usize },
    Restarting { group: usize },
    Settling,
    Recording,
    RollingBack { cause: Failure, stage: BackStage, broken: Vec<Failure> },
    Done(End),
}

/// Where the way back is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackStage {
    Tagging,
    Restarting,
    Settling,
}

/// What it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) verdict: Verdict,
    pub(crate) cause: Option<Failure>,
    pub(crate) broken: Vec<Failure>,
}

impl Shape {
    /// The one-shot units, by index.
    pub(super) fn one_shots(&self) -> impl Iterator<Item = usize> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.role == Role::OneShot).map(|(index, _)| index)
    }

    /// Whose names may have been moved by a deploy that was stopped in this phase.
    pub(crate) fn moved_by(&self, phase: &Phase) -> BTreeSet<usize> {
        let groups = match phase {
            Phase::Pulling | Phase::Proven => return BTreeSet::new(),
            Phase::Preparing => 0,
            Phase::Replacing(group) => group.saturating_add(1),
            Phase::RollingBack { .. } => return (0..self.slots.len()).collect(),
        };
        self.one_shots().chain(self.groups.iter().take(groups).flatten().copied()).collect()
    }
}

impl Slot {
    /// What it is left as where its name stood for the new image already and it was not restarted yet: what is revoked
    /// gets its name back no more. One that was stopped has nothing to start; one that runs on cannot start again.
    pub(super) fn left_unnamed(self) -> Option<Left> {
        match (self.role, self.was) {
            (Role::Service, Was::Stopped) if self.revoked => Some(Left::Stopped),
            (Role::Service, _) if self.revoked => Some(Left::Broken),
            _ => None,
        }
    }

    /// It is restarted with the new image. What was stopped on purpose is not.
    pub(super) fn starts(self) -> bool {
        self.role == Role::Service && self.was != Was::Stopped
    }
}
