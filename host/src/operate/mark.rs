//! `tagship-host mark`: the highest version that was proven here, what follows from it, and its repair.
//!
//! What may follow a mark is `trust::judge`'s to rule; here it is put into words.

use jiff::Timestamp;
use tagship_core::{explain::Explain, reference::Tag, text};

use super::{rollback, table};
use crate::{
    answer::Progress,
    config::{Downgrade, Settings},
    desk::{Desk, Host},
    history::{History, Marked},
    report::Told,
    state_dir::StateError,
    trust::{Release, order},
    verify::{Approved, Denied},
};

/// A mark that was not set. On disk nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The version does not verify, or is below the floor.
    #[error("the mark stays: {tag} does not count")]
    Denied {
        /// The version.
        tag: Tag,
        /// Why not.
        source: Box<Denied>,
    },
    /// It cannot be written.
    #[error("the mark stays")]
    State(#[from] StateError),
}

impl Explain for MarkError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Denied { source, .. } => source.kind(),
            Self::State(source) => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { source, .. } => source.hint(),
            Self::State(source) => source.hint(),
        }
    }
}

/// Sets the mark to a version, raised or lowered, whose image is verified anew, as by a rollback to it. Returns what
/// became of it; none if it stood there already.
pub async fn set<H: Host>(desk: &mut Desk<'_, H>, settings: &Settings, tag: &Tag) -> Result<Option<Marked>, MarkError> {
    let told = Told::new(Progress::none());
    let now = Timestamp::now();
    let verified = match desk.history().of_tag(tag).cloned() {
        Some(proven) => rollback::proven_again(desk, settings, &proven, &told, now).await,
        None => rollback::from_registry(desk, settings, tag, now).await,
    };
    let denied = |source| MarkError::Denied { tag: tag.clone(), source: Box::new(source) };
    let Approved { release, .. } = verified.map_err(denied)?;
    Ok(desk.set_mark(release)?)
}

/// The mark and what follows from it, as a table.
pub fn show(history: &History, settings: &Settings) -> String {
    let trust = &history.trust;
    let named = |release: &Release| format!("{} ({})", release.tag, release.digest.short());
    let runs = trust.running().map_or("nothing that was proven here".into(), named);
    let held = match trust.is_held() {
        true => "yes: something else runs, and it is refused until a newer version",
        false => "no",
    };
    let rows = [
        ["app", settings.app.as_str()].map(str::to_owned),
        ["mark".to_owned(), trust.mark().map_or("none: nothing was proven here".into(), named)],
        ["runs".to_owned(), runs],
        ["held", held].map(str::to_owned),
        ["floor".to_owned(), settings.verify.floor.as_ref().map_or("none".into(), Tag::to_string)],
        ["accepts".to_owned(), accepted(history, settings)],
    ];
    let table = table::columns(&rows);
    table.lines().map(|line| text::escape(line) + "\n").collect()
}

