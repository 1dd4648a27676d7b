//! Performs a deploy: looks, asks `plan` and `state`, does what they say, and feeds back what came of it.
//!
//! The clock lives here; no decision does.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use futures_util::{
    future::{join, try_join, try_join_all, try_join3},
    stream::{FuturesUnordered, StreamExt},
};
use tagship_core::{reference::Tag, signature::Verified};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    contents::Contents,
    outcome::{Ended, Failure, Verdict},
    plan::{self, Facts, Named},
    ports::{Containers, News, Part, Proof, Report, Store, Units},
    record::{InFlight, Journal, Phase, RecordedGoal, Restorable},
    space::{self, Room},
    state::{Effect, Event, Machine, Task, Way},
    values::ImageId,
    world::{Learned, Running, Source, World},
};
use crate::{config::Settings, stop::Stop};

/// The longest that looking at what is there may take; it takes milliseconds where everybody answers.
const LOOK: Duration = Duration::from_secs(60);

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
    /// Images that no way back may lead to: their key was revoked after they were proven.
    pub revoked: &'a BTreeSet<ImageId>,
    /// Who is told.
    pub report: &'a dyn Report,
    /// Whether it is to be cut off.
    pub stop: &'a Stop,
}

/// Deploys a candidate: the whole set of services runs it afterwards, or what it ran before.
///
/// `contents` is what the image consists of, asked for while everything else is looked at; none where nobody knows. The
/// entry in `journal` is left for the caller, who removes it once the answer is written.
pub async fn deploy<U: Units, S: Store, C: Containers>(
    ground: &Ground<'_, U, S, C>,
    journal: &mut dyn Journal,
    candidate: Candidate,
    contents: impl Future<Output = Option<Contents>>,
) -> Ended {
    let goal = RecordedGoal::Deploy {
        repository: candidate.verified.repository().clone(),
        digest: candidate.verified.digest(),
        tag: candidate.tag.clone(),
    };
    // The engine looks for programs and packages before it says where its directories are: longer than all else here.
    let room = async {
        let (contents, rooms) = join(contents, ground.store.rooms()).await;
        enough_room(ground, contents, rooms.ok()).await.map_err(Ended::refused)
    };
    match try_join(look_and_record(ground, goal, plan::names), room).await {
        Ok((entry, ())) => forward(ground, journal, entry, Source::Verified(Box::new(candidate.verified))).await,
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
    let mut earlier = earlier.clone();
    // By the list of today alone: a key may have been taken from it since the entry was written.
    earlier.services.iter_mut().for_each(|before| before.revoked = false);
    earlier.revoke(ground.revoked);
    let mut wanted = BTreeMap::new();
    for (index, recorded) in entry.services.iter().enumerate() {
        if earlier.services.iter().any(|before| before.name == recorded.name && before.revoked) {
            let reason = format!("the key of what {} ran before is revoked", recorded.name);
            let hint = "release a newer version, or name one that is signed with a key that counts";
            return Ended::refused(Failure::new("revoked-key", reason).at(&recorded.name).hint(hint));
        }
        let Some(restorable) = earlier.restorable(&recorded.name).filter(|r| *r.local() == recorded.local) else {
            return Ended::refused(
                Failure::new("nothing-recorded", format!("no earlier image of {} is recorded", recorded.name))
                    .at(&recorded.name),
            );
        };
        wanted.insert(index, restorable);
    }
    if let Err(failure) = all_present(ground.store, wanted.values().map(Restorable::image)).await {
        return Ended::refused(failure);
    }
    forward(ground, journal, entry, Source::Restorable(wanted)).await
}

/// Ends a deploy that an earlier run of the program left in the middle: everything runs what it ran before, unless the
/// deploy was already proven. After an error nothing was touched: what is there cannot even be looked at, and a later
/// run has to end it.
pub async fn recover<U: Units, S: Store, C: Containers>(
    ground: &Ground<'_, U, S, C>,
    journal: &mut dyn Journal,
    mut entry: InFlight,
) -> Result<Ended, Failure> {
    entry.revoke(ground.revoked);
    let names = entry.services.iter().map(|s| (s.name.clone(), s.role, s.local.clone())).collect();
    let facts = look(ground, names).await?;
    let (astray, spared) = (plan::astray(&entry, &facts), plan::spared(&entry, &facts));
    let (machine, effects) = Machine::recover(plan::shape(&entry, false), entry.phase.clone(), &astray, &spared);
    let world = World::new(ground, entry.services.clone(), Source::Nothing);
    let image = entry.image.clone();
    Ok(Ended { image, ..drive(&world, journal, entry, machine, effects).await })
}

async fn forward<U: Units, S: Store, C: Containers>(
    ground: &Ground<'_, U, S, C>,
    journal: &mut dyn Journal,
    entry: InFlight,
    source: Source,
) -> Ended {
    let pull = matches!(source, Source::Verified(_));
    let shape = plan::shape(&entry, pull);
    // Asked while everything was being looked at.
    let (machine, effects) = if ground.stop.is_asked() { Machine::cut_off(shape) } else { Machine::begin(shape) };
    let world = World::new(ground, entry.services.clone(), source);
    drive(&world, journal, entry, machine, effects).await
}

/// Looks at everything that the deploy would touch; refuses, or records it.
async fn look_and_record<U: Units, S: Store, C: Containers>(
    ground: &Ground<'_, U, S, C>,
    goal: RecordedGoal,
    names: fn(&Settings) -> Result<Vec<Named>, Failure>,
) -> Result<InFlight, Ended> {
    let begun = Instant::now();
    let names = names(ground.settings).map_err(Ended::refused)?;
    let facts = look(ground, names).await.map_err(failed)?;
    let mut entry = plan::record(ground.settings, goal, &facts).map_err(Ended::refused)?;
    entry.revoke(ground.revoked);
    let restorable: Vec<_> = entry.services.iter().filter_map(|s| entry.restorable(&s.name)).collect();
    all_present(ground.store, restorable.iter().map(Restorable::image)).await.map_err(Ended::refused)?;
    for (service, text) in plan::warnings(&facts).into_iter().chain(plan::no_way_back(&entry)) {
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

/// Refuses an image that there is no room for. What cannot be found out forbids nothing: the pull will tell.
async fn enough_room<U, S: Store, C>(
    ground: &Ground<'_, U, S, C>,
    contents: Option<Contents>,
    rooms: Option<Vec<Room>>,
) -> Result<(), Failure> {
    let (Some(contents), Some(rooms)) = (contents, rooms) else { return Ok(()) };
    let reserve = ground.settings.reserve_space;
    let Err(_) = space::check(&contents, &BTreeSet::new(), &rooms, reserve) else { return Ok(()) };
    // Only now does it matter what is there already: finding out takes a question for each image.
    let Ok(there) = ground.store.layers().await else { return Ok(()) };
    space::check(&contents, &there, &rooms, reserve)
}

async fn look<U: Units, S: Store, C: Containers>(
    ground: &Ground<'_, U, S, C>,
    names: Vec<Named>,
) -> Result<Vec<Facts>, Failure> {
    let one = |(name, role, local): Named| async move {
        let unit = async { ground.units.inspect(&name).await.map_err(|error| Failure::of(&error).at(&name)) };
        let container = async { ground.containers.find(&name).await.map_err(|error| Failure::of(&error).at(&name)) };
        let named = async { ground.store.resolve(&local).await.map_err(|error| Failure::of(&error).at(&name)) };
        let (unit, container, named) = try_join3(unit, container, named).await?;
        Ok(Facts { name, role, local, unit, container, named })
    };
    timeout(LOOK, try_join_all(names.into_iter().map(one))).await.unwrap_or_else(|_| {
        let reason = format!("the engine or the service manager does not answer within {} s", LOOK.as_secs());
        Err(Failure::new("host-silent", reason).hint(
            "`systemctl --user status` and `podman ps` as the app's user show which; `systemctl --user restart \
             podman.socket podman.service` starts the engine anew",
        ))
    })
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

fn failed(failure: Failure) -> Ended {
    Ended { verdict: Verdict::Failed, ..Ended::refused(failure) }
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
        entry.image = world.pulled().or(entry.image.take());
        journal.save(&entry).map_err(|error| Failure::of(&*error))
    };
    let mut stopped = false;
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
                // Naming takes milliseconds and must never be given up half-way: it is waited for on the spot. Not so on
                // the way back, where the engine may have to be waited for, as long as the budget lasts.
                Effect::Start(task @ Task::Place(Way::Forward, _)) => {
                    let (task, outcome) = world.perform(task, &proofs).await;
                    todo.extend(machine.on(told(task, outcome)));
                }
                Effect::Start(task) => under_way.push(world.perform(task, &proofs)),
            }
        }
        if let Some(end) = machine.ended() {
            return world.ended(end.clone(), machine.left(), &proofs);
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
            () = world.stopped(), if !stopped => {
                stopped = true;
                Event::Stopped
            }
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

#[cfg(test)]
mod tests;
