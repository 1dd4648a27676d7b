//! Why Podman's policy could not be made, written or proven, and what to try.

use std::{
    io,
    path::{Path, PathBuf},
};

use tagship_core::{explain::Explain, reference::Repository};

use super::{attachments, document, files, judge::Unproven, version::Version};
use crate::{config::shell_word, report, verify::Denied};

/// What went wrong. Whatever it is, the files are as they were, but for [`PolicyError::NotRestored`] and
/// [`PolicyError::Clean`].
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file or directory of Podman's cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A link at a place that is to be written leads nowhere.
    #[error("{path} is a link to {to}, which is not there")]
    Dangling {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        to: PathBuf,
    },
    /// policy.json has another form than Podman's.
    #[error("cannot add to {path}")]
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: document::Fault,
    },
    /// registries.d has another form than Podman's.
    #[error("cannot add to {path}")]
    Registries {
        /// The directory.
        path: PathBuf,
        /// What is wrong in it.
        #[source]
        source: attachments::Fault,
    },
    /// A file changed between being read and being written.
    #[error("{path} has changed since it was read")]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The difference could not be shown, so nothing was written.
    #[error(transparent)]
    Unshown(#[from] report::Unwritten),
    /// A file that nobody is to write, not even its owner.
    #[error("{path} is read-only")]
    ReadOnly {
        /// Which.
        path: PathBuf,
    },
    /// There is no image that a check could be made with.
    #[error("there is no image of {image} to check the policy with: none was proven here, and no moving tag names one")]
    NothingSigned {
        /// The repository.
        image: Repository,
    },
    /// The registry could not be asked for an image to check with.
    #[error("cannot find an image to check the policy with")]
    Registry(#[source] Box<Denied>),
    /// The check needs room of its own.
    #[error("cannot prepare the check in {path}")]
    Stage {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Podman cannot be run.
    #[error("cannot run podman")]
    Run(#[source] io::Error),
    /// Podman does not say where its images are, or which version it is.
    #[error("podman {question} says nothing that can be used: {words}")]
    Info {
        /// What it was asked.
        question: &'static str,
        /// Its words.
        words: String,
    },
    /// This Podman does not read such a rule, or refuses everything under it.
    #[error("Podman {is} is too old for this policy, which needs {least} or later")]
    TooOld {
        /// Its version.
        is: Version,
        /// The first that serves.
        least: Version,
    },
    /// What the check made is still there.
    #[error("cannot remove {path}, which the check made")]
    Clean {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A pull that does not end.
    #[error("podman did not end its pull of {image} within {minutes} minutes")]
    Endless {
        /// Of what.
        image: String,
        /// How long it was given.
        minutes: u64,
    },
    /// Somebody wants the program to end.
    #[error("interrupted")]
    Interrupted,
    /// Podman does not do with the files what it should.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// The files did not prove themselves where nobody else sees them, so they were never written.
    #[error("the check failed, and nothing was written")]
    Unwritten(#[source] Unproven),
    /// What was written did not prove itself, and is taken back.
    #[error("the check failed after the files were written; all of them are as they were before")]
    Restored(#[source] Box<PolicyError>),
    /// What was written had to be taken back, and could not be.
    #[error("what was written could not all be put back ({left}) after this went wrong")]
    NotRestored {
        /// What went wrong first.
        #[source]
        why: Box<PolicyError>,
        /// What could not be undone.
        left: String,
    },
}

impl PolicyError {
    /// Whether it is the host's configuration that has to change before anything can be done.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Read { .. }
                | Self::Dangling { .. }
                | Self::NotUnderstood { .. }
                | Self::Registries { .. }
                | Self::ReadOnly { .. }
        )
    }
}

impl Explain for PolicyError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::Dangling { .. } | Self::NotUnderstood { .. } | Self::Registries { .. } => {
                "policy-invalid"
            }
            Self::Unshown(error) => error.kind(),
            Self::Changed { .. } => "policy-changed",
            Self::Write { .. } | Self::ReadOnly { .. } => "policy-write",
            Self::NothingSigned { .. } => "policy-unchecked",
            Self::Registry(denied) => denied.kind(),
            Self::Stage { .. } | Self::Clean { .. } | Self::Run(_) | Self::Info { .. } => "podman",
            Self::TooOld { .. } => "podman-too-old",
            Self::Endless { .. } => "timeout",
            Self::Interrupted => "interrupted",
            Self::Unproven(unproven) | Self::Unwritten(unproven) => unproven.kind(),
            Self::Restored(error) => error.kind(),
            Self::NotRestored { .. } => "policy-half-written",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, path } | Self::Write { source, path } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some(format!("let this user have {}, or run it as who owns it", path.display()))
            }
            Self::Read { source, path } => unread(path, source.kind()),
            Self::Write { .. } => None,
            Self::ReadOnly { path } => Some(format!(
                "whoever made it so wants it left as it is; if it may be changed: `chmod u+w {}`",
                shell_word(path)
            )),
            Self::Dangling { path, to } => Some(format!(
                "make {} again, or remove the link: `rm {}`",
                to.display(),
                shell_word(path)
            )),
            Self::NotUnderstood { source: document::Fault::Edit { scope, rules }, .. } => {
                Some(format!("add it by hand, in `docker` of `transports`: \"{scope}\": {rules}"))
            }
            Self::NotUnderstood { .. } => {
                Some("Podman would not read it either, or reads it in a way that is not known here: mend it first; containers-policy.json(5)".into())
            }
            Self::Registries { source: attachments::Fault::Form { scope, .. }, .. } => {
                Some(format!("add `use-sigstore-attachments: true` to what it says of {scope}, and run this again"))
            }
            Self::Registries { .. } => Some("mend it first: Podman reads all files there or none; containers-registries.d(5)".into()),
            Self::Unshown(_) => Some("nothing was written: what would change has to be shown first".into()),
            Self::Changed { .. } => Some("run it again".into()),
            Self::NothingSigned { .. } => {
                Some("release a signed image first, or write without the check: `--write --no-check`".into())
            }
            Self::Registry(denied) => denied.hint(),
            Self::Stage { .. } => Some("the check pulls into a directory of its own, beside Podman's store".into()),
            Self::Run(source) if source.kind() == io::ErrorKind::NotFound => {
                Some("install podman, or have it in PATH: its service alone does not tell which policy it reads".into())
            }
            Self::Run(_) => Some("`podman info` must work for this user".into()),
            Self::Info { question, .. } => Some(format!("`podman {question}` must work for this user")),
            Self::TooOld { least, .. } if *least > Version::SURE => {
                Some("name one key in `verify.keys` and one log in `verify.rekor-keys`, or take a newer Podman".into())
            }
            Self::TooOld { .. } => Some(
                "leave out --no-check: Debian 12's Podman refuses every image under such a policy, and the check finds \
                 out whether this one does"
                    .into(),
            ),
            Self::Clean { path, .. } => {
                Some(format!("remove it by hand: `podman unshare rm -rf {}`", shell_word(path)))
            }
            Self::Endless { .. } => Some("pull it by hand and see where it stays".into()),
            Self::Interrupted => None,
            Self::Unproven(unproven) | Self::Unwritten(unproven) => unproven.hint(),
            Self::Restored(error) => error.hint(),
            Self::NotRestored { .. } => Some("put these back by hand; without `--write` and `--no-check` the command shows what Podman reads now".into()),
        }
    }
}

