//! What each task of a deploy does to the world, and what its readers are told of it.
//!
//! When a task begins, and what follows from its end, is decided by `state`; `run` carries both to and fro.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::future::{join_all, try_join};
use tagship_core::{failpoint, signature::Verified};
use tokio::time::{Instant, sleep};

use super::{
    names,
    outcome::{Ended, Failure, Left, ServiceEnd, Verdict},
    ports::{Containers, Leave, News, Part, Proof, Pulled, Store, Units, Wanted},
    record::{Phase, Recorded, Restorable, Role},
    run::Ground,
    state::{End, Task, Way},
    values::{ImageId, LocalName},
};
use crate::config::{Missing, ServiceName};

/// The pause before something on the way back is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where the images that are put in place come from.
pub(super) enum Source {
    /// A verified digest, to be pulled.
    Verified(Box<Verified>),
    /// What may be put back, by index.
    Restorable(BTreeMap<usize, Restorable>),
    /// Nowhere: the only way is back.
    Nothing,
}

/// What a task has found out.
pub(super) enum Learned {
    Nothing,
    Proof(usize, Proof),
}

pub(super) type Running<'w> = Pin<Box<dyn Future<Output = (Task, Result<Learned, Failure>)> + Send + 'w>>;

/// Everything that tasks need, unchanged while they run.
pub(super) struct World<'a, U, S, C> {
    ground: &'a Ground<'a, U, S, C>,
    services: Vec<Recorded>,
    source: Source,
    pulled: OnceLock<Pulled>,
    /// When each unit was last told to restart.
    restarted: Mutex<BTreeMap<ServiceName, SystemTime>>,
    begun: Instant,
}

impl<'a, U: Units, S: Store, C: Containers> World<'a, U, S, C> {
    pub(super) fn new(ground: &'a Ground<'a, U, S, C>, services: Vec<Recorded>, source: Source) -> Self {
        Self { ground, services, source, pulled: OnceLock::new(), restarted: Mutex::default(), begun: Instant::now() }
    }

    /// A third of the budget is kept for the way back: restarts side by side and one proof each.
    pub(super) fn deadline(&self, back: bool) -> Instant {
        let budget = self.ground.settings.budget;
        self.begun + if back { budget } else { budget - budget / 3 }
    }

    pub(super) fn budget_spent(&self) -> Failure {
        let budget = self.ground.settings.budget.as_secs();
        Failure::new("budget", format!("the deploy's budget of {budget} s is spent"))
            .hint("raise `budget`, or find out what took so long: each step's duration is in the log")
    }

    /// Returns once the deploy is to be cut off.
    pub(super) async fn stopped(&self) {
        self.ground.stop.asked().await;
    }

