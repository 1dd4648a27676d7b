//! Which steps run, in which order, given what was asked for and what the registry holds. Pure.

use tagship_core::explain::Explain;
use tagship_core::reference::{Digest, ImageRef};

use crate::failure::Code;
use crate::inputs::{Form, Step};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The steps, in the order of the full form.
    pub steps: &'a [Step],
    /// What the host speaks.
    pub form: Form,
    /// Whether there is a moving tag.
    pub moving: bool,
    /// Build and push although the version tag exists.
    pub force: bool,
    /// Whether the host says that it runs this very version.
    pub runs: bool,
}

/// What the registry holds at the version tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// An image with a signature that counts.
    Verified,
    /// This commit's image, as this engine built it, without a signature: an earlier run stopped after its push. It is
    /// pushed once more, which proves what the registry's word alone does not: that all of it is this engine's.
    Pushed,
    /// An image without one, from elsewhere.
    Unverified {
        /// Its digest.
        digest: Digest,
        /// Why no signature counts.
        why: String,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in the order in which they run.
    pub steps: Vec<Step>,
    /// The image that the registry holds is released as it is, instead of a new one.
    pub reuse: bool,
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Somebody may have pulled what the version tag names.
    #[error("{image} exists in the registry as {digest}, and is not this release: {why}")]
    TagTaken {
        /// The version tag.
        image: Box<ImageRef>,
        /// What it names.
        digest: Digest,
        /// Why it does not count as this release.
        why: String,
    },
    /// The host has proven the version with the digest that would be replaced, and takes no other for it.
    #[error("the host runs {image} already, and would refuse another image of that version")]
    Runs {
        /// The version tag.
        image: Box<ImageRef>,
    },
}

impl PlanError {
    /// The exit code it leads to.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            PlanError::TagTaken { .. } => Code::Registry,
            PlanError::Runs { .. } => Code::Usage,
        }
    }
}

impl Explain for PlanError {
    fn kind(&self) -> &'static str {
        match self {
            PlanError::TagTaken { .. } => "tag-taken",
            PlanError::Runs { .. } => "version-runs",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PlanError::TagTaken { .. } => Some(
                "release under a new version; or, if that is your own image and only its signature is missing, go on \
                 with steps: sign,deploy,promote; or replace it with force: true"
                    .to_owned(),
            ),
            PlanError::Runs { .. } => {
                Some("release it under a new version; without force, what is there is deployed again".to_owned())
            }
        }
    }
}

/// Decides.
///
/// # Errors
/// When the version tag belongs to something else, or what is built anew could not be deployed.
pub fn plan(asked: Asked<'_>, image: &ImageRef, held: Held) -> Result<Plan, PlanError> {
    // What is built anew has another digest, since the time of its making is in it.
    if asked.runs && asked.force && [Step::Build, Step::Deploy].iter().all(|step| asked.steps.contains(step)) {
        return Err(PlanError::Runs { image: Box::new(image.clone()) });
    }
    let mut steps = asked.steps.to_vec();
    let makes_new = steps.contains(&Step::Build) || steps.contains(&Step::Push);
    let mut reuse = false;
    match held {
        _ if asked.force || !makes_new => {}
        Held::Nothing => {}
        Held::Verified => {
            reuse = true;
            steps.retain(|step| !matches!(step, Step::Build | Step::Push | Step::Sign));
        }
        Held::Pushed => {
            reuse = true;
            steps.retain(|step| *step != Step::Build);
        }
        // A build alone stays in the engine.
        Held::Unverified { .. } if !steps.contains(&Step::Push) => {}
        Held::Unverified { digest, why } => {
            return Err(PlanError::TagTaken { image: Box::new(image.clone()), digest, why });
        }
    }
    if !asked.moving {
        steps.retain(|step| *step != Step::Promote);
    }
    // A host that runs a shell script deploys what the moving tag names.
    if asked.form == Form::Plain
        && let [.., deploy @ Step::Deploy, promote @ Step::Promote] = steps.as_mut_slice()
    {
        std::mem::swap(deploy, promote);
    }
    Ok(Plan { steps, reuse })
}

#[cfg(test)]
mod tests {
    use super::Step::{Build, Deploy, Promote, Push, Sign};
    use super::*;

    fn image() -> ImageRef {
        ImageRef::tagged(&"registry.test/app".parse().expect("an image"), &"v1".parse().expect("a tag"))
    }

