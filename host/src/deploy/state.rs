//! The deploy as a state machine: event in, effects out.
//!
//! Pure: no clock, socket, process or path is known here, and services are indices. Every pair of state and event has
//! an answer; an event that no pending task can have caused changes nothing. `run` performs the effects, in the order
//! in which they are listed, and feeds back what came of them.
//!
//! ```text
//!            ┌────────────── Restarting next group ─────────────┐
//! Pulling → Preparing → Tagging(group) → Restarting(group) ─────┴→ Settling → Recording → Done
//!    │          │              │                 │                    │           │
//!    │          └──────────────┴──── failure ────┴────────────────────┴───────────┤
//!    └→ Done (nothing was touched)                                                ↓
//!                                                                            RollingBack → Done
//! ```

mod terms;

use std::collections::BTreeSet;

use super::{
    outcome::{Failure, Left, Verdict},
    record::{Phase, Role, Was},
};
use terms::{BackStage, State};
pub(crate) use terms::{Effect, End, Event, Shape, Slot, Task, Way};

/// A deploy under way.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    shape: Shape,
    state: State,
    /// Begun and not ended.
    pending: BTreeSet<Task>,
    /// Whose names have moved, or may have.
    placed: BTreeSet<usize>,
    /// Who was restarted, or may have been.
    restarted: BTreeSet<usize>,
    /// What each is left as, should it end now.
    left: Vec<Left>,
    /// The one-shot units that may still run.
    running_once: BTreeSet<usize>,
    /// This run only ends what an earlier one began.
    recovering: bool,
    /// The program was told to end before the deploy had.
    stopped: bool,
}

impl Machine {
    /// Begins a deploy: everything has been looked at, nothing has been done.
    pub(crate) fn begin(shape: Shape) -> (Self, Vec<Effect>) {
        let mut machine = Self::at(shape, State::Pulling, false);
        let effects = if machine.shape.pull {
            let mut effects = vec![Effect::Save(Phase::Pulling)];
            effects.extend(machine.start([Task::Pull]));
            effects
        } else {
            machine.prepare(0)
        };
        (machine, effects)
    }

    /// A deploy that is cut off before its first effect: nothing is done for it, so nothing has to be put back.
    pub(crate) fn cut_off(shape: Shape) -> (Self, Vec<Effect>) {
        let mut machine = Self::at(shape, State::Pulling, false);
        let effects = machine.on(Event::Stopped);
        (machine, effects)
    }

    /// Ends what an earlier run began. `astray` are those that do not do now what they did before its first effect;
    /// `spared` those that it never came to, as far as that shows.
    pub(crate) fn recover(
        shape: Shape,
        phase: Phase,
        astray: &BTreeSet<usize>,
        spared: &BTreeSet<usize>,
    ) -> (Self, Vec<Effect>) {
        let placed: BTreeSet<usize> = shape.moved_by(&phase).difference(spared).copied().collect();
        let running_once = if phase == Phase::Preparing { shape.one_shots().collect() } else { BTreeSet::new() };
        let cause = match phase {
            Phase::Proven => {
                let mut machine = Self::at(shape, State::Pulling, true);
                for (left, slot) in machine.left.iter_mut().zip(&machine.shape.slots) {
                    *left = if slot.starts() { Left::Deployed } else { Left::Placed };
                }
                machine.end(Verdict::Deployed, None, Vec::new());
                return (machine, Vec::new());
            }
            Phase::RollingBack { cause } => Some(cause),
            Phase::Pulling | Phase::Preparing | Phase::Replacing(_) => None,
        };
        let mut machine = Self::at(shape, State::Pulling, true);
        machine.running_once = running_once;
        machine.restarted =
            placed.iter().copied().filter(|&index| machine.slot(index).starts() && astray.contains(&index)).collect();
        machine.placed = placed;
        let effects = machine.fail(interrupted(cause));
        (machine, effects)
    }

