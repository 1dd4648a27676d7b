//! The proof that Podman enforces the signature: two pulls, before anything is written and once more after it.
//!
//! How a pull is done is the [`Puller`]'s.

use std::{future::Future, path::Path};

use tagship_core::reference::{Digest, ImageRef, Repository, Tag};

use super::{
    PolicyError,
    files::ContainersPlaces,
    judge::{self, Pull},
    plan::Plan,
    write,
};
use crate::report::{self, Urgency};

/// Podman, as far as the check needs it. What it pulls must be seen by nobody.
pub(super) trait Puller {
    /// Pulls an image as Podman does for a user with this home.
    fn pull(&self, home: &Path, image: &str) -> impl Future<Output = Result<Pull, PolicyError>>;
}

/// The two images to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    signed: String,
    unsigned: String,
    /// What the signed one is, for people.
    what: String,
}

impl Probe {
    /// A signed image of the repository, and one beside it that is not: the manifest that holds the first one's
    /// signatures. It has none of its own, and needs nobody who may push. It could not run, but that is found out only
    /// after the policy was asked.
    pub(super) fn of(repository: &Repository, digest: &Digest, what: String) -> Self {
        let signed = ImageRef::pinned(repository, digest).to_string();
        Self { signed, unsigned: format!("{repository}:sha256-{}.sig", digest.hex()), what }
    }

    /// What serves best: what runs here, or what the moving tag names.
    pub(super) fn running(repository: &Repository, digest: &Digest, tag: &Tag) -> Self {
        Self::of(repository, digest, format!("{tag}, proven here"))
    }
}

/// Requires that Podman with this home takes the one and refuses the other for want of a signature.
pub(super) async fn check(podman: &impl Puller, home: &Path, probe: &Probe) -> Result<(), PolicyError> {
    let pulled = podman.pull(home, &probe.signed).await?;
    judge::judge_signed(&probe.signed, &pulled)?;
    let refused = podman.pull(home, &probe.unsigned).await?;
    Ok(judge::judge((&probe.signed, &pulled), (&probe.unsigned, &refused))?)
}

/// Checks what would be written, in a home that is staged here; what is there already, if nothing would.
pub(super) async fn rehearse(
    podman: &impl Puller,
    (places, plan): (&ContainersPlaces, &Plan),
    stage: &Path,
    probe: &Probe,
) -> Result<(), PolicyError> {
    report::line(Urgency::Notice, &format!("checking with {} ({})", probe.signed, probe.what));
    let home = match plan.is_none() {
        true => &places.home,
        false => {
            places.stage(plan, stage)?;
            stage
        }
    };
    check(podman, home, probe).await.map_err(|error| match error {
        PolicyError::Unproven(unproven) => PolicyError::Unwritten(unproven),
        error => error,
    })?;
    report::line(Urgency::Notice, "podman pulls it: its signature is what the policy asks for");
    report::line(Urgency::Notice, &format!("podman refuses {}: it has no signature", probe.unsigned));
    Ok(())
}

