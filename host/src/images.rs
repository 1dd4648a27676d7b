//! The local image store: pull by digest, local names, and which older images go.
//!
//! It does what it is given leave for; who gives leave is `deploy`'s business.

mod error;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    Docker,
    errors::Error as EngineError,
    models::{ImageInspect, ImageSummary},
    query_parameters::{
        CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
    },
};
use futures_util::StreamExt;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::Deserialize;
use tagship_core::{
    reference::{Digest, ImageRef, Repository},
    signature::Verified,
};
use tokio::task::spawn_blocking;

pub use error::ImagesError;

use crate::{
    config::{App, Settings},
    deploy::{ImageId, Leave, LocalName, Pulled, Room, Store},
    engine,
};

/// The time in a kept image's name.
const KEPT_TIME: &str = "%Y%m%dT%H%M%S%.3fZ";

/// The engine's image store, as one app uses it.
#[derive(Debug, Clone)]
pub struct LocalStore {
    docker: Docker,
    /// Where Podman is asked what only it knows.
    socket: PathBuf,
    app: App,
    /// `localhost/tagship/APP`: each image that was ever put in place has a name of its own there, so that no pruning of
    /// unnamed images takes it away, and so that its turn to go is known.
    kept: String,
}

impl LocalStore {
    /// The store behind this engine, as this app uses it.
    pub fn new(docker: Docker, socket: PathBuf, app: &App) -> Self {
        Self { docker, socket, app: app.clone(), kept: format!("localhost/tagship/{app}") }
    }

    /// After a deploy: `running` counts as the newest. Of the images kept for this app all but the newest `keep_images`
    /// go, and so does what was pulled and did not prove itself, as far as they have no other use. Returns what went.
    ///
    /// The latter stays while `others_at_work`: two apps may be deployed from one repository, and what one of them has
    /// just pulled has no other name yet. Asked once the images are listed: what was pulled later is not among them.
    pub async fn tidy(
        &self,
        settings: &Settings,
        running: &ImageId,
        others_at_work: impl FnOnce() -> bool,
    ) -> Result<Vec<ImageId>, ImagesError> {
        self.keep(running).await?;
        let images = self.list().await?;
        let mut going = BTreeSet::new();
        if !others_at_work() {
            let failed = images.iter().filter(|image| is_only_pulled(image, settings)).map(|image| image.id.clone());
            going.extend(failed.filter_map(|id| ImageId::try_from(id).ok()));
        }
        going.extend(surplus(self.kept_names(images), settings.keep_images));
        let mut gone = Vec::new();
        for image in going {
            if self.remove(settings, &image).await? {
                gone.push(image);
            }
        }
        Ok(gone)
    }

    /// Removes an image that only this app's repository and this program have names for. Not by force: what a container
    /// uses stays, and so does what somebody else has a name for, but for our name.
    async fn remove(&self, settings: &Settings, image: &ImageId) -> Result<bool, ImagesError> {
        let Some(found) = self.inspect(&by_id(image)).await? else { return Ok(false) };
        let (names, ours) = (found.repo_tags.unwrap_or_default(), format!("{}:", self.kept));
        let foreign = names.iter().any(|name| !name.starts_with(&ours) && !is_of(name, settings));
        for name in names.iter().filter(|name| name.starts_with(&ours) || !foreign) {
            self.untag(name).await?;
        }
        if foreign || self.inspect(&by_id(image)).await?.is_none() {
            return Ok(!foreign);
        }
        match self.delete(&by_id(image)).await {
            Ok(()) => Ok(true),
            Err(EngineError::DockerResponseServerError { status_code: 409, .. }) => Ok(false),
            Err(error) => Err(failed("remove", image.as_str(), &error)),
        }
    }

    async fn list(&self) -> Result<Vec<ImageSummary>, ImagesError> {
        let options = ListImagesOptionsBuilder::default().all(false).build();
        let listed = engine::within(engine::LOOK, self.docker.list_images(Some(options))).await;
        listed.map_err(|error| failed("list", "the images", &error))
    }

    /// The names under which images are kept, and whose they are. A name begins with the time, so their order is that
    /// of the deploys.
    fn kept_names(&self, images: Vec<ImageSummary>) -> BTreeMap<String, ImageId> {
        let ours = format!("{}:", self.kept);
        let names = images.into_iter().filter_map(|image| {
            let id = ImageId::try_from(image.id).ok()?;
            let names = image.repo_tags.into_iter().filter(|name| name.starts_with(&ours));
            Some(names.map(|name| (name, id.clone())).collect::<Vec<_>>())
        });
        names.flatten().collect()
    }

