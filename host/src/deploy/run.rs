//! Performs a deploy: looks, asks `plan` and `state`, does what they say, and feeds back what came of it.
//!
//! The clock lives here; no decision does.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::OnceLock,
    time::Duration,
};

use futures_util::{
    future::{join_all, try_join, try_join_all, try_join3},
    stream::{FuturesUnordered, StreamExt},
};
use tagship_core::{reference::Tag, signature::Verified};
use tokio::time::{Instant, sleep_until};

use super::{
    outcome::{Ended, Failure, Left, ServiceEnd, Verdict},
    plan::{self, Facts},
    ports::{Containers, Leave, News, Part, Proof, Pulled, Report, Store, Units, Wanted},
    record::{InFlight, Journal, Phase, Recorded, RecordedGoal, Restorable, Role},
    state::{Effect, Event, Machine, Task, Way},
    values::{ImageId, LocalName},
};
use crate::config::{Missing, ServiceName, Settings};

/// What may be newly deployed: an image whose signature was verified, and the tag it was asked for under.
#[derive(Debug)]
pub struct Candidate {
    /// The proof.
    pub verified: Verified,
    /// The tag, for the record and for readers.
    pub tag: Tag,
}

/// Where a deploy happens: the app's settings and the ways to the world.
pub struct Ground<'a, U, S, C> {
    /// What is configured.
    pub settings: &'a Settings,
    /// The service manager.
    pub units: &'a U,
    /// The image store.
    pub store: &'a S,
    /// The containers.
    pub containers: &'a C,
    /// Who is told.
    pub report: &'a dyn Report,
}

/// Deploys a candidate: the whole set of services runs it afterwards, or what it ran before.
///
/// The entry in `journal` is left for the caller, who removes it once the answer is written.
pub async fn deploy<U: Units, S: Store, C: Containers>(
    ground: &Ground<'_, U, S, C>,
    journal: &mut dyn Journal,
    candidate: Candidate,
) -> Ended {
    let goal = RecordedGoal::Deploy {
        repository: candidate.verified.repository().clone(),
        digest: candidate.verified.digest(),
        tag: candidate.tag.clone(),
    };
    match look_and_record(ground, goal, plan::names).await {
        Ok(entry) => forward(ground, journal, entry, Source::Verified(candidate.verified)).await,
        Err(ended) => ended,
    }
}

/// Puts back what `earlier`, the entry of a deploy that has ended, recorded before its first effect: the operator's
/// rollback. What runs now is recorded first and comes back if that fails.
pub async fn put_back<U: Units, S: Store, C: Containers>(
    ground: &Ground<'_, U, S, C>,
    journal: &mut dyn Journal,
    earlier: &InFlight,
) -> Ended {
    // One-shot units prepared for a new image when it came; they have no part in going back.
    let entry = match look_and_record(ground, RecordedGoal::PutBack, plan::service_names).await {
        Ok(entry) => entry,
        Err(ended) => return ended,
    };
    let mut wanted = BTreeMap::new();
    for (index, recorded) in entry.services.iter().enumerate() {
        let Some(restorable) = earlier.restorable(&recorded.name).filter(|r| *r.local() == recorded.local) else {
            return refused(
                Failure::new("nothing-recorded", format!("no earlier image of {} is recorded", recorded.name))
                    .at(&recorded.name),
            );
        };
        wanted.insert(index, restorable);
    }
    if let Err(failure) = all_present(ground.store, wanted.values().map(Restorable::image)).await {
        return refused(failure);
    }
    forward(ground, journal, entry, Source::Restorable(wanted)).await
}

/// Ends a deploy that an earlier run of the program left in the middle: everything runs what it ran before, unless the
/// deploy was already proven.
pub async fn recover<U: Units, S: Store, C: Containers>(
    ground: &Ground<'_, U, S, C>,
    journal: &mut dyn Journal,
    entry: InFlight,
) -> Ended {
    let names = entry.services.iter().map(|s| (s.name.clone(), s.role, s.local.clone())).collect();
    let facts = match look(ground, names).await {
        Ok(facts) => facts,
        Err(failure) => return failed(failure),
    };
    let astray = plan::astray(&entry, &facts);
    let (machine, effects) = Machine::recover(plan::shape(&entry, false), entry.phase.clone(), &astray);
    let world = World::new(ground, entry.services.clone(), Source::Nothing);
    drive(&world, journal, entry, machine, effects).await
}

