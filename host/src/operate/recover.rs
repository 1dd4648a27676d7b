//! `tagship-host recover`: after a crash, the local names stand again for what was proven, before anything starts.
//!
//! Services that a boot starts run whatever their names stand for. Where a deploy was cut off, that may be an image that
//! nobody has found healthy. So a unit that they are ordered after calls this first. It asks the image store alone and
//! gives up after a while, so that no service waits for ever; the journal is left as it is for `deploy`, which proves
//! health and answers.

use std::{future::Future, time::Duration};

use tokio::time::timeout;

use crate::{
    deploy::{self, Failure, InFlight, NameBack, StandsFor, Store},
    journal::Journal,
    report::Urgency,
};

/// The longest that the services wait for it. Each name takes milliseconds; the engine's own start the rest.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is to be said about it.
#[derive(Debug)]
pub struct NamesBack {
    /// A line for each name that was moved, or could not be.
    pub lines: Vec<(Urgency, String)>,
    /// No name is left where it should not be.
    pub all_back: bool,
}

/// The deploy that was cut off, if one was and had not ended.
pub fn left_over(journal: &Journal) -> Option<&InFlight> {
    let current = journal.current().filter(|current| current.verdict.is_none())?;
    current.entry.as_ref()
}

/// Puts back the names that the deploy may have moved.
pub async fn run<S: Store>(store: impl Future<Output = Result<S, Failure>>, entry: &InFlight) -> NamesBack {
    let mut moved = Vec::new();
    let work = async {
        deploy::names_back(&store.await?, entry, |name| moved.push(name)).await;
        Ok::<_, Failure>(())
    };
    let why = match timeout(PATIENCE, work).await {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure.words()),
        Err(_) => Some(format!(
            "the engine has not answered within {} s; hint: `systemctl --user status podman.socket`",
            PATIENCE.as_secs()
        )),
    };
    let all_back = why.is_none() && moved.iter().all(|name| name.outcome.is_ok());
    let mut lines: Vec<_> = moved.into_iter().map(line).collect();
    lines.extend(why.map(|why| {
        let text = format!("not all names could be put back: {why}; services may start with an unproven image");
        (Urgency::Error, text)
    }));
    NamesBack { lines, all_back }
}

fn line(moved: NameBack) -> (Urgency, String) {
    let NameBack { name, outcome } = moved;
    match outcome {
        Ok(StandsFor::Image(image)) => (Urgency::Notice, format!("{name} stands for image {image} again")),
        Ok(StandsFor::Nothing) => (Urgency::Notice, format!("{name} stands for nothing again: nothing was proven")),
        Ok(StandsFor::NothingRevoked) => (
            Urgency::Error,
            format!(
                "{name} stands for nothing now: the key of what it stood for is revoked; its service cannot start until \
                 a deploy succeeds"
            ),
        ),
        Err(failure) => (Urgency::Error, format!("{name} could not be put back: {}", failure.words())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        deploy::{Leave, LocalName, Phase, Recorded, RecordedGoal, Role, Was},
        testing::{World, digest, image_of},
    };

    fn name(service: &str) -> LocalName {
        LocalName { repository: "localhost/app".parse().unwrap(), tag: service.parse().unwrap() }
    }

    fn entry(phase: Phase) -> InFlight {
        let recorded = |service: &str, image| Recorded {
            name: service.parse().unwrap(),
            role: Role::Service,
            local: name(service),
            was: Was::Running,
            enablement: "generated".into(),
            own_healthcheck: false,
            revoked: false,
            container: None,
            image,
        };
        let old = Some(image_of(digest("old")));
        InFlight {
            goal: RecordedGoal::PutBack,
            services: vec![recorded("web", old.clone()), recorded("worker", old), recorded("fresh", None)],
            groups: vec![vec![0], vec![1], vec![2]],
            phase,
            image: None,
        }
    }

    /// What the names stand for after a recovery, where all stood for the new image before it.
    async fn recovered(phase: Phase) -> (Vec<bool>, NamesBack) {
        let world = World::default();
        let mut new = entry(Phase::Pulling);
        for service in &mut new.services {
            service.image = Some(image_of(digest("new")));
        }
        for service in ["web", "worker", "fresh"].map(|name| name.parse().unwrap()) {
            let restorable = new.restorable(&service).unwrap();
            world.place(Leave::Restorable(&restorable), restorable.local()).await.unwrap();
        }
        let told = run(async { Ok(world.clone()) }, &entry(phase)).await;
        let mut new = Vec::new();
        for service in ["web", "worker", "fresh"] {
            new.push(world.resolve(&name(service)).await.unwrap() == Some(image_of(digest("new"))));
        }
        (new, told)
    }

    #[tokio::test]
    async fn only_what_the_deploy_had_moved_goes_back() {
        for (phase, new, lines) in [
            (Phase::Pulling, [true, true, true], 0),
            (Phase::Preparing, [true, true, true], 0),
            (Phase::Replacing(0), [false, true, true], 1),
            (Phase::Replacing(2), [false, false, false], 3),
            (Phase::RollingBack { cause: Failure::new("unhealthy", "sick") }, [false, false, false], 3),
            (Phase::Proven, [true, true, true], 0),
        ] {
            let (now, told) = recovered(phase.clone()).await;
            assert_eq!((now, told.lines.len(), told.all_back), (new.to_vec(), lines, true), "{phase:?}");
        }
    }

    #[tokio::test]
    async fn what_to_try_is_said() {
        let missing = async { Err::<World, _>(Failure::new("engine-missing", "no engine").hint("start it")) };
        let told = run(missing, &entry(Phase::Replacing(2))).await;
        assert!(told.lines[0].1.contains("no engine; hint: start it"), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_hangs_keeps_no_service_waiting() {
        let told = run(std::future::pending::<Result<World, Failure>>(), &entry(Phase::Replacing(2))).await;
        assert!(!told.all_back && told.lines[0].1.contains("20 s"), "{told:?}");
    }

    /// The key was revoked before the deploy began.
    #[tokio::test]
    async fn a_name_that_does_not_come_back_is_told_of() {
        let world = World::default();
        let revoked = |entry: InFlight| {
            let services = entry.services.into_iter().map(|one| Recorded { revoked: one.image.is_some(), ..one });
            InFlight { services: services.collect(), ..entry }
        };
        world.state().names.insert(name("web").to_string(), image_of(digest("new")));
        world.state().names.insert(name("worker").to_string(), image_of(digest("old")));
        let told = run(async { Ok(world.clone()) }, &revoked(entry(Phase::Replacing(1)))).await;
        assert!(told.all_back);
        let [(Urgency::Error, words)] = &told.lines[..] else { panic!("{told:?}") };
        assert!(words.starts_with("localhost/app:web stands for nothing now: the key of"), "{words}");
        // It stands for what the deploy found: its turn had not come.
        assert_eq!(world.resolve(&name("worker")).await.unwrap(), Some(image_of(digest("old"))));
    }
}