    async fn inspect(&self, name: &str) -> Result<Option<ImageInspect>, ImagesError> {
        match engine::within(engine::LOOK, self.docker.inspect_image(name)).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if engine::is_absent(&error) => Ok(None),
            Err(error) => Err(failed("inspect", name, &error)),
        }
    }

    async fn tag(&self, image: &ImageId, repository: &str, tag: &str) -> Result<(), ImagesError> {
        let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        let tagged = engine::within(engine::LOOK, self.docker.tag_image(&by_id(image), Some(options))).await;
        tagged.map_err(|error| failed("name an image", &format!("{repository}:{tag}"), &error))
    }

    /// Takes one name away; the image stays while it has another.
    async fn untag(&self, name: &str) -> Result<(), ImagesError> {
        match self.delete(name).await {
            Ok(()) => Ok(()),
            Err(error) if engine::is_absent(&error) => Ok(()),
            // Its last name, and a container uses it: it stays, named.
            Err(EngineError::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
            Err(error) => Err(failed("untag", name, &error)),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveImageOptionsBuilder::default().force(false).build();
        engine::within(engine::LOOK, self.docker.remove_image(name, Some(options), None)).await.map(drop)
    }

    /// The image, if the store has it under exactly this digest.
    async fn pulled(&self, verified: &Verified, reference: &str) -> Result<Option<Pulled>, ImagesError> {
        let Some(found) = self.inspect(reference).await? else { return Ok(None) };
        let digest = verified.digest().to_string();
        let named = found.repo_digests.iter().flatten().any(|name| name.ends_with(&format!("@{digest}")));
        let image = found.id.and_then(|id| ImageId::try_from(id).ok()).filter(|_| named);
        let test = found.config.and_then(|config| config.healthcheck).and_then(|check| check.test).unwrap_or_default();
        let healthcheck = test.first().is_some_and(|first| first != "NONE");
        Ok(image.map(|image| Pulled::new(verified, image, healthcheck)))
    }
}

/// Of what Podman tells about itself, where a pull puts its bytes.
#[derive(Deserialize)]
struct Info {
    store: Places,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Places {
    graph_root: PathBuf,
    /// Podman 4.2 and newer.
    image_copy_tmp_dir: Option<PathBuf>,
}

impl Store for LocalStore {
    type Error = ImagesError;

    async fn rooms(&self) -> Result<Vec<Room>, ImagesError> {
        let answer = engine::get(&self.socket, "/v4.0.0/libpod/info", engine::LOOK).await;
        let failed =
            |words: String| ImagesError::Unreachable { action: "ask for", name: "its directories".into(), words };
        let (status, body) = answer.map_err(|error| failed(error.to_string()))?;
        // Another engine than Podman does not say.
        let Some(info) = serde_json::from_slice::<Info>(&body).ok().filter(|_| status == 200) else {
            return Ok(Vec::new());
        };
        let Places { graph_root, image_copy_tmp_dir } = info.store;
        let places = [Some(graph_root), image_copy_tmp_dir].into_iter().flatten();
        // Looking at a file system can wait for its disk.
        let rooms = spawn_blocking(|| places.filter_map(|place| room(&place)).collect());
        Ok(rooms.await.unwrap_or_default())
    }

    async fn layers(&self) -> Result<BTreeSet<Digest>, ImagesError> {
        let mut layers = BTreeSet::new();
        for image in self.list().await? {
            let found = self.inspect(&image.id).await?;
            let unpacked = found.and_then(|found| found.root_fs).and_then(|root| root.layers).unwrap_or_default();
            layers.extend(unpacked.iter().filter_map(|layer| layer.parse::<Digest>().ok()));
        }
        Ok(layers)
    }

    async fn pull(&self, verified: &Verified, progress: &(dyn Fn(&str) + Sync)) -> Result<Pulled, ImagesError> {
        let reference = ImageRef::pinned(verified.repository(), &verified.digest()).to_string();
        if let Some(pulled) = self.pulled(verified, &reference).await? {
            return Ok(pulled);
        }
        // Without a credential header the engine reads the user's own auth.json, as `podman pull` does.
        let options = CreateImageOptionsBuilder::default().from_image(&reference).build();
        let mut fetched = BTreeSet::new();
        let mut lines = self.docker.create_image(Some(options), None, None);
        while let Some(line) = lines.next().await {
            let failed = |words| ImagesError::Pull { app: self.app.clone(), reference: reference.clone(), words };
            let line = line.map_err(|error| failed(engine::words(&error)))?;
            if let Some(detail) = line.error_detail {
                return Err(failed(detail.message.unwrap_or_else(|| "the engine does not say why".into())));
            }
            // Podman tells of each layer's begin and end, twice of some ends, and of no bytes.
            if let (Some("Download complete"), Some(layer)) = (line.status.as_deref(), line.id)
                && fetched.insert(layer.clone())
            {
                progress(&format!("fetched {layer}"));
            }
        }
        self.pulled(verified, &reference).await?.ok_or(ImagesError::Other { reference })
    }

    async fn resolve(&self, name: &LocalName) -> Result<Option<ImageId>, ImagesError> {
        let found = self.inspect(&name.to_string()).await?;
        Ok(found.and_then(|found| found.id).and_then(|id| ImageId::try_from(id).ok()))
    }

    async fn has(&self, image: &ImageId) -> Result<bool, ImagesError> {
        Ok(self.inspect(&by_id(image)).await?.is_some())
    }

    async fn digests(&self, image: &ImageId, of: &Repository) -> Result<Vec<Digest>, ImagesError> {
        let found = self.inspect(&by_id(image)).await?;
        let names = found.and_then(|found| found.repo_digests).unwrap_or_default();
        Ok(digests(&names, of))
    }

    async fn keep(&self, image: &ImageId) -> Result<(), ImagesError> {
        let (kept, older) = (&self.kept, self.kept_names(self.list().await?));
        let name = kept_tag(after(&older, kept, Timestamp::now()), image);
        self.tag(image, kept, &name).await?;
        let name = format!("{kept}:{name}");
        for older in older.iter().filter(|(older, of)| **older != name && *of == image).map(|(older, _)| older) {
            self.untag(older).await?;
        }
        Ok(())
    }

    async fn place(&self, leave: Leave<'_>, name: &LocalName) -> Result<(), ImagesError> {
        self.tag(leave.image(), &name.repository.to_string(), name.tag.as_str()).await
    }

    async fn forget(&self, name: &LocalName) -> Result<(), ImagesError> {
        self.untag(&name.to_string()).await
    }
}

/// How much this user may still write there; none where that cannot be found out.
fn room(directory: &Path) -> Option<Room> {
    let there = rustix::fs::stat(directory).ok()?;
    let system = rustix::fs::statvfs(directory).ok()?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    Some(Room { directory: directory.to_owned(), device: there.st_dev, free })
}

/// The name is of the app's own repository, by tag or by digest.
fn is_of(name: &str, settings: &Settings) -> bool {
    name.strip_prefix(&settings.image.to_string()).is_some_and(|rest| rest.starts_with([':', '@']))
}

/// How the engine is asked for an image. Of 64 bare digits that it has no image for Podman says that they are no name
/// (500, seen with 5.4); with the algorithm before them, that there is no such image (404).
fn by_id(image: &ImageId) -> String {
    format!("sha256:{}", image.as_str())
}

/// Of an image's names with a digest, the digests of those in this repository; each once.
fn digests(names: &[String], of: &Repository) -> Vec<Digest> {
    let digest = |name: &String| name.strip_prefix(&of.to_string())?.strip_prefix('@')?.parse().ok();
    names.iter().filter_map(digest).collect::<BTreeSet<_>>().into_iter().collect()
}

/// It was pulled by digest from the app's repository, and nothing else names it: no deploy of it was proven.
fn is_only_pulled(image: &ImageSummary, settings: &Settings) -> bool {
    // Podman lists a digest among the tags, too.
    let mut names =
        image.repo_tags.iter().chain(&image.repo_digests).filter(|name| *name != "<none>:<none>").peekable();
    names.peek().is_some() && names.all(|name| name.contains('@') && is_of(name, settings))
}

/// `20260102T030405.678Z-0123456789ab`: sorts by time.
fn kept_tag(now: Timestamp, image: &ImageId) -> String {
    format!("{}-{}", now.strftime(KEPT_TIME), image.short())
}

/// Now, or a moment after the newest of these names where a clock that went back since would put the new one before it.
fn after(names: &BTreeMap<String, ImageId>, kept: &str, now: Timestamp) -> Timestamp {
    let newest = names.keys().filter_map(|name| {
        let (time, _) = name.strip_prefix(kept)?.strip_prefix(':')?.split_once('-')?;
        TimeZone::UTC.to_timestamp(DateTime::strptime(KEPT_TIME, time).ok()?).ok()
    });
    let next = newest.max().and_then(|newest| newest.checked_add(Duration::from_millis(1)).ok());
    next.map_or(now, |next| next.max(now))
}

/// All images but the newest ones; an image counts by its newest name.
fn surplus(names: BTreeMap<String, ImageId>, keep: usize) -> Vec<ImageId> {
    let mut newest_first: Vec<ImageId> = Vec::new();
    for image in names.into_values().rev() {
        if !newest_first.contains(&image) {
            newest_first.push(image);
        }
    }
    newest_first.split_off(keep.min(newest_first.len()))
}

fn failed(action: &'static str, name: &str, error: &EngineError) -> ImagesError {
    let (name, words) = (name.into(), engine::words(error));
    match engine::is_unreachable(error) {
        true => ImagesError::Unreachable { action, name, words },
        false => ImagesError::Engine { action, name, words },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> ImageId {
        digit.to_string().repeat(64).try_into().unwrap()
    }

    fn names(list: &[(&str, char)]) -> BTreeMap<String, ImageId> {
        list.iter().map(|(name, digit)| ((*name).to_owned(), id(*digit))).collect()
    }

    #[test]
    fn the_newest_stay() {
        let names = names(&[("20260101T000000Z-a", 'a'), ("20260103T000000Z-c", 'c'), ("20260102T000000Z-b", 'b')]);
        assert_eq!(surplus(names.clone(), 2), [id('a')]);
        assert_eq!(surplus(names.clone(), 0), [id('c'), id('b'), id('a')]);
        assert_eq!(surplus(names, 7), []);
    }

    #[test]
    fn an_image_counts_by_its_newest_name() {
        let names = names(&[("20260101T000000Z-a", 'a'), ("20260102T000000Z-b", 'b'), ("20260103T000000Z-a", 'a')]);
        assert_eq!(surplus(names, 1), [id('b')]);
    }

    #[test]
    fn kept_names_sort_by_time_and_are_tags() {
        let at = |second| kept_tag(Timestamp::from_second(second).unwrap(), &id('a'));
        assert_eq!(at(0), "19700101T000000.000Z-aaaaaaaaaaaa");
        assert!(at(1_700_000_000) < at(1_700_000_001));
        assert!(at(0).parse::<tagship_core::reference::Tag>().is_ok());
    }

    #[test]
    fn a_clock_that_went_back_does_not_change_the_order() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let kept = "localhost/tagship/app";
        let older: BTreeMap<String, ImageId> =
            [(format!("{kept}:{}", kept_tag(at(2000), &id('a'))), id('a')), (format!("{kept}:by-hand"), id('c'))]
                .into();
        for now in [at(1000), at(2000), at(3000)] {
            let name = format!("{kept}:{}", kept_tag(after(&older, kept, now), &id('b')));
            let names = older.clone().into_iter().chain([(name, id('b'))]).filter(|(_, of)| *of != id('c'));
            assert_eq!(surplus(names.collect(), 1), [id('a')], "{now}");
        }
        assert_eq!(after(&older, kept, at(3000)), at(3000));
        // No time is later than the last one that a name can hold.
        let last = [(format!("{kept}:99991231T235959.999Z-{}", id('a').short()), id('a'))].into();
        assert!(after(&last, kept, at(1000)) >= at(1000));
    }

    #[test]
    fn only_digests_of_the_repository_itself_are_its() {
        let digest = Digest::of(b"image");
        let of = "git.example.org/chris/app".parse().unwrap();
        for (name, known) in [
            (format!("git.example.org/chris/app@{digest}"), true),
            (format!("git.example.org/chris/app2@{digest}"), false),
            (format!("git.example.org/chris/app/web@{digest}"), false),
            (format!("localhost/git.example.org/chris/app@{digest}"), false),
            (format!("git.example.org/chris/app:v1@{digest}"), false),
            ("git.example.org/chris/app:v1".to_owned(), false),
            ("git.example.org/chris/app@sha256:12".to_owned(), false),
            (digest.to_string(), false),
            (String::new(), false),
        ] {
            assert_eq!(digests(&[name.clone(), name.clone()], &of), vec![digest; usize::from(known)], "{name}");
        }
    }
}