/// Writes, and checks what Podman does with what was written; puts all of it back if that is not what it should.
pub(super) async fn write(
    podman: &impl Puller,
    (places, plan): (&ContainersPlaces, &Plan),
    probe: &Probe,
) -> Result<(), PolicyError> {
    let undo = write::write(places, plan)?;
    let Err(error) = check(podman, &places.home, probe).await else { return Ok(()) };
    match undo.revert() {
        Ok(()) => Err(PolicyError::Restored(Box::new(error))),
        Err(left) => Err(PolicyError::NotRestored { why: Box::new(error), left }),
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque, fs};

    use tagship_core::explain::{Explain, chain};

    use super::{super::requirement::tests::requirement, *};

    /// A Podman that answers as it is told, and notes what it was asked.
    struct Told {
        answers: RefCell<VecDeque<Pull>>,
        asked: RefCell<Vec<(bool, String)>>,
        home: std::path::PathBuf,
    }

    impl Puller for Told {
        async fn pull(&self, home: &Path, image: &str) -> Result<Pull, PolicyError> {
            self.asked.borrow_mut().push((home == self.home, image.to_owned()));
            self.answers.borrow_mut().pop_front().ok_or(PolicyError::Interrupted)
        }
    }

    struct Scene {
        temp: tempfile::TempDir,
        places: ContainersPlaces,
        plan: Plan,
        probe: Probe,
    }

    impl Scene {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let places =
                ContainersPlaces { home: temp.path().join("home"), system: temp.path().join("etc"), is_root: false };
            fs::create_dir_all(places.home.join(".config/containers")).unwrap();
            let rule = requirement("git.example.org/chris/app", &["/etc/app.pub"]);
            let plan = Plan::of(&places.look().unwrap(), &rule).unwrap();
            let digest = Digest::of(b"image");
            let probe = Probe::of(&rule.repository, &digest, "v1".into());
            Self { temp, places, plan, probe }
        }

        fn podman(&self, answers: &[Pull]) -> Told {
            Told {
                answers: RefCell::new(answers.iter().cloned().collect()),
                asked: RefCell::default(),
                home: self.places.home.clone(),
            }
        }

        fn is_untouched(&self) -> bool {
            fs::read_dir(self.places.home.join(".config/containers")).unwrap().next().is_none()
        }
    }

    #[tokio::test]
    async fn a_rehearsal_reads_the_staged_files_and_writes_nothing() {
        let scene = Scene::new();
        let podman = scene.podman(&[Pull::Done, Pull::NoSignature]);
        let stage = scene.temp.path().join("stage");
        rehearse(&podman, (&scene.places, &scene.plan), &stage, &scene.probe).await.unwrap();
        let asked = podman.asked.into_inner();
        assert_eq!(asked.iter().map(|(real, _)| *real).collect::<Vec<_>>(), [false, false]);
        assert!(asked[0].1.contains("app@sha256:") && asked[1].1.ends_with(".sig"), "{asked:?}");
        assert!(stage.join(".config/containers/policy.json").exists() && scene.is_untouched());
    }

    #[tokio::test]
    async fn a_signed_image_that_is_refused_ends_it_at_once() {
        let scene = Scene::new();
        let podman = scene.podman(&[Pull::Rejected("invalid signature".into()), Pull::NoSignature]);
        let stage = scene.temp.path().join("stage");
        let error = rehearse(&podman, (&scene.places, &scene.plan), &stage, &scene.probe).await.unwrap_err();
        assert_eq!(error.kind(), "policy-refuses-signed");
        assert!(error.to_string().contains("nothing was written"), "{error}");
        assert_eq!(podman.asked.borrow().len(), 1);
        assert!(scene.is_untouched());
    }

    #[tokio::test]
    async fn what_is_written_stays_if_it_proves_itself() {
        let scene = Scene::new();
        let podman = scene.podman(&[Pull::Done, Pull::NoSignature]);
        write(&podman, (&scene.places, &scene.plan), &scene.probe).await.unwrap();
        assert!(podman.asked.borrow().iter().all(|(real, _)| *real));
        assert_eq!(scene.places.look().unwrap().policy.unwrap().1, scene.plan.policy.text);
    }

    #[tokio::test]
    async fn what_does_not_prove_itself_is_taken_back() {
        for answers in [
            vec![Pull::NoSignature],
            vec![Pull::Disabled],
            vec![Pull::Unreadable("x".into())],
            vec![Pull::Unreached("x".into())],
            vec![Pull::Done, Pull::Done],
            vec![Pull::Done, Pull::Later("writing blob".into())],
            vec![Pull::Done, Pull::Rejected("x".into())],
            // No answer: somebody interrupts.
            vec![],
            vec![Pull::Done],
        ] {
            let scene = Scene::new();
            let error = write(&scene.podman(&answers), (&scene.places, &scene.plan), &scene.probe).await.unwrap_err();
            assert!(matches!(error, PolicyError::Restored(_)), "{answers:?}: {error}");
            assert!(scene.is_untouched(), "{answers:?}");
            assert!(!chain(&error).contains("nothing was written"), "{error}");
            assert!(!error.is_configuration());
        }
    }

    /// Somebody edits policy.json while the second check runs.
    struct Meddled<'a>(&'a Scene);

    impl Puller for Meddled<'_> {
        async fn pull(&self, home: &Path, _image: &str) -> Result<Pull, PolicyError> {
            fs::write(home.join(".config/containers/policy.json"), "{}").unwrap();
            assert_eq!(home, self.0.places.home);
            Ok(Pull::Rejected("invalid signature".into()))
        }
    }

    #[tokio::test]
    async fn what_somebody_changed_during_the_check_is_left_and_named() {
        let scene = Scene::new();
        let error = write(&Meddled(&scene), (&scene.places, &scene.plan), &scene.probe).await.unwrap_err();
        assert_eq!(error.kind(), "policy-half-written");
        let text = chain(&error);
        assert!(text.contains("policy.json: somebody changed it") && text.ends_with("invalid signature"), "{text}");
        let own = scene.places.home.join(".config/containers");
        assert_eq!(fs::read_to_string(own.join("policy.json")).unwrap(), "{}");
        assert!(!own.join("registries.d").exists(), "the rest is put back");
    }
}