    /// Takes what happened and says what to do next. After the end nothing is.
    pub(crate) fn on(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Done(task) if self.pending.remove(&task) => self.done(task),
            Event::Failed(task, failure) if self.pending.remove(&task) => self.failed(&task, failure),
            Event::Done(_) | Event::Failed(..) => Vec::new(),
            Event::Unwritable(failure) => match self.state {
                State::Done(_) => Vec::new(),
                // Going back matters more than writing that we do; the entry on disk still leads to the same end.
                State::RollingBack { .. } => self.pending.iter().cloned().map(Effect::Start).collect(),
                _ => self.fail(failure),
            },
            Event::BudgetSpent(failure) => match &mut self.state {
                State::Done(_) => Vec::new(),
                State::RollingBack { cause, broken, .. } => {
                    let (cause, mut broken) = (cause.clone(), std::mem::take(broken));
                    broken.push(failure);
                    self.pending.clear();
                    self.end(Verdict::Failed, Some(cause), broken);
                    vec![Effect::Abandon]
                }
                _ => self.fail(failure),
            },
            Event::Stopped => match self.state {
                State::Done(_) | State::RollingBack { .. } => Vec::new(),
                _ => {
                    self.stopped = true;
                    self.fail(interrupted(None))
                }
            },
        }
    }

    /// It is on its way back.
    pub(crate) fn goes_back(&self) -> bool {
        matches!(self.state, State::RollingBack { .. })
    }

    /// What it came to, once it has ended.
    pub(crate) fn ended(&self) -> Option<&End> {
        match &self.state {
            State::Done(end) => Some(end),
            _ => None,
        }
    }

    /// What each service is left as, by index.
    pub(crate) fn left(&self) -> &[Left] {
        &self.left
    }

    fn at(shape: Shape, state: State, recovering: bool) -> Self {
        Self {
            left: vec![Left::Untouched; shape.slots.len()],
            shape,
            state,
            pending: BTreeSet::new(),
            placed: BTreeSet::new(),
            restarted: BTreeSet::new(),
            running_once: BTreeSet::new(),
            recovering,
            stopped: false,
        }
    }

    fn done(&mut self, task: Task) -> Vec<Effect> {
        match (&self.state, task) {
            (State::Pulling, Task::Pull) => self.prepare(0),
            (State::Preparing { .. }, Task::Place(Way::Forward, indices)) => {
                let Some(&index) = indices.first() else { return Vec::new() };
                self.running_once.insert(index);
                self.start([Task::RunOnce(index)])
            }
            (&State::Preparing { one_shot }, Task::RunOnce(index)) => {
                self.running_once.remove(&index);
                self.leave(index, Left::Placed);
                self.prepare(one_shot.saturating_add(1))
            }
            (&State::Tagging { group }, Task::Place(Way::Forward, members)) => {
                self.state = State::Restarting { group };
                let (starting, resting): (Vec<_>, Vec<_>) = members.into_iter().partition(|&i| self.slot(i).starts());
                resting.into_iter().for_each(|index| self.leave(index, Left::Placed));
                self.restarted.extend(&starting);
                starting.iter().for_each(|&index| self.leave(index, Left::Broken));
                let effects = self.start(starting.into_iter().map(|index| Task::Restart(Way::Forward, index)));
                if effects.is_empty() { self.replace(group.saturating_add(1)) } else { effects }
            }
            (State::Restarting { .. }, Task::Restart(Way::Forward, index)) => {
                self.start([Task::Probe(Way::Forward, index)])
            }
            (&State::Restarting { group }, Task::Probe(Way::Forward, index)) => {
                self.leave(index, Left::Deployed);
                if self.pending.is_empty() { self.replace(group.saturating_add(1)) } else { Vec::new() }
            }
            (State::Settling, Task::Settle(Way::Forward, _)) => self.record(),
            (State::Recording, Task::Record) => {
                self.end(Verdict::Deployed, None, Vec::new());
                Vec::new()
            }
            (State::RollingBack { stage, .. }, task) => {
                let stage = *stage;
                match task {
                    Task::Place(Way::Back, _) => {
                        for index in self.placed.clone() {
                            if !self.restarted.contains(&index) {
                                let left = self.slot(index).left_unnamed().unwrap_or(Left::Untouched);
                                self.leave(index, left);
                            }
                        }
                    }
                    Task::Restart(Way::Back, index) => return self.start([Task::Probe(Way::Back, index)]),
                    Task::Probe(Way::Back, index) => self.leave(index, Left::Restored),
                    Task::Stop(index) if self.slot(index).role == Role::OneShot => self.leave(index, Left::Untouched),
                    Task::Stop(index) => self.leave(index, Left::Stopped),
                    _ => {}
                }
                self.go_on_back(stage)
            }
            // No pending task fits no state; named so that the match stays total.
            _ => Vec::new(),
        }
    }

    fn failed(&mut self, task: &Task, failure: Failure) -> Vec<Effect> {
        let blameless = match task {
            Task::Restart(Way::Back, index) | Task::Probe(Way::Back, index) => self.slot(*index).was == Was::Failing,
            _ => false,
        };
        if let (true, Task::Restart(Way::Back, index) | Task::Probe(Way::Back, index)) = (blameless, task) {
            // It is as bad as it was before, on the image it had before.
            self.leave(*index, Left::Restored);
        }
        match &mut self.state {
            State::RollingBack { stage, broken, .. } => {
                if !blameless {
                    broken.push(failure);
                }
                let stage = *stage;
                self.go_on_back(stage)
            }
            State::Done(_) => Vec::new(),
            _ => self.fail(failure),
        }
    }

    /// The next one-shot unit, or the first group.
    fn prepare(&mut self, one_shot: usize) -> Vec<Effect> {
        let Some(index) = self.shape.one_shots().nth(one_shot) else { return self.replace(0) };
        self.state = State::Preparing { one_shot };
        self.placed.insert(index);
        self.leave(index, Left::Broken);
        let mut effects = vec![Effect::Save(Phase::Preparing)];
        effects.extend(self.start([Task::Place(Way::Forward, vec![index])]));
        effects
    }

    /// The next group, or the settle time.
    fn replace(&mut self, group: usize) -> Vec<Effect> {
        let Some(members) = self.shape.groups.get(group).cloned() else { return self.settle() };
        self.state = State::Tagging { group };
        self.placed.extend(&members);
        let mut effects = vec![Effect::Save(Phase::Replacing(group))];
        effects.extend(self.start([Task::Place(Way::Forward, members)]));
        effects
    }

    fn settle(&mut self) -> Vec<Effect> {
        if self.restarted.is_empty() {
            return self.record();
        }
        self.state = State::Settling;
        let all = self.restarted.iter().copied().collect();
        self.start([Task::Settle(Way::Forward, all)])
    }

    fn record(&mut self) -> Vec<Effect> {
        self.state = State::Recording;
        self.start([Task::Record])
    }

    /// Turns back, or ends if nothing was touched.
    fn fail(&mut self, cause: Failure) -> Vec<Effect> {
        self.pending.clear();
        if self.placed.is_empty() {
            let verdict = if self.was_cut_off() { Verdict::Interrupted } else { Verdict::Failed };
            self.end(verdict, Some(cause), Vec::new());
            return vec![Effect::Abandon];
        }
        self.state = State::RollingBack { cause: cause.clone(), stage: BackStage::Tagging, broken: Vec::new() };
        for index in self.placed.clone() {
            self.leave(index, Left::Broken);
        }
        let mut effects = vec![Effect::Abandon, Effect::Save(Phase::RollingBack { cause })];
        let all = self.placed.iter().copied().collect();
        effects.extend(self.start([Task::Place(Way::Back, all)]));
        effects
    }

    /// The way back goes on whatever fails on it: each service that can be saved is.
    fn go_on_back(&mut self, stage: BackStage) -> Vec<Effect> {
        if !self.pending.is_empty() {
            return Vec::new();
        }
        let (next, effects) = match stage {
            BackStage::Tagging => (BackStage::Restarting, self.back_tasks()),
            BackStage::Restarting => {
                let proven: Vec<usize> = (0..self.left.len())
                    .filter(|&i| self.left.get(i) == Some(&Left::Restored) && self.slot(i).was == Was::Running)
                    .collect();
                let watch = (!proven.is_empty()).then_some(Task::Settle(Way::Back, proven));
                (BackStage::Settling, self.start(watch))
            }
            BackStage::Settling => {
                self.end_back();
                return Vec::new();
            }
        };
        if let State::RollingBack { stage, .. } = &mut self.state {
            *stage = next;
        }
        if effects.is_empty() { self.go_on_back(next) } else { effects }
    }

    fn back_tasks(&mut self) -> Vec<Effect> {
        let mut tasks = Vec::new();
        for &index in &self.placed {
            let slot = self.slot(index);
            let restarted = self.restarted.contains(&index);
            tasks.extend(match (slot.role, slot.was) {
                // One that hangs must not go on beside the old image.
                (Role::OneShot, _) => self.running_once.contains(&index).then_some(Task::Stop(index)),
                (_, Was::Stopped) => None,
                (_, Was::Absent) => restarted.then_some(Task::Stop(index)),
                _ if restarted => Some(Task::Restart(Way::Back, index)),
                _ if self.recovering => Some(Task::Probe(Way::Back, index)),
                _ => None,
            });
        }
        self.start(tasks)
    }

    fn end_back(&mut self) {
        let State::RollingBack { cause, broken, .. } = &mut self.state else { return };
        let (cause, broken) = (cause.clone(), std::mem::take(broken));
        let mut ends = self.left.iter().zip(&self.shape.slots);
        // One that was stopped is what it was.
        let lost = ends.any(|(left, slot)| matches!(left, Left::Stopped | Left::Broken) && slot.was != Was::Stopped);
        let verdict = match (broken.is_empty() && !lost, self.was_cut_off()) {
            (false, _) => Verdict::Failed,
            (true, true) => Verdict::Interrupted,
            (true, false) if self.restarted.is_empty() => Verdict::Failed,
            (true, false) => Verdict::RolledBack,
        };
        self.end(verdict, Some(cause), broken);
    }

    /// Neither the image nor anything else is to blame.
    fn was_cut_off(&self) -> bool {
        self.recovering || self.stopped
    }

    fn end(&mut self, verdict: Verdict, cause: Option<Failure>, broken: Vec<Failure>) {
        self.state = State::Done(End { verdict, cause, broken });
    }

    fn start(&mut self, tasks: impl IntoIterator<Item = Task>) -> Vec<Effect> {
        tasks
            .into_iter()
            .map(|task| {
                self.pending.insert(task.clone());
                Effect::Start(task)
            })
            .collect()
    }

    fn leave(&mut self, index: usize, as_what: Left) {
        if let Some(left) = self.left.get_mut(index) {
            *left = as_what;
        }
    }

    fn slot(&self, index: usize) -> Slot {
        self.shape.slots.get(index).copied().unwrap_or(Slot { role: Role::OneShot, was: Was::Stopped, revoked: false })
    }
}

fn interrupted(cause: Option<Failure>) -> Failure {
    match cause {
        None => Failure::new("interrupted", "the companion was stopped in the middle of the deploy").hint(
            "look for a stop, a reboot, a kill, a full disk or a lack of memory in the journal, then release again",
        ),
        Some(cause) => Failure {
            kind: "interrupted".into(),
            reason: format!("the companion was stopped while it was rolling back, because {}", cause.reason),
            ..cause
        },
    }
}

#[cfg(test)]
mod tests;