async fn forward<U: Units, S: Store, C: Containers>(
    ground: &Ground<'_, U, S, C>,
    journal: &mut dyn Journal,
    entry: InFlight,
    source: Source,
) -> Ended {
    let pull = matches!(source, Source::Verified(_));
    let (machine, effects) = Machine::begin(plan::shape(&entry, pull));
    let world = World::new(ground, entry.services.clone(), source);
    drive(&world, journal, entry, machine, effects).await
}

/// Looks at everything that the deploy would touch; refuses, or records it.
async fn look_and_record<U: Units, S: Store, C: Containers>(
    ground: &Ground<'_, U, S, C>,
    goal: RecordedGoal,
    names: fn(&Settings) -> Result<Vec<(ServiceName, Role, LocalName)>, Failure>,
) -> Result<InFlight, Ended> {
    let begun = Instant::now();
    let names = names(ground.settings).map_err(refused)?;
    let facts = look(ground, names).await.map_err(failed)?;
    let entry = plan::record(ground.settings, goal, &facts).map_err(refused)?;
    all_present(ground.store, entry.services.iter().filter_map(|s| s.image.as_ref())).await.map_err(refused)?;
    for (service, text) in plan::warnings(&facts) {
        ground.report.tell(News {
            phase: Part::Inspect,
            service: Some(&service),
            event: "warning",
            text: &text,
            took: None,
        });
    }
    let text = format!("{} units are known and ready", facts.len());
    ground.report.tell(News {
        phase: Part::Inspect,
        service: None,
        event: "ready",
        text: &text,
        took: Some(begun.elapsed()),
    });
    Ok(entry)
}

async fn look<U: Units, S: Store, C: Containers>(
    ground: &Ground<'_, U, S, C>,
    names: Vec<(ServiceName, Role, LocalName)>,
) -> Result<Vec<Facts>, Failure> {
    let one = |(name, role, local): (ServiceName, Role, LocalName)| async move {
        let unit = async { ground.units.inspect(&name).await.map_err(|error| Failure::of(&error).at(&name)) };
        let container = async { ground.containers.find(&name).await.map_err(|error| Failure::of(&error).at(&name)) };
        let named = async { ground.store.resolve(&local).await.map_err(|error| Failure::of(&error).at(&name)) };
        let (unit, container, named) = try_join3(unit, container, named).await?;
        Ok(Facts { name, role, local, unit, container, named })
    };
    try_join_all(names.into_iter().map(one)).await
}

/// What may have to be put back must be there before anything is touched.
async fn all_present<S: Store>(store: &S, images: impl Iterator<Item = &ImageId>) -> Result<(), Failure> {
    for image in images.collect::<BTreeSet<_>>() {
        if !store.has(image).await.map_err(|error| Failure::of(&error))? {
            return Err(Failure::new(
                "previous-image-missing",
                format!("the image {} that is to be gone back to is no longer in the store", image.short()),
            )
            .hint("pull the version that runs now again by hand, and look for what prunes images"));
        }
    }
    Ok(())
}

fn refused(failure: Failure) -> Ended {
    Ended { verdict: Verdict::Refused, cause: Some(failure), broken: Vec::new(), image: None, services: Vec::new() }
}

fn failed(failure: Failure) -> Ended {
    Ended { verdict: Verdict::Failed, ..refused(failure) }
}

/// Where the images that are put in place come from.
enum Source {
    /// A verified digest, to be pulled.
    Verified(Verified),
    /// What may be put back, by index.
    Restorable(BTreeMap<usize, Restorable>),
    /// Nowhere: the only way is back.
    Nothing,
}

/// What a task has found out.
enum Learned {
    Nothing,
    Proof(usize, Proof),
}

type Running<'w> = Pin<Box<dyn Future<Output = (Task, Result<Learned, Failure>)> + Send + 'w>>;

/// Everything that tasks need, unchanged while they run.
struct World<'a, U, S, C> {
    ground: &'a Ground<'a, U, S, C>,
    services: Vec<Recorded>,
    source: Source,
    pulled: OnceLock<Pulled>,
    begun: Instant,
}

