//! The machine against a small model of the world, with random failures, orders and crashes.

use proptest::prelude::*;

use super::*;

/// What a name stands for or a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Old,
    New,
    Nothing,
}

/// A host: what names stand for, what runs, and what is on disk.
#[derive(Debug, Clone)]
struct World {
    shape: Shape,
    names: Vec<Thing>,
    runs: Vec<Thing>,
    disk: Option<Phase>,
    pulled: bool,
    proven: BTreeSet<(Way, usize)>,
    once: Vec<usize>,
    log: Vec<Task>,
}

impl World {
    fn new(shape: &Shape) -> Self {
        // What ran with a revoked key is absent as far as a way back is concerned.
        let old = |slot: &Slot| if slot.was == Was::Absent && !slot.revoked { Thing::Nothing } else { Thing::Old };
        let running = |slot: &Slot| match (slot.role, slot.was) {
            (Role::Service, Was::Running | Was::Failing) => Thing::Old,
            (Role::Service, Was::Absent) if slot.revoked => Thing::Old,
            _ => Thing::Nothing,
        };
        Self {
            names: shape.slots.iter().map(old).collect(),
            runs: shape.slots.iter().map(running).collect(),
            shape: shape.clone(),
            disk: None,
            pulled: !shape.pull,
            proven: BTreeSet::new(),
            once: Vec::new(),
            log: Vec::new(),
        }
    }

    /// The invariants that hold whenever a task begins.
    fn begin(&self, task: &Task) {
        let on_disk =
            |wanted: fn(&Phase) -> bool| assert!(self.disk.as_ref().is_some_and(wanted), "{task:?} unrecorded");
        match task {
            Task::Pull => on_disk(|phase| *phase == Phase::Pulling),
            Task::Place(Way::Forward, indices) => {
                assert!(self.pulled, "named before it was there");
                on_disk(|phase| matches!(phase, Phase::Preparing | Phase::Replacing(_)));
                for &index in indices {
                    let prepared = self
                        .shape
                        .slots
                        .iter()
                        .enumerate()
                        .all(|(i, s)| s.role != Role::OneShot || self.once.contains(&i));
                    assert!(self.shape.slots[index].role == Role::OneShot || prepared, "a group before the one-shots");
                }
            }
            Task::RunOnce(index) => {
                assert_eq!(self.names[*index], Thing::New);
                assert_eq!(self.shape.slots[*index].role, Role::OneShot);
            }
            Task::Restart(Way::Forward, index) => {
                assert_eq!(self.names[*index], Thing::New, "restarted before it was named");
                assert_ne!(self.shape.slots[*index].was, Was::Stopped, "what was stopped stays stopped");
                let group = self.shape.groups.iter().position(|group| group.contains(index)).unwrap();
                for earlier in self.shape.groups[..group].iter().flatten() {
                    let done = self.proven.contains(&(Way::Forward, *earlier)) || !self.shape.slots[*earlier].starts();
                    assert!(done, "{index} restarts before {earlier} of an earlier group is proven");
                }
            }
            Task::Restart(Way::Back, index) => {
                assert!(!matches!(self.shape.slots[*index].was, Was::Stopped | Was::Absent));
                assert_eq!(self.shape.slots[*index].role, Role::Service);
            }
            Task::Record => {
                for (index, slot) in self.shape.slots.iter().enumerate().filter(|(_, slot)| slot.starts()) {
                    assert!(self.proven.contains(&(Way::Forward, index)), "{slot:?} recorded as proven, but is not");
                }
            }
            Task::Place(Way::Back, _) | Task::Probe(..) | Task::Settle(..) | Task::Stop(_) => {}
        }
    }

    /// What a task does to the world when it ends well.
    fn end(&mut self, task: &Task) {
        self.log.push(task.clone());
        match task {
            Task::Pull => self.pulled = true,
            Task::Place(Way::Forward, indices) => indices.iter().for_each(|&i| self.names[i] = Thing::New),
            Task::Place(Way::Back, indices) => {
                let before = World::new(&self.shape).names;
                for &i in indices {
                    let untouched = self.names[i] == before[i];
                    self.names[i] = if self.shape.slots[i].revoked && !untouched { Thing::Nothing } else { before[i] };
                }
            }
            Task::RunOnce(index) => self.once.push(*index),
            Task::Restart(_, index) => self.runs[*index] = self.names[*index],
            Task::Probe(way, index) => {
                self.proven.insert((*way, *index));
            }
            Task::Stop(index) => {
                self.runs[*index] = Thing::Nothing;
                if self.shape.slots[*index].revoked {
                    self.names[*index] = Thing::Nothing;
                }
            }
            Task::Record => self.disk = Some(Phase::Proven),
            Task::Settle(..) => {}
        }
    }

