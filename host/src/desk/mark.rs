//! The mark, where it is not a deploy that changes it.
//!
//! Where the state was lost, every signed version would be a newer one. So before anything is judged, the mark is taken
//! from what runs, if that verifies: the order of versions begins there.

use std::{cmp::Ordering, collections::BTreeSet};

use jiff::Timestamp;
use tagship_core::{explain, handoff::status::Status, reference::Digest};

use super::{Adapters, Desk, Host, words::in_the_way};
use crate::{
    config::Settings,
    deploy::{Containers, Failure, HealthState, ImageId, Store},
    history::{By, Marked, Proven},
    report::Told,
    state_dir::StateError,
    trust::{Release, order},
    verify::{self, Approved, Denied},
};

/// An image of the app's repository that runs here.
struct Found {
    image: ImageId,
    digests: Vec<Digest>,
    /// Every service runs it, and none of them is unwell.
    everywhere: bool,
}

impl<H: Host> Desk<'_, H> {
    /// Sets the mark by the operator's word, to what was verified anew; on disk before anybody is told. Returns what
    /// became of it; none if it stood there already.
    pub fn set_mark(&mut self, mark: Release) -> Result<Option<Marked>, StateError> {
        let previous = self.history.trust.mark().cloned();
        if previous.as_ref().is_some_and(|previous| previous.digest == mark.digest && previous.tag == mark.tag) {
            return Ok(None);
        }
        self.history.set_mark(&self.dir, mark.clone())?;
        let marked = Marked { by: By::Operator, mark, previous };
        self.host.marked(&self.app, &marked);
        Ok(Some(marked))
    }

    /// Where nothing is known, takes the mark from what runs, if that verifies. What does not verify is told and taken
    /// for nothing; what cannot be looked at is in the way of everything new, or an outage would lift the order.
    pub(super) async fn recall(&mut self, settings: &Settings, told: &Told) -> Result<(), Status> {
        if !self.history.is_new() {
            return Ok(());
        }
        let unknown = |failure| in_the_way("it must be found out first which version runs here", &failure);
        let running = self.running(settings).await.map_err(unknown)?;
        if !running.is_empty() {
            let verified = self.recognise(settings, running, told).await;
            let best = verified.map_err(|denied| unknown(Failure::of(&denied)))?;
            best.into_iter().for_each(|(found, approved)| self.take(found, approved, told));
        }
        self.kept(|desk| desk.history.recalled(&desk.dir));
        Ok(())
    }

    /// What the app's services run now, as far as it is of the app's repository.
    async fn running(&self, settings: &Settings) -> Result<Vec<Found>, Failure> {
        let Adapters { store, containers, .. } = self.host.adapters(settings).await?;
        let mut running = Vec::new();
        for service in settings.all_services() {
            let container = containers.find(service).await.map_err(|error| Failure::of(&error).at(service))?;
            running.push(container.filter(|container| container.running));
        }
        let mut all = Vec::new();
        for image in running.iter().flatten().map(|container| &container.image).collect::<BTreeSet<_>>() {
            let digests = store.digests(image, &settings.image).await.map_err(|error| Failure::of(&error))?;
            let everywhere = running.iter().all(|container| {
                let well = |health| matches!(health, HealthState::None | HealthState::Healthy);
                container.as_ref().is_some_and(|container| container.image == *image && well(container.health))
            });
            all.extend((!digests.is_empty()).then(|| Found { image: image.clone(), digests, everywhere }));
        }
        Ok(all)
    }

    /// The highest version among what runs, of those that verify.
    async fn recognise(
        &self,
        settings: &Settings,
        running: Vec<Found>,
        told: &Told,
    ) -> Result<Option<(Found, Approved)>, Denied> {
        let registry = self.host.registry(settings).await?;
        let mut best: Option<(Found, Approved)> = None;
        for found in running {
            match version_of(settings, &registry, &found).await? {
                Ok(approved) => {
                    if best.as_ref().is_none_or(|(_, best)| is_newer(&approved, best)) {
                        best = Some((found, approved));
                    }
                }
                Err(why) => {
                    let image = found.image.short();
                    let text = format!(
                        "no highest version is known here, and image {image}, which runs, is taken for none: {why}"
                    );
                    told.warn("verify", "mark-unknown", &text);
                }
            }
        }
        Ok(best)
    }

    /// Takes a version that runs for the mark; and where it is all that runs, and well, for what was proven last.
    fn take(&mut self, found: Found, Approved { release, verified }: Approved, told: &Told) {
        let text = format!(
            "no highest version is known here, and {} runs, signed ({}): it is taken for the highest version",
            release.tag, release.digest
        );
        told.warn("verify", "mark-taken", &text);
        let mark = release.clone();
        // What cannot be written holds for this run, and is found once more by the next one.
        self.kept(|desk| match found.everywhere {
            true => {
                let (evidence, at) = (verified.evidence().clone(), Timestamp::now());
                desk.history.prove(&desk.dir, Proven { release, image: found.image, evidence, at }, None)
            }
            false => desk.history.set_mark(&desk.dir, release),
        });
        self.host.marked(&self.app, &Marked { by: By::Companion, mark, previous: None });
    }
}

/// As which version an image counts that runs, by the first of its digests that verifies; or why it counts as none.
async fn version_of(
    settings: &Settings,
    registry: &impl verify::Registry,
    found: &Found,
) -> Result<Result<Approved, String>, Denied> {
    let mut why = "its signature names no version".to_owned();
    for digest in &found.digests {
        match verify::recognise(settings, registry, *digest).await {
            Ok(Some(approved)) => return Ok(Ok(approved)),
            Ok(None) => {}
            Err(denied) if denied.is_about_image() => why = explain::chain(&denied),
            Err(denied) => return Err(denied),
        }
    }
    Ok(Err(why))
}

fn is_newer(one: &Approved, other: &Approved) -> bool {
    matches!(order::compare(&one.release, &other.release, Timestamp::now()), Ok(Some(Ordering::Greater)))
}