/// What an ordinary request may ask for next.
fn accepted(history: &History, settings: &Settings) -> String {
    let (trust, verify) = (&history.trust, &settings.verify);
    let floor = verify.floor.as_ref();
    let from = |floor: &Tag| format!("signed versions from {floor} on");
    // The floor is above the mark, or binds instead of one.
    let binding = floor.filter(|floor| trust.mark().is_none_or(|mark| !order::at_least(&mark.tag, floor)));
    let (Some(mark), Downgrade::Refuse | Downgrade::MovingTag) = (trust.mark(), verify.downgrade) else {
        return floor.map_or("any signed version".into(), from);
    };
    let mut words = match binding {
        Some(floor) => from(floor),
        None if trust.is_held() => format!("signed versions above {}", mark.tag),
        None => format!("signed versions above {}, and this one again", mark.tag),
    };
    if let (Downgrade::MovingTag, Some(moving)) = (verify.downgrade, &settings.moving_tag) {
        words.push_str(&format!("; older ones where the registry's {moving} names them"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Signer, World, digest, image_of, settings, tag};
    use crate::{
        history::{By, Proven},
        state_dir::{StateDir, tests::fresh},
    };
    use tagship_core::{reference::Digest, signature::Evidence};

    struct Place {
        _temp: tempfile::TempDir,
        dir: StateDir,
        key: Signer,
        world: World,
        settings: Settings,
    }

    impl Place {
        /// A host where these were proven, one after the other. What was kept of their signatures does not count.
        fn after(versions: &[&str]) -> Self {
            let (temp, dir) = fresh();
            let key = Signer::new();
            let settings = settings(&key, temp.path());
            let place = Self { _temp: temp, dir, key, world: World::default(), settings };
            let mut history = place.history();
            for version in versions {
                let digest = place.world.release(&place.key, version);
                let key = Digest::of(b"key").hex().parse().unwrap();
                let evidence = Evidence::Layer { payload: String::new(), signature: String::new(), bundle: None, key };
                let release = Release { tag: tag(version), digest, created: None, commit: None, signed: true };
                let proven = Proven { release, image: image_of(digest), evidence, at: Timestamp::UNIX_EPOCH };
                history.prove(&place.dir, proven, None).unwrap();
            }
            place
        }

        fn history(&self) -> History {
            History::open(&self.dir).unwrap()
        }

        fn mark(&self) -> Option<String> {
            self.history().trust.mark().map(|mark| mark.tag.to_string())
        }

        async fn set(&self, version: &str) -> Result<Option<Marked>, MarkError> {
            let mut desk = Desk::open(&self.settings.app, self.dir.clone(), &self.world).unwrap();
            set(&mut desk, &self.settings, &tag(version)).await
        }

        fn shown(&self, row: &str) -> String {
            let shown = show(&self.history(), &self.settings);
            let line = shown.lines().find(|line| line.starts_with(row)).unwrap();
            line[row.len()..].trim().to_owned()
        }
    }

    #[tokio::test]
    async fn it_is_raised_and_lowered_to_what_verifies_and_that_is_told() {
        let place = Place::after(&["v0.1.0", "v0.2.0"]);
        place.world.release(&place.key, "v0.3.0");
        for (to, previous) in [("v0.3.0", "v0.2.0"), ("v0.1.0", "v0.3.0"), ("v0.2.0", "v0.1.0")] {
            let marked = place.set(to).await.unwrap().unwrap();
            assert_eq!((marked.mark.tag.as_str(), marked.previous.unwrap().tag.as_str()), (to, previous));
            assert_eq!(place.mark().as_deref(), Some(to));
            assert_eq!(place.history().trust.running().unwrap().tag, tag("v0.2.0"), "it runs as before");
        }
        let told: Vec<_> = place.world.state().marks.iter().map(|told| (told.by, told.mark.tag.to_string())).collect();
        let by = |version: &str| (By::Operator, version.to_owned());
        assert_eq!(told, [by("v0.3.0"), by("v0.1.0"), by("v0.2.0")]);
        assert_eq!(place.set("v0.2.0").await.unwrap(), None, "it is there already");
        assert_eq!(place.world.state().marks.len(), 3);
    }

    #[tokio::test]
    async fn where_the_state_was_lost_it_is_set_anew() {
        let place = Place::after(&[]);
        place.world.release(&place.key, "v0.2.0");
        let marked = place.set("v0.2.0").await.unwrap().unwrap();
        assert_eq!(marked.previous, None);
        let history = place.history();
        assert!(history.trust.is_held() && history.trust.is_annotated());
    }

    #[tokio::test]
    async fn what_does_not_verify_is_no_mark_and_nothing_is_changed_or_told() {
        let mut place = Place::after(&["v0.1.0", "v0.2.0"]);
        place.world.release(&Signer::new(), "v0.3.0");
        place.world.state().tags.insert(tag("v0.4.0"), digest("bare"));
        // Signed under another version than the registry's tag says.
        place.world.release(&place.key, "v0.5.0");
        place.world.state().tags.insert(tag("v9.9.9"), digest("v0.5.0"));
        let unnamed = place.key.layer(digest("unnamed"), &[]);
        place.world.state().signatures.insert(digest("unnamed"), vec![unnamed]);
        place.world.state().tags.insert(tag("v0.6.0"), digest("unnamed"));
        // Proven here; then its key was taken out of use.
        place.world.state().signatures.remove(&digest("v0.1.0"));
        place.settings.verify.floor = Some(tag("v0.1.5"));
        place.world.release(&place.key, "v0.1.4");
        place.world.release(&place.key, "nightly");
        for (version, kind) in [
            ("v0.3.0", "foreign-signature"),
            ("v0.4.0", "no-signature"),
            ("v9.9.9", "tag-mismatch"),
            ("v0.6.0", "annotations-missing"),
            ("v0.7.0", "no-such-tag"),
            ("v0.1.0", "malformed-signature"),
            ("v0.1.4", "below-floor"),
            ("nightly", "below-floor"),
        ] {
            let error = place.set(version).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{version}: {error:?}");
            assert!(error.to_string().contains(version) && error.hint().is_some(), "{version}");
        }
        place.world.state().registry_down = true;
        assert_eq!(place.set("v0.8.0").await.unwrap_err().kind(), "registry-error");
        assert_eq!(place.mark().as_deref(), Some("v0.2.0"));
        assert!(place.world.state().marks.is_empty());
    }

    #[tokio::test]
    async fn a_mark_that_cannot_be_written_is_not_told() {
        let place = Place::after(&["v0.1.0"]);
        place.world.release(&place.key, "v0.2.0");
        let mut desk = Desk::open(&place.settings.app, place.dir.clone(), &place.world).unwrap();
        std::fs::remove_file(place.dir.file("trust.json")).unwrap();
        std::fs::create_dir_all(place.dir.file("trust.json/full")).unwrap();
        let error = set(&mut desk, &place.settings, &tag("v0.2.0")).await.unwrap_err();
        assert_eq!(error.kind(), "state-io");
        assert!(place.world.state().marks.is_empty());
    }

    #[test]
    fn what_is_shown_says_what_is_accepted_next() {
        use Downgrade::{Allow, MovingTag, Refuse};
        for (proven, floor, downgrade, held, accepts) in [
            (&[][..], None, Refuse, "no", "any signed version"),
            (&[][..], Some("v0.2.0"), Refuse, "no", "signed versions from v0.2.0 on"),
            (&["v0.2.0"][..], None, Refuse, "no", "signed versions above v0.2.0, and this one again"),
            (&["v0.2.0"][..], Some("v0.1.0"), Refuse, "no", "signed versions above v0.2.0, and this one again"),
            (&["v0.2.0"][..], Some("v0.3.0"), Refuse, "no", "signed versions from v0.3.0 on"),
            (&["v0.2.0", "v0.1.0"][..], None, Refuse, "yes", "signed versions above v0.2.0"),
            (
                &["v0.2.0", "v0.1.0"][..],
                None,
                MovingTag,
                "yes",
                "signed versions above v0.2.0; older ones where the registry's stable names them",
            ),
            (&["v0.2.0"][..], Some("v0.1.0"), Allow, "no", "signed versions from v0.1.0 on"),
            (&["v0.2.0"][..], None, Allow, "no", "any signed version"),
        ] {
            let mut place = Place::after(proven);
            place.settings.verify.floor = floor.map(tag);
            place.settings.verify.downgrade = downgrade;
            let case = format!("{proven:?} {floor:?} {downgrade:?}");
            assert_eq!(place.shown("accepts"), accepts, "{case}");
            assert!(place.shown("held").starts_with(held), "{case}");
            assert_eq!(place.shown("floor"), floor.unwrap_or("none"), "{case}");
        }
        assert!(Place::after(&["v0.2.0", "v0.1.0"]).shown("mark").starts_with("v0.2.0 ("));
        assert_eq!(Place::after(&[]).shown("mark"), "none: nothing was proven here");
    }
}
