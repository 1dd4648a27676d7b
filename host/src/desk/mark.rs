//! The mark, where it is not a deploy that changes it.
//!
//! Where the state was lost, every signed version would be a newer one. So before anything is judged, the mark is taken
//! from what runs, if that verifies: the order of versions begins there. A state from an old backup is as dangerous, and
//! shows by something else running than was proven last.

use std::{cmp::Ordering, collections::BTreeSet};

use futures_util::future::try_join_all;
use jiff::Timestamp;
use tagship_core::{explain, handoff::status::Status, reference::Digest, signature::Fingerprint};

use super::{Adapters, Desk, Host, words::in_the_way};
use crate::{
    config::{ServiceName, Settings},
    deploy::{self, Containers, Failure, ImageId, Store, Units},
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
    /// Every service runs it, and none of them is unwell. One that is stopped, and would be started with it, is as a
    /// deploy leaves it.
    everywhere: bool,
}

/// As which version what runs here counts, or why as none; and by whose key it is signed, as far as that can be told.
type Judged = (Result<Approved, String>, Option<Fingerprint>);

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
        let running = self.running(settings, |_| None).await.map_err(unknown)?;
        if !running.is_empty() {
            let verified = self.recognise(settings, running, told).await;
            let best = verified.map_err(|denied| unknown(Failure::of(&denied)))?;
            best.into_iter().for_each(|(found, approved)| self.take(found, approved, told));
        }
        self.kept(|desk| desk.history.recalled(&desk.dir));
        Ok(())
    }

    /// Where all services run, and well, another image than the state says, raises the mark to it if it verifies and is
    /// higher: the state is older than what runs. What is not everywhere, or not well, was not proven by anybody.
    /// Whether it was raised.
    ///
    /// The state may also say that nothing proven runs, since the operator went back to what was there before. Without a
    /// mark there is no order to be restored: what runs then was asked for its version once, and is not asked again.
    ///
    /// For what others ask for, and not for the operator, whose way back must not need the registry.
    pub async fn reconsider(&mut self, settings: &Settings, told: &Told) -> Result<bool, Status> {
        if self.history.trust.mark().is_none() {
            return Ok(false);
        }
        let unknown = |failure| in_the_way("it must be found out first what runs here", &failure);
        let known: Vec<_> = settings.all_services().map(|service| self.history.image_of(service)).collect();
        let expected = |service: &ServiceName| self.history.image_of(service);
        let mut running = self.running(settings, expected).await.map_err(unknown)?;
        running.retain(|found| found.everywhere && known.iter().any(|known| known.as_ref() != Some(&found.image)));
        if running.is_empty() {
            return Ok(false);
        }
        let verified = self.recognise(settings, running, told).await;
        let best = verified.map_err(|denied| unknown(Failure::of(&denied)))?;
        let mark = self.history.trust.mark();
        let higher = |of: &Release| mark.is_none_or(|mark| is_newer(of, mark));
        let Some((found, approved)) = best.filter(|(_, approved)| higher(&approved.release)) else { return Ok(false) };
        self.take(found, approved, told);
        Ok(true)
    }

    /// What the app's services run now, as far as it is of the app's repository; nothing where each of them runs what is
    /// expected of it, or does not run.
    async fn running(
        &self,
        settings: &Settings,
        expected: impl Fn(&ServiceName) -> Option<ImageId>,
    ) -> Result<Vec<Found>, Failure> {
        let Adapters { units, store, containers } = self.host.adapters(settings).await?;
        let one = async |service| {
            let container = containers.find(service).await.map_err(|error| Failure::of(&error).at(service))?;
            Ok::<_, Failure>((service, container.filter(|container| container.running)))
        };
        let running = try_join_all(settings.all_services().map(one)).await?;
        let runs: Vec<_> = running.iter().filter_map(|(service, runs)| Some((*service, runs.as_ref()?))).collect();
        if runs.iter().all(|(service, container)| expected(service).as_ref() == Some(&container.image)) {
            return Ok(Vec::new());
        }
        // What a service that does not run would be started with, if it is stopped on purpose.
        let rests = async |service| {
            let unit = units.inspect(service).await.map_err(|error| Failure::of(&error).at(service))?;
            if unit.active != "inactive" {
                return Ok(None);
            }
            let name = deploy::local_name(settings, service)?;
            store.resolve(&name).await.map_err(|error| Failure::of(&error).at(service))
        };
        let resting = running.iter().filter(|(_, runs)| runs.is_none()).map(|(service, _)| rests(service));
        let resting: Vec<Option<ImageId>> = try_join_all(resting).await?;
        let mut all = Vec::new();
        for image in runs.iter().map(|(_, container)| &container.image).collect::<BTreeSet<_>>() {
            let digests = store.digests(image, &settings.image).await.map_err(|error| Failure::of(&error))?;
            let everywhere = runs.iter().all(|(_, runs)| runs.image == *image && runs.health.is_well())
                && resting.iter().all(|rests| rests.as_ref() == Some(image));
            all.extend((!digests.is_empty()).then(|| Found { image: image.clone(), digests, everywhere }));
        }
        Ok(all)
    }

    /// The highest version among what runs, of those that verify. Whose keys signed what runs is remembered, for the day
    /// that one is revoked, or because one is.
    async fn recognise(
        &mut self,
        settings: &Settings,
        running: Vec<Found>,
        told: &Told,
    ) -> Result<Option<(Found, Approved)>, Denied> {
        let registry = self.host.registry(settings).await?;
        let mut best: Option<(Found, Approved)> = None;
        for found in running {
            let (version, key) = version_of(settings, &registry, &found).await?;
            if let Some(key) = key {
                self.kept(|desk| desk.history.found(&desk.dir, found.image.clone(), key));
            }
            match version {
                Ok(approved) => {
                    if best.as_ref().is_none_or(|(_, best)| is_newer(&approved.release, &best.release)) {
                        best = Some((found, approved));
                    }
                }
                Err(why) => {
                    let image = found.image.short();
                    let text =
                        format!("image {image}, which runs and was not proven here, is taken for no version: {why}");
                    told.warn("verify", "mark-unknown", &text);
                }
            }
        }
        Ok(best)
    }

    /// Takes a version that runs for the mark; and where it is all that runs, and well, for what was proven last.
    fn take(&mut self, found: Found, Approved { release, verified }: Approved, told: &Told) {
        let known = match self.history.trust.mark() {
            Some(mark) => format!("what is known here ends with {}", mark.tag),
            None => "no highest version is known here".to_owned(),
        };
        let (tag, digest) = (&release.tag, release.digest);
        let text = format!("{known}, and {tag} runs, signed ({digest}): it is taken for the highest version");
        told.warn("verify", "mark-taken", &text);
        let (mark, previous) = (release.clone(), self.history.trust.mark().cloned());
        // What cannot be written holds for this run, and is found once more by the next one.
        self.kept(|desk| match found.everywhere {
            true => {
                let (evidence, at) = (verified.evidence().clone(), Timestamp::now());
                desk.history.prove(&desk.dir, Proven { release, image: found.image, evidence, at }, None)
            }
            false => desk.history.set_mark(&desk.dir, release),
        });
        self.host.marked(&self.app, &Marked { by: By::Companion, mark, previous });
    }
}

/// As which version an image counts that runs, by the first of its digests that verifies; or why it counts as none.
async fn version_of(settings: &Settings, registry: &impl verify::Registry, found: &Found) -> Result<Judged, Denied> {
    let mut why = "its signature names no version".to_owned();
    let mut key = None;
    for digest in &found.digests {
        match verify::recognise(settings, registry, *digest).await {
            Ok((by, Some(approved))) => return Ok((Ok(approved), Some(by))),
            Ok((by, None)) => key = Some(by),
            Err(denied) if denied.is_about_image() => {
                why = explain::chain(&denied);
                // A key that counts has the last word on an image that another one signed as well.
                if key.is_none() {
                    key = verify::signed_by_revoked(settings, registry, *digest).await?;
                }
            }
            Err(denied) => return Err(denied),
        }
    }
    Ok((Err(why), key))
}

fn is_newer(one: &Release, other: &Release) -> bool {
    matches!(order::compare(one, other, Timestamp::now()), Ok(Some(Ordering::Greater)))
}