    fn astray(&self) -> BTreeSet<usize> {
        (0..self.runs.len()).filter(|&i| self.runs[i] != Thing::Old).collect()
    }

    fn spared(&self) -> BTreeSet<usize> {
        let spared =
            |i: usize| self.shape.slots[i].revoked && self.names[i] == Thing::Old && self.runs[i] != Thing::New;
        (0..self.runs.len()).filter(|&i| spared(i)).collect()
    }

    /// Whether it is as before; what is revoked may be gone, where that is `allowed`.
    fn is_back(&self, allowed: bool) -> bool {
        let before = World::new(&self.shape);
        let fits = |i: usize, now: &[Thing], then: &[Thing]| {
            now[i] == then[i] || allowed && self.shape.slots[i].revoked && now[i] == Thing::Nothing
        };
        (0..self.runs.len()).all(|i| fits(i, &self.names, &before.names) && fits(i, &self.runs, &before.runs))
    }
}

fn failure(kind: &str) -> Failure {
    Failure::new(kind, kind)
}

fn slot(role: Role, was: Was) -> Slot {
    Slot { role, was, revoked: false }
}

/// Two one-group services that run.
fn two_groups() -> Shape {
    let running = slot(Role::Service, Was::Running);
    Shape { slots: vec![running, running, running], groups: vec![vec![0], vec![1, 2]], pull: true }
}

/// One choice of fate: which pending task ends next, and how.
type Fate = (usize, u8);