    /// Begins a task.
    pub(super) fn perform<'w>(&'w self, task: Task, proofs: &BTreeMap<usize, Proof>) -> Running<'w> {
        let watched = match &task {
            Task::Settle(_, indices) => indices.iter().filter_map(|index| proofs.get(index).cloned()).collect(),
            _ => Vec::new(),
        };
        Box::pin(async move {
            failpoint::pass("begins", format_args!("{task:?}"));
            let outcome = match &task {
                _ if task.is_back() => self.patiently(&task, &watched).await,
                task => self.attempt(task, &watched).await,
            };
            if let Err(failure) = &outcome {
                self.tell_failure(task.part(), failure);
            }
            failpoint::pass("has done", format_args!("{task:?}"));
            (task, outcome)
        })
    }

    /// The same again for as long as the engine or the service manager is away: on the way back there is nothing better
    /// to do, and the budget ends it.
    async fn patiently(&self, task: &Task, watched: &[Proof]) -> Result<Learned, Failure> {
        loop {
            match self.attempt(task, watched).await {
                Err(failure) if failure.is_outage() => {
                    self.tell_failure(task.part(), &failure);
                    sleep(AGAIN).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt(&self, task: &Task, watched: &[Proof]) -> Result<Learned, Failure> {
        match task {
            Task::Pull => self.pull().await.map(|()| Learned::Nothing),
            Task::Place(way, indices) => self.place(*way, indices).await.map(|()| Learned::Nothing),
            Task::RunOnce(index) => self.run_once(*index).await.map(|()| Learned::Nothing),
            Task::Restart(way, index) => self.restart(*way, *index).await.map(|()| Learned::Nothing),
            Task::Probe(way, index) => self.probe(*way, *index).await.map(|proof| Learned::Proof(*index, proof)),
            Task::Settle(way, _) => self.settle(*way, watched).await.map(|()| Learned::Nothing),
            Task::Stop(index) => self.stop(*index).await.map(|()| Learned::Nothing),
            // The journal belongs to the loop, which takes this task itself.
            Task::Record => Ok(Learned::Nothing),
        }
    }

    /// The new image, once it is in the store.
    pub(super) fn pulled(&self) -> Option<ImageId> {
        self.pulled.get().map(|pulled| pulled.image().clone())
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
            if way == Way::Back {
                if names::back(self.ground.store, recorded).await? && recorded.revoked {
                    let text = format!("{local} stands for nothing now: the key of what it stood for is revoked");
                    self.tell(Part::Rollback, Some(&recorded.name), "revoked", &text, None);
                }
                return Ok(());
            }
            failpoint::pass("moves", local);
            let moved = self.ground.store.place(self.leave(index)?, local).await;
            moved.map_err(|error| Failure::of(&error).at(&recorded.name))
        });
        // All are tried, whatever becomes of one.
        join_all(moves).await.into_iter().collect()
    }

    async fn run_once(&self, index: usize) -> Result<(), Failure> {
        let (name, begun) = (&self.at(index)?.name, Instant::now());
        self.tell(Part::Prepare, Some(name), "start", "runs once with the new image", None);
        if let Err(error) = self.restart_unit(name).await {
            let failure = Failure { kind: "one-shot".into(), ..Failure::of(&error) };
            return Err(self.with_tail(failure, name).await);
        }
        self.tell(Part::Prepare, Some(name), "done", "has ended well", Some(begun.elapsed()));
        Ok(())
    }

    async fn restart_unit(&self, name: &ServiceName) -> Result<(), U::Error> {
        self.restarted.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), SystemTime::now());
        self.ground.units.restart(name).await
    }

    fn restarted_at(&self, name: &ServiceName) -> Option<SystemTime> {
        self.restarted.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    async fn restart(&self, way: Way, index: usize) -> Result<(), Failure> {
        let (name, begun) = (&self.at(index)?.name, Instant::now());
        let (part, image) = match way {
            Way::Forward => (Part::Restart, self.image(index)),
            Way::Back => (Part::Rollback, self.at(index)?.image.as_ref()),
        };
        let text = format!("restarts with image {}", image.map_or("", ImageId::short));
        self.tell(part, Some(name), "restart", &text, None);
        if let Err(error) = self.restart_unit(name).await {
            return Err(self.with_tail(Failure::of(&error), name).await);
        }
        self.tell(part, Some(name), "restarted", "has restarted", Some(begun.elapsed()));
        Ok(())
    }

    async fn probe(&self, way: Way, index: usize) -> Result<Proof, Failure> {
        let (recorded, begun) = (self.at(index)?, Instant::now());
        let health = self.ground.settings.health;
        let nothing = || Failure::new("internal", "there is no image to prove").at(&recorded.name);
        let since = self.restarted_at(&recorded.name).unwrap_or(SystemTime::UNIX_EPOCH);
        let wanted = match way {
            Way::Forward => Wanted {
                service: &recorded.name,
                image: self.image(index).ok_or_else(nothing)?,
                not: recorded.container.as_ref(),
                since,
                timeout: health.timeout,
                missing: health.missing,
            },
            // What ran without a healthcheck before is put back without one.
            Way::Back => Wanted {
                service: &recorded.name,
                image: recorded.image.as_ref().ok_or_else(nothing)?,
                not: None,
                since,
                timeout: health.timeout,
                missing: Missing::Running,
            },
        };
        let proof = match self.ground.containers.prove(wanted).await {
            Ok(proof) => proof,
            Err(failure) => return Err(self.with_tail(failure, &recorded.name).await),
        };
        let text = match proof.checked {
            true => format!("is healthy on image {}", proof.image.short()),
            false => format!("runs image {}; it has no healthcheck", proof.image.short()),
        };
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
        let Recorded { name, role, local, revoked, .. } = self.at(index)?;
        self.ground.units.stop(name).await.map_err(|error| Failure::of(&error).at(name))?;
        if *role == Role::Service && *revoked {
            // It may have got its name back before the key was on the list.
            self.ground.store.forget(local).await.map_err(|error| Failure::of(&error).at(name))?;
        }
        let text = match role {
            Role::Service => "is stopped: there is nothing to go back to",
            Role::OneShot => "is stopped: it must not go on beside the old image",
        };
        self.tell(Part::Rollback, Some(name), "stopped", text, None);
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
        if failure.tail.is_empty() {
            failure.tail(self.ground.units.tail(service, self.restarted_at(service)).await)
        } else {
            failure
        }
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

    pub(super) fn tell_phase(&self, phase: &Phase) {
        match phase {
            Phase::Pulling => self.tell(Part::Pull, None, "start", "fetching the verified image", None),
            Phase::RollingBack { cause } => {
                let text = format!("going back, because {}", cause.reason);
                self.tell(Part::Rollback, None, "start", &text, None);
            }
            Phase::Preparing | Phase::Replacing(_) | Phase::Proven => {}
        }
    }

    pub(super) fn ended(&self, end: End, left: &[Left], proofs: &BTreeMap<usize, Proof>) -> Ended {
        let services = self.services.iter().zip(left).enumerate().map(|(index, (recorded, &state))| ServiceEnd {
            name: recorded.name.clone(),
            role: recorded.role,
            state,
            unchecked: proofs.get(&index).is_some_and(|proof| !proof.checked),
            image: match state {
                Left::Deployed | Left::Placed => self.image(index).cloned(),
                Left::Untouched | Left::Restored => recorded.image.clone(),
                Left::Stopped | Left::Broken => None,
            },
        });
        let unnamed = self.services.iter().zip(left).filter(|(recorded, _)| recorded.revoked);
        let unnamed = unnamed.filter_map(|(recorded, left)| {
            let so = match left {
                Left::Stopped => "has nothing to start",
                Left::Broken => "cannot start again",
                _ => return None,
            };
            let reason = format!("{} {so} until a deploy succeeds: the key of what it ran is revoked", recorded.name);
            Some(Failure::new("revoked-key", reason).at(&recorded.name))
        });
        Ended {
            verdict: end.verdict,
            cause: end.cause,
            broken: if end.verdict == Verdict::Failed {
                end.broken.into_iter().chain(unnamed).collect()
            } else {
                end.broken
            },
            image: self.pulled(),
            services: services.collect(),
        }
    }
}

impl Task {
    /// It belongs to the way back.
    fn is_back(&self) -> bool {
        match self {
            Self::Place(way, _) | Self::Restart(way, _) | Self::Probe(way, _) | Self::Settle(way, _) => {
                *way == Way::Back
            }
            Self::Stop(_) => true,
            Self::Pull | Self::RunOnce(_) | Self::Record => false,
        }
    }

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