/// Performs effects until the machine has ended.
async fn drive<U: Units, S: Store, C: Containers>(
    world: &World<'_, U, S, C>,
    journal: &mut dyn Journal,
    mut entry: InFlight,
    mut machine: Machine,
    effects: Vec<Effect>,
) -> Ended {
    let mut todo = VecDeque::from(effects);
    let mut under_way: FuturesUnordered<Running<'_>> = FuturesUnordered::new();
    let mut proofs: BTreeMap<usize, Proof> = BTreeMap::new();
    let mut save = |phase: Phase| {
        world.tell_phase(&phase);
        entry.phase = phase;
        journal.save(&entry).map_err(|error| Failure::of(&*error))
    };
    loop {
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Save(phase) => {
                    if let Err(failure) = save(phase) {
                        todo.clear();
                        todo.extend(machine.on(Event::Unwritable(failure)));
                    }
                }
                Effect::Abandon => under_way.clear(),
                Effect::Start(Task::Record) => {
                    todo.extend(machine.on(told(Task::Record, save(Phase::Proven))));
                }
                // Naming takes milliseconds and must never be given up half-way: it is waited for on the spot.
                Effect::Start(task @ Task::Place(..)) => {
                    let (task, outcome) = world.perform(task, &proofs).await;
                    todo.extend(machine.on(told(task, outcome)));
                }
                Effect::Start(task) => under_way.push(world.perform(task, &proofs)),
            }
        }
        if let Some(end) = machine.ended() {
            return world.ended(end.clone(), machine.left());
        }
        let event = tokio::select! {
            next = under_way.next() => match next {
                Some((task, outcome)) => {
                    if let Ok(Learned::Proof(index, proof)) = &outcome {
                        proofs.insert(*index, proof.clone());
                    }
                    told(task, outcome)
                }
                None => Event::BudgetSpent(Failure::new("internal", "the deploy waits for nothing")),
            },
            () = sleep_until(world.deadline(machine.goes_back())) => Event::BudgetSpent(world.budget_spent()),
        };
        todo.extend(machine.on(event));
    }
}

fn told<T>(task: Task, outcome: Result<T, Failure>) -> Event {
    match outcome {
        Ok(_) => Event::Done(task),
        Err(failure) => Event::Failed(task, failure),
    }
}

impl<'a, U: Units, S: Store, C: Containers> World<'a, U, S, C> {
    fn new(ground: &'a Ground<'a, U, S, C>, services: Vec<Recorded>, source: Source) -> Self {
        Self { ground, services, source, pulled: OnceLock::new(), begun: Instant::now() }
    }

    /// A third of the budget is kept for the way back: restarts side by side and one proof each.
    fn deadline(&self, back: bool) -> Instant {
        let budget = self.ground.settings.budget;
        self.begun + if back { budget } else { budget - budget / 3 }
    }

    fn budget_spent(&self) -> Failure {
        let budget = self.ground.settings.budget.as_secs();
        Failure::new("budget", format!("the deploy's budget of {budget} s is spent"))
            .hint("raise `budget`, or find out what took so long: each step's duration is in the log")
    }