/// Plays a machine to its end; `None` if it was cut off by a crash.
fn play(
    mut machine: Machine,
    effects: Vec<Effect>,
    world: &mut World,
    fates: &mut impl Iterator<Item = Fate>,
    crash: Option<usize>,
    luck: bool,
) -> Option<Machine> {
    let mut todo: std::collections::VecDeque<Effect> = effects.into();
    let mut pending: Vec<Task> = Vec::new();
    let mut steps = 0;
    loop {
        while let Some(effect) = todo.pop_front() {
            if crash == Some(steps) {
                return None;
            }
            steps += 1;
            let (pick, how) = fates.next().unwrap_or((0, 255));
            match effect {
                Effect::Save(_) if !luck && how < 3 => {
                    todo.clear();
                    todo.extend(machine.on(Event::Unwritable(failure("state-io"))));
                }
                Effect::Save(phase) => world.disk = Some(phase),
                Effect::Abandon => pending.clear(),
                Effect::Start(task) => {
                    world.begin(&task);
                    assert!(!pending.contains(&task), "{task:?} twice");
                    pending.insert(pick % (pending.len() + 1), task);
                }
            }
        }
        if machine.ended().is_some() {
            assert!(pending.is_empty(), "ended with {pending:?} under way");
            return Some(machine);
        }
        assert!(!pending.is_empty(), "waits for nothing in {:?}", machine.state);
        if crash == Some(steps) {
            return None;
        }
        steps += 1;
        let (pick, how) = fates.next().unwrap_or((0, 255));
        if !luck && how == 255 && pick % 7 == 0 {
            todo.extend(machine.on(Event::BudgetSpent(failure("budget"))));
            continue;
        }
        if !luck && how == 254 {
            todo.extend(machine.on(Event::Stopped));
            continue;
        }
        let task = pending.remove(pick % pending.len());
        if !luck && how < 25 {
            if let Task::Restart(_, index) = &task {
                world.runs[*index] = world.names[*index];
            }
            todo.extend(machine.on(Event::Failed(task, failure("unhealthy"))));
        } else {
            world.end(&task);
            // An answer that nobody waits for any more changes nothing.
            todo.extend(machine.on(Event::Done(task.clone())));
            assert_eq!(machine.clone().on(Event::Done(task)), []);
        }
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let was = prop_oneof![
        4 => Just((Was::Running, false)),
        1 => Just((Was::Failing, false)),
        1 => Just((Was::Stopped, false)),
        1 => Just((Was::Absent, false)),
        1 => Just((Was::Stopped, true)),
        1 => Just((Was::Absent, true)),
    ];
    let groups = prop::collection::vec(prop::collection::vec(was, 1..4), 1..4);
    (prop::collection::vec(prop_oneof![Just(Was::Stopped), Just(Was::Absent)], 0..3), groups, any::<bool>()).prop_map(
        |(one_shots, groups, pull)| {
            let mut slots: Vec<Slot> = one_shots.into_iter().map(|was| slot(Role::OneShot, was)).collect();
            let mut indices = Vec::new();
            for group in groups {
                indices.push((slots.len()..slots.len() + group.len()).collect());
                slots.extend(group.into_iter().map(|(was, revoked)| Slot { role: Role::Service, was, revoked }));
            }
            Shape { slots, groups: indices, pull }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever fails, in whatever order: it ends, and the verdict is what the world looks like.
    #[test]
    fn every_deploy_ends_and_tells_the_truth(shape in shapes(), fates in prop::collection::vec(any::<Fate>(), 0..120)) {
        let mut world = World::new(&shape);
        let (machine, effects) = Machine::begin(shape.clone());
        let machine = play(machine, effects, &mut world, &mut fates.into_iter(), None, false).unwrap();
        let before = World::new(&shape);
        match machine.ended().unwrap().verdict {
            Verdict::Deployed => {
                prop_assert_eq!(&world.disk, &Some(Phase::Proven));
                for (index, slot) in shape.slots.iter().enumerate() {
                    prop_assert_eq!(world.names[index], Thing::New);
                    if slot.starts() {
                        prop_assert_eq!(world.runs[index], Thing::New);
                    } else {
                        prop_assert_eq!(world.runs[index], before.runs[index]);
                    }
                }
            }
            Verdict::RolledBack | Verdict::Interrupted => {
                prop_assert!(!machine.left().contains(&Left::Broken));
                for (index, slot) in shape.slots.iter().enumerate() {
                    let rests = slot.revoked && slot.was == Was::Stopped && world.names[index] == Thing::Nothing;
                    prop_assert!(rests || world.names[index] == before.names[index], "{:?}", slot);
                    if slot.was == Was::Running || slot.revoked {
                        prop_assert_eq!(world.runs[index], before.runs[index], "{:?}", slot);
                    }
                }
            }
            Verdict::Failed if machine.ended().unwrap().broken.is_empty() => {
                prop_assert!(!world.names.contains(&Thing::New));
                prop_assert!(!world.runs.contains(&Thing::New));
            }
            Verdict::Failed => {}
            Verdict::Refused => prop_assert!(false, "not of this machine's making"),
        }
    }

    /// Killed anywhere, even on the way back, even twice: the next start that is left alone puts everything back, or
    /// finds it proven.
    #[test]
    fn a_crash_anywhere_is_recovered_from(
        shape in shapes(),
        fates in prop::collection::vec(any::<Fate>(), 0..120),
        first in 0_usize..60,
        second in 0_usize..40,
    ) {
        let mut world = World::new(&shape);
        let mut fates = fates.into_iter();
        let (machine, effects) = Machine::begin(shape.clone());
        if play(machine, effects, &mut world, &mut fates, Some(first), false).is_some() {
            return Ok(());
        }
        let Some(phase) = world.disk.clone() else { return Ok(()) };
        let (machine, effects) = Machine::recover(shape.clone(), phase, &world.astray(), &world.spared());
        if play(machine, effects, &mut world, &mut fates, Some(second), false).is_some() {
            return Ok(());
        }
        let phase = world.disk.clone().unwrap();
        let (machine, effects) = Machine::recover(shape.clone(), phase.clone(), &world.astray(), &world.spared());
        let machine = play(machine, effects, &mut world, &mut fates, None, true).unwrap();
        let verdict = machine.ended().unwrap().verdict;
        if phase == Phase::Proven {
            prop_assert_eq!(verdict, Verdict::Deployed);
            return Ok(());
        }
        prop_assert!(matches!(verdict, Verdict::Interrupted | Verdict::Failed));
        prop_assert!(world.is_back(true), "{:?}", world);
        for (index, slot) in shape.slots.iter().enumerate() {
            prop_assert!(machine.left()[index] != Left::Broken || slot.revoked, "{:?}", machine.left());
            if slot.revoked && slot.was == Was::Absent && verdict == Verdict::Interrupted {
                prop_assert_eq!((world.names[index], world.runs[index]), (Thing::Old, Thing::Old));
            }
        }
    }

    /// No event in no order makes it panic, and nothing happens after the end.
    #[test]
    fn every_event_has_an_answer(shape in shapes(), events in prop::collection::vec((0_u8..13, 0_usize..6, any::<bool>()), 0..200)) {
        let (mut machine, _) = Machine::begin(shape);
        for (kind, index, well) in events {
            let way = if well { Way::Forward } else { Way::Back };
            let task = match kind {
                0 => Task::Pull,
                1 => Task::Place(way, vec![index]),
                2 => Task::RunOnce(index),
                3 => Task::Restart(way, index),
                4 => Task::Probe(way, index),
                5 => Task::Settle(way, vec![index]),
                6 => Task::Stop(index),
                7 => Task::Record,
                8 | 9 => match machine.pending.iter().nth(index) {
                    Some(task) => task.clone(),
                    None => continue,
                },
                10 => {
                    machine.on(Event::Unwritable(failure("state-io")));
                    continue;
                }
                11 => {
                    machine.on(Event::Stopped);
                    continue;
                }
                _ => {
                    machine.on(Event::BudgetSpent(failure("budget")));
                    continue;
                }
            };
            let ended = machine.ended().is_some();
            let effects = machine.on(if well { Event::Done(task) } else { Event::Failed(task, failure("any")) });
            prop_assert!(!ended || effects.is_empty());
        }
    }
}

/// Runs a machine whose tasks all end well but for those that `fails` names.
fn run(shape: &Shape, fails: impl Fn(&Task) -> bool) -> (Machine, World) {
    let mut world = World::new(shape);
    let (mut machine, effects) = Machine::begin(shape.clone());
    let mut todo: std::collections::VecDeque<Effect> = effects.into();
    let mut pending = std::collections::VecDeque::new();
    loop {
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Save(phase) => world.disk = Some(phase),
                Effect::Abandon => pending.clear(),
                Effect::Start(task) => pending.push_back(task),
            }
        }
        let Some(task) = pending.pop_front() else { return (machine, world) };
        world.begin(&task);
        let event = if fails(&task) {
            world.log.push(task.clone());
            Event::Failed(task, failure("unhealthy"))
        } else {
            world.end(&task);
            Event::Done(task)
        };
        todo.extend(machine.on(event));
    }
}

#[test]
fn a_good_deploy_goes_group_by_group() {
    let (machine, world) = run(&two_groups(), |_| false);
    let f = Way::Forward;
    let expected = [
        Task::Pull,
        Task::Place(f, vec![0]),
        Task::Restart(f, 0),
        Task::Probe(f, 0),
        Task::Place(f, vec![1, 2]),
        Task::Restart(f, 1),
        Task::Restart(f, 2),
        Task::Probe(f, 1),
        Task::Probe(f, 2),
        Task::Settle(f, vec![0, 1, 2]),
        Task::Record,
    ];
    assert_eq!(world.log, expected);
    assert_eq!(machine.ended().unwrap().verdict, Verdict::Deployed);
    assert_eq!(machine.left(), [Left::Deployed; 3]);
}

#[test]
fn the_first_bad_group_spares_the_later_ones() {
    let (machine, world) = run(&two_groups(), |task| *task == Task::Probe(Way::Forward, 0));
    assert_eq!(machine.ended().unwrap().verdict, Verdict::RolledBack);
    assert_eq!(machine.left(), [Left::Restored, Left::Untouched, Left::Untouched]);
    assert!(!world.log.iter().any(|task| matches!(task, Task::Restart(_, 1 | 2))));
}

#[test]
fn a_failed_pull_touches_nothing() {
    let (machine, world) = run(&two_groups(), |task| *task == Task::Pull);
    let end = machine.ended().unwrap();
    assert_eq!((end.verdict, end.broken.is_empty()), (Verdict::Failed, true));
    assert_eq!(world.log, [Task::Pull]);
}

#[test]
fn a_failed_one_shot_touches_no_service() {
    let mut shape = two_groups();
    shape.slots.push(slot(Role::OneShot, Was::Stopped));
    let (machine, world) = run(&shape, |task| matches!(task, Task::RunOnce(_)));
    assert_eq!(machine.ended().unwrap().verdict, Verdict::Failed);
    assert_eq!(world.names, [Thing::Old; 4]);
    assert!(world.log.contains(&Task::Stop(3)), "one that hangs must not go on");
    assert!(!world.log.iter().any(|task| matches!(task, Task::Restart(..))));
}

#[test]
fn a_first_deploy_that_fails_leaves_its_services_stopped() {
    let absent = slot(Role::Service, Was::Absent);
    let shape = Shape { slots: vec![absent], groups: vec![vec![0]], pull: true };
    let (machine, world) = run(&shape, |task| matches!(task, Task::Probe(..)));
    assert_eq!(machine.ended().unwrap().verdict, Verdict::Failed);
    assert_eq!(machine.left(), [Left::Stopped]);
    assert_eq!((world.names[0], world.runs[0]), (Thing::Nothing, Thing::Nothing));
}

#[test]
fn what_was_failing_before_does_not_blame_the_rollback() {
    let failing = slot(Role::Service, Was::Failing);
    let shape = Shape { slots: vec![failing], groups: vec![vec![0]], pull: true };
    let (machine, _) = run(&shape, |task| matches!(task, Task::Probe(..)));
    assert_eq!(machine.ended().unwrap().verdict, Verdict::RolledBack);
}

#[test]
fn a_failed_rollback_saves_the_others_and_is_loud() {
    let (machine, _) =
        run(&two_groups(), |task| matches!(task, Task::Probe(Way::Back, 1) | Task::Settle(Way::Forward, _)));
    let end = machine.ended().unwrap();
    assert_eq!((end.verdict, end.broken.len()), (Verdict::Failed, 1));
    assert_eq!(machine.left(), [Left::Restored, Left::Broken, Left::Restored]);
}

#[test]
fn an_unwritable_end_is_not_a_success() {
    let (machine, world) = run(&two_groups(), |task| *task == Task::Record);
    assert_eq!(machine.ended().unwrap().verdict, Verdict::RolledBack);
    assert_eq!(world.runs, [Thing::Old; 3]);
}

#[test]
fn a_spent_budget_goes_back_and_a_spent_way_back_ends() {
    let (mut machine, _) = Machine::begin(two_groups());
    machine.on(Event::Done(Task::Pull));
    let back = machine.on(Event::BudgetSpent(failure("budget")));
    assert_eq!(back.last(), Some(&Effect::Start(Task::Place(Way::Back, vec![0]))));
    assert_eq!(machine.on(Event::BudgetSpent(failure("budget"))), [Effect::Abandon]);
    let end = machine.ended().unwrap();
    assert_eq!((end.verdict, end.broken.len()), (Verdict::Failed, 1));
}

#[test]
fn what_is_told_to_stop_goes_back_and_blames_nobody() {
    let (mut machine, _) = Machine::begin(two_groups());
    assert_eq!(machine.clone().on(Event::Stopped), [Effect::Abandon]);
    machine.on(Event::Done(Task::Pull));
    machine.on(Event::Done(Task::Place(Way::Forward, vec![0])));
    let mut back: std::collections::VecDeque<Effect> = machine.on(Event::Stopped).into();
    assert_eq!(machine.on(Event::Stopped), [], "it is on its way already");
    while let Some(effect) = back.pop_front() {
        if let Effect::Start(task) = effect {
            back.extend(machine.on(Event::Done(task)));
        }
    }
    assert_eq!(machine.ended().unwrap().verdict, Verdict::Interrupted);
    assert_eq!(machine.left(), [Left::Restored, Left::Untouched, Left::Untouched]);
    // A failure before it stays the reason.
    let (mut machine, _) = Machine::begin(two_groups());
    machine.on(Event::Done(Task::Pull));
    machine.on(Event::Done(Task::Place(Way::Forward, vec![0])));
    machine.on(Event::Failed(Task::Restart(Way::Forward, 0), failure("service-start")));
    machine.on(Event::Stopped);
    for task in [
        Task::Place(Way::Back, vec![0]),
        Task::Restart(Way::Back, 0),
        Task::Probe(Way::Back, 0),
        Task::Settle(Way::Back, vec![0]),
    ] {
        machine.on(Event::Done(task));
    }
    assert_eq!(machine.ended().unwrap().verdict, Verdict::RolledBack);
}

#[test]
fn what_was_proven_before_the_crash_stays() {
    let (machine, effects) = Machine::recover(two_groups(), Phase::Proven, &BTreeSet::new(), &BTreeSet::new());
    assert_eq!((machine.ended().unwrap().verdict, effects), (Verdict::Deployed, Vec::new()));
}

#[test]
fn a_crash_before_any_name_moved_needs_no_way_back() {
    let (machine, effects) =
        Machine::recover(two_groups(), Phase::Pulling, &BTreeSet::from([0, 1, 2]), &BTreeSet::new());
    assert_eq!(machine.ended().unwrap().verdict, Verdict::Interrupted);
    assert_eq!(effects, [Effect::Abandon]);
}