    fn unverified() -> Held {
        Held::Unverified { digest: Digest::of(b"x"), why: "no signature".to_owned() }
    }

    const ALL: &[Step] = &Step::ALL;

    /// Name, steps asked for, form, a moving tag, force, what is held; then steps planned, and whether it is reused.
    type Vector = (&'static str, &'static [Step], Form, bool, bool, Held, &'static [Step], bool);

    #[test]
    fn orders() {
        let vectors: &[Vector] = &[
            ("the full form", ALL, Form::Full, true, false, Held::Nothing, ALL, false),
            ("no moving tag", ALL, Form::Full, false, false, Held::Nothing, &[Build, Push, Sign, Deploy], false),
            (
                "the plain form",
                ALL,
                Form::Plain,
                true,
                false,
                Held::Nothing,
                &[Build, Push, Sign, Promote, Deploy],
                false,
            ),
            (
                "plain, no moving tag",
                ALL,
                Form::Plain,
                false,
                false,
                Held::Nothing,
                &[Build, Push, Sign, Deploy],
                false,
            ),
            ("released before", ALL, Form::Full, true, false, Held::Verified, &[Deploy, Promote], true),
            ("released before, plain", ALL, Form::Plain, true, false, Held::Verified, &[Promote, Deploy], true),
            ("pushed before", ALL, Form::Full, true, false, Held::Pushed, &[Push, Sign, Deploy, Promote], true),
            ("pushed before, forced", ALL, Form::Full, true, true, Held::Pushed, ALL, false),
            ("released before, forced", ALL, Form::Full, true, true, Held::Verified, ALL, false),
            ("taken, forced", ALL, Form::Full, true, true, unverified(), ALL, false),
            ("a build alone", &[Build], Form::Full, true, false, unverified(), &[Build], false),
            ("built before", &[Build], Form::Full, true, false, Held::Verified, &[], true),
            ("pushed and signed before", &[Build, Push], Form::Full, true, false, Held::Verified, &[], true),
            ("signing what is there", &[Sign], Form::Full, true, false, unverified(), &[Sign], false),
            ("signing again", &[Sign], Form::Full, true, false, Held::Verified, &[Sign], false),
            (
                "going on after a push",
                &[Sign, Deploy, Promote],
                Form::Full,
                true,
                false,
                unverified(),
                &[Sign, Deploy, Promote],
                false,
            ),
            ("deploying alone", &[Deploy], Form::Full, true, false, Held::Verified, &[Deploy], false),
            ("deploying alone, plain", &[Deploy], Form::Plain, true, false, Held::Verified, &[Deploy], false),
            ("both, plain", &[Deploy, Promote], Form::Plain, true, false, Held::Verified, &[Promote, Deploy], false),
            ("promoting alone", &[Promote], Form::Full, true, false, Held::Verified, &[Promote], false),
        ];
        for (name, steps, form, moving, force, held, expected, reuse) in vectors {
            let asked = Asked { steps, form: *form, moving: *moving, force: *force, runs: false };
            let plan = plan(asked, &image(), held.clone()).expect(name);
            assert_eq!((plan.steps.as_slice(), plan.reuse), (*expected, *reuse), "{name}");
        }
    }

    #[test]
    fn a_version_that_runs_is_not_built_anew_to_be_deployed() {
        let asked = Asked { steps: ALL, form: Form::Full, moving: true, force: true, runs: true };
        let error = plan(asked, &image(), Held::Verified).expect_err("it runs");
        assert!(matches!(error, PlanError::Runs { .. }), "{error}");
        assert_eq!(error.code(), Code::Usage);
        for (name, asked) in [
            ("not forced", Asked { force: false, ..asked }),
            ("another version", Asked { runs: false, ..asked }),
            ("not deployed", Asked { steps: &[Build, Push, Sign], ..asked }),
            ("perhaps the same image", Asked { steps: &[Push, Sign, Deploy], ..asked }),
        ] {
            assert!(plan(asked, &image(), Held::Verified).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_version_tag_is_never_replaced_unasked() {
        for steps in [ALL, &[Push], &[Build, Push], &[Push, Sign]] {
            let asked = Asked { steps, form: Form::Full, moving: true, force: false, runs: false };
            let error = plan(asked, &image(), unverified()).expect_err("taken");
            assert!(error.to_string().contains("registry.test/app:v1"), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("force")));
        }
    }
}