    /// Begins a task.
    fn perform<'w>(&'w self, task: Task, proofs: &BTreeMap<usize, Proof>) -> Running<'w> {
        let watched = match &task {
            Task::Settle(_, indices) => indices.iter().filter_map(|index| proofs.get(index).cloned()).collect(),
            _ => Vec::new(),
        };
        Box::pin(async move {
            let outcome = match &task {
                Task::Pull => self.pull().await.map(|()| Learned::Nothing),
                Task::Place(way, indices) => self.place(*way, indices).await.map(|()| Learned::Nothing),
                Task::RunOnce(index) => self.run_once(*index).await.map(|()| Learned::Nothing),
                Task::Restart(way, index) => self.restart(*way, *index).await.map(|()| Learned::Nothing),
                Task::Probe(way, index) => self.probe(*way, *index).await.map(|proof| Learned::Proof(*index, proof)),
                Task::Settle(way, _) => self.settle(*way, &watched).await.map(|()| Learned::Nothing),
                Task::Stop(index) => self.stop(*index).await.map(|()| Learned::Nothing),
                // The journal belongs to the loop, which takes this task itself.
                Task::Record => Ok(Learned::Nothing),
            };
            if let Err(failure) = &outcome {
                self.tell_failure(task.part(), failure);
            }
            (task, outcome)
        })
    }

    async fn pull(&self) -> Result<(), Failure> {
        let Source::Verified(verified) = &self.source else { return Ok(()) };
        let begun = Instant::now();
        let progress = |line: &str| self.tell(Part::Pull, None, "progress", line, None);
        let pulled = async { self.ground.store.pull(verified, &progress).await.map_err(|error| Failure::of(&error)) };
        let (pulled, ()) = try_join(pulled, self.keep_incumbents()).await?;
        let text = format!("{} is in the store as {}", verified.digest(), pulled.image().short());
        self.tell(Part::Pull, None, "pulled", &text, Some(begun.elapsed()));
        self.require_healthcheck(&pulled)?;
        // Pulled once a deploy; a second value could only be the same.
        let _ = self.pulled.set(pulled);
        Ok(())
    }

    /// What runs now may have no name left once the services' names have moved.
    async fn keep_incumbents(&self) -> Result<(), Failure> {
        for image in self.services.iter().filter_map(|s| s.image.as_ref()).collect::<BTreeSet<_>>() {
            self.ground.store.keep(image).await.map_err(|error| Failure::of(&error))?;
        }
        Ok(())
    }

    fn require_healthcheck(&self, pulled: &Pulled) -> Result<(), Failure> {
        if self.ground.settings.health.missing == Missing::Running || pulled.has_healthcheck() {
            return Ok(());
        }
        match self.services.iter().find(|s| s.role == Role::Service && !s.own_healthcheck) {
            None => Ok(()),
            Some(recorded) => Err(Failure::new("no-healthcheck", "neither the image nor the unit has a healthcheck")
                .at(&recorded.name)
                .hint("add a HEALTHCHECK to the image (Docker format), or HealthCmd= to the Quadlet")),
        }
    }

    async fn place(&self, way: Way, indices: &[usize]) -> Result<(), Failure> {
        // Services may share a name.
        let mut names: BTreeMap<&LocalName, usize> = BTreeMap::new();
        for &index in indices {
            names.entry(&self.at(index)?.local).or_insert(index);
        }
        let moves = names.into_iter().map(|(local, index)| async move {
            let recorded = self.at(index)?;
            let moved = match (way, recorded.restorable()) {
                (Way::Forward, _) => self.ground.store.place(self.leave(index)?, local).await,
                (Way::Back, Some(before)) => self.ground.store.place(Leave::Restorable(&before), local).await,
                (Way::Back, None) => self.ground.store.forget(local).await,
            };
            moved.map_err(|error| Failure::of(&error).at(&recorded.name))
        });
        // All are tried, whatever becomes of one.
        join_all(moves).await.into_iter().collect()
    }

    async fn run_once(&self, index: usize) -> Result<(), Failure> {
        let (name, begun) = (&self.at(index)?.name, Instant::now());
        self.tell(Part::Prepare, Some(name), "start", "runs once with the new image", None);
        if let Err(error) = self.ground.units.restart(name).await {
            return Err(self.with_tail(Failure::of(&error), name).await);
        }
        self.tell(Part::Prepare, Some(name), "done", "has ended well", Some(begun.elapsed()));
        Ok(())
    }

    async fn restart(&self, way: Way, index: usize) -> Result<(), Failure> {
        let (name, begun) = (&self.at(index)?.name, Instant::now());
        let (part, image) = match way {
            Way::Forward => (Part::Restart, self.image(index)),
            Way::Back => (Part::Rollback, self.at(index)?.image.as_ref()),
        };
        let text = format!("restarts with image {}", image.map_or("", ImageId::short));
        self.tell(part, Some(name), "restart", &text, None);
        if let Err(error) = self.ground.units.restart(name).await {
            return Err(self.with_tail(Failure::of(&error), name).await);
        }
        self.tell(part, Some(name), "restarted", "has restarted", Some(begun.elapsed()));
        Ok(())
    }

    async fn probe(&self, way: Way, index: usize) -> Result<Proof, Failure> {
        let (recorded, begun) = (self.at(index)?, Instant::now());
        let health = self.ground.settings.health;
        let nothing = || Failure::new("internal", "there is no image to prove").at(&recorded.name);
        let wanted = match way {
            Way::Forward => Wanted {
                service: &recorded.name,
                image: self.image(index).ok_or_else(nothing)?,
                not: recorded.container.as_ref(),
                timeout: health.timeout,
                missing: health.missing,
            },
            // What ran without a healthcheck before is put back without one.
            Way::Back => Wanted {
                service: &recorded.name,
                image: recorded.image.as_ref().ok_or_else(nothing)?,
                not: None,
                timeout: health.timeout,
                missing: Missing::Running,
            },
        };
        let proof = match self.ground.containers.prove(wanted).await {
            Ok(proof) => proof,
            Err(failure) => return Err(self.with_tail(failure, &recorded.name).await),
        };
        let text = format!("is healthy on image {}", proof.image.short());
        let part = if way == Way::Forward { Part::Health } else { Part::Rollback };
        self.tell(part, Some(&recorded.name), "healthy", &text, Some(begun.elapsed()));
        Ok(proof)
    }

    async fn settle(&self, way: Way, proofs: &[Proof]) -> Result<(), Failure> {
        let begun = Instant::now();
        if let Err(failure) = self.ground.containers.hold(proofs, self.ground.settings.health.settle).await {
            return match failure.service.clone() {
                Some(service) => Err(self.with_tail(failure, &service).await),
                None => Err(failure),
            };
        }
        let part = if way == Way::Forward { Part::Settle } else { Part::Rollback };
        self.tell(part, None, "settled", "nothing has changed since", Some(begun.elapsed()));
        Ok(())
    }

    async fn stop(&self, index: usize) -> Result<(), Failure> {
        let name = &self.at(index)?.name;
        self.ground.units.stop(name).await.map_err(|error| Failure::of(&error).at(name))?;
        self.tell(Part::Rollback, Some(name), "stopped", "is stopped: there is nothing to go back to", None);
        Ok(())
    }

    /// By what right the service's name moves forward.
    fn leave(&self, index: usize) -> Result<Leave<'_>, Failure> {
        let leave = match &self.source {
            Source::Verified(_) => self.pulled.get().map(Leave::Verified),
            Source::Restorable(wanted) => wanted.get(&index).map(Leave::Restorable),
            Source::Nothing => None,
        };
        leave.ok_or_else(|| Failure::new("internal", "there is no image to put in place"))
    }

    fn image(&self, index: usize) -> Option<&ImageId> {
        match &self.source {
            Source::Verified(_) => self.pulled.get().map(Pulled::image),
            Source::Restorable(wanted) => wanted.get(&index).map(Restorable::image),
            Source::Nothing => None,
        }
    }

    fn at(&self, index: usize) -> Result<&Recorded, Failure> {
        self.services.get(index).ok_or_else(|| Failure::new("internal", "a service without a record"))
    }

    async fn with_tail(&self, failure: Failure, service: &ServiceName) -> Failure {
        let failure = failure.at(service);
        if failure.tail.is_empty() { failure.tail(self.ground.units.tail(service).await) } else { failure }
    }

    fn tell(&self, phase: Part, service: Option<&ServiceName>, event: &str, text: &str, took: Option<Duration>) {
        self.ground.report.tell(News { phase, service, event, text, took });
    }

    fn tell_failure(&self, part: Part, failure: &Failure) {
        let service = failure.service.as_ref();
        self.tell(part, service, "failed", &failure.reason, None);
        for line in &failure.tail {
            self.tell(part, service, "output", line, None);
        }
    }

    fn tell_phase(&self, phase: &Phase) {
        match phase {
            Phase::Pulling => self.tell(Part::Pull, None, "start", "fetching the verified image", None),
            Phase::RollingBack { cause } => {
                let text = format!("going back, because {}", cause.reason);
                self.tell(Part::Rollback, None, "start", &text, None);
            }
            Phase::Preparing | Phase::Replacing(_) | Phase::Proven => {}
        }
    }

    fn ended(&self, end: super::state::End, left: &[Left]) -> Ended {
        let services = self.services.iter().zip(left).enumerate().map(|(index, (recorded, &state))| ServiceEnd {
            name: recorded.name.clone(),
            role: recorded.role,
            state,
            image: match state {
                Left::Deployed | Left::Placed => self.image(index).cloned(),
                Left::Untouched | Left::Restored => recorded.image.clone(),
                Left::Stopped | Left::Broken => None,
            },
        });
        Ended {
            verdict: end.verdict,
            cause: end.cause,
            broken: end.broken,
            image: self.pulled.get().map(|pulled| pulled.image().clone()),
            services: services.collect(),
        }
    }
}

impl Task {
    /// Where its readers see it.
    fn part(&self) -> Part {
        match self {
            Self::Pull => Part::Pull,
            Self::RunOnce(_) => Part::Prepare,
            Self::Place(Way::Forward, _) | Self::Restart(Way::Forward, _) => Part::Restart,
            Self::Probe(Way::Forward, _) => Part::Health,
            Self::Settle(Way::Forward, _) | Self::Record => Part::Settle,
            Self::Place(Way::Back, _)
            | Self::Restart(Way::Back, _)
            | Self::Probe(Way::Back, _)
            | Self::Settle(Way::Back, _)
            | Self::Stop(_) => Part::Rollback,
        }
    }
}

#[cfg(test)]
mod tests;