/// What to do about a file or directory of Podman's that cannot be read.
fn unread(path: &Path, why: io::ErrorKind) -> Option<String> {
    let away = || format!("`mv {0} {0}.old`", shell_word(path));
    match why {
        files::NO_FILE => Some(format!("move away what is there in a file's place: {}", away())),
        io::ErrorKind::NotADirectory => Some(format!("a directory belongs there; move away what it is: {}", away())),
        io::ErrorKind::FileTooLarge => {
            Some(format!("such a file has some hundred bytes; look at what it is, and move it away: {}", away()))
        }
        io::ErrorKind::InvalidData => Some("it must be text in UTF-8: mend it first".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tagship_core::explain::chain;

    use super::*;

    fn refused() -> Unproven {
        Unproven::SignedRefused { image: "app".into(), words: "invalid signature".into() }
    }

    #[test]
    fn what_became_of_the_files_is_said_once_and_podmans_words_are_kept() {
        let words = "Podman refuses the signed image app: invalid signature";
        let left = || "/p: somebody changed it".to_owned();
        let again = || Box::new(PolicyError::from(refused()));
        for (error, text) in [
            (PolicyError::Unwritten(refused()), "the check failed, and nothing was written"),
            (
                PolicyError::Restored(again()),
                "the check failed after the files were written; all of them are as they were before",
            ),
            (
                PolicyError::NotRestored { why: again(), left: left() },
                "what was written could not all be put back (/p: somebody changed it) after this went wrong",
            ),
        ] {
            assert_eq!(chain(&error), format!("{text}: {words}"));
            assert!(error.hint().is_some());
        }
        let source = io::ErrorKind::StorageFull.into();
        let why = Box::new(PolicyError::Write { path: "/q".into(), source });
        let text = chain(&PolicyError::NotRestored { why, left: left() });
        assert!(text.contains("cannot write /q") && !text.contains("check"), "{text}");
    }

    #[test]
    fn what_the_check_left_can_be_removed_by_the_hint() {
        let error = PolicyError::Clean { path: "/my store/x".into(), source: io::ErrorKind::PermissionDenied.into() };
        assert!(error.hint().unwrap().contains("`podman unshare rm -rf '/my store/x'`"), "{error}");
    }
}
