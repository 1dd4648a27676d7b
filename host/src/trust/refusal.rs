//! Why a genuinely signed image is not deployed all the same.

use jiff::Timestamp;
use tagship_core::{
    explain::Explain,
    reference::{Digest, Tag},
};

use crate::config::App;

/// A ruling against a verified image. Nothing was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The signature names no version, and the registry's tag names something else.
    #[error("the registry's {asked} does not name {digest}, and the signature names no version")]
    TagElsewhere {
        /// The tag in the request.
        asked: Tag,
        /// The digest in the request.
        digest: Digest,
    },
    /// The version is lower than one that was proven here.
    #[error("{asked} is older than {mark}, which was proven healthy here")]
    Downgrade {
        /// Whose version it is.
        app: App,
        /// The version asked for.
        asked: Tag,
        /// The highest proven one.
        mark: Tag,
    },
    /// The version is the mark, and something else runs.
    #[error("{asked} is held: it was rolled back from, or made the highest version by hand, and something else runs")]
    Held {
        /// Whose version it is.
        app: App,
        /// The version asked for.
        asked: Tag,
    },
    /// The image was deployed here before and did not get well.
    #[error("{asked} was rolled back here on {at:.0}: {reason}")]
    Rejected {
        /// Whose version it is.
        app: App,
        /// The version asked for.
        asked: Tag,
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// The version was proven here with another digest.
    #[error("{asked} was proven here as {known}, and now stands for {digest}")]
    Reused {
        /// The version asked for.
        asked: Tag,
        /// The digest it had.
        known: Digest,
        /// The digest it has now.
        digest: Digest,
    },
    /// Nothing tells whether the version is newer or older.
    #[error("nothing tells whether {asked} is newer than {mark}")]
    Unordered {
        /// The version asked for.
        asked: Tag,
        /// The highest proven one.
        mark: Tag,
    },
    /// The version is below the administrator's floor, or nothing tells that it is not.
    #[error("{asked} is not at or above the administrator's floor, {floor}")]
    BelowFloor {
        /// The version asked for.
        asked: Tag,
        /// The lowest allowed one.
        floor: Tag,
    },
    /// The signed time by which the version would be ordered has not come yet.
    #[error("{asked} says that it was signed at {created}, which is still to come")]
    FromTheFuture {
        /// The version asked for.
        asked: Tag,
        /// Its signed time.
        created: Timestamp,
    },
}

impl Explain for Refusal {
    fn kind(&self) -> &'static str {
        match self {
            Self::TagElsewhere { .. } => "tag-elsewhere",
            Self::Downgrade { .. } => "downgrade",
            Self::Held { .. } => "held",
            Self::Rejected { .. } => "rejected",
            Self::Reused { .. } => "version-reused",
            Self::Unordered { .. } => "unordered",
            Self::BelowFloor { .. } => "below-floor",
            Self::FromTheFuture { .. } => "created-in-future",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::TagElsewhere { .. } => {
                "ask for the tag that names this digest, or sign the image with `-a tag=VERSION`".into()
            }
            Self::Downgrade { app, asked, .. } => format!(
                "to go back on purpose: `tagship-host rollback {app} {asked}` on the host, or a rollback request signed \
                 with the release key"
            ),
            Self::Held { app, asked } => format!(
                "release a newer version; to run this one all the same: `tagship-host rollback {app} {asked}` on the host"
            ),
            Self::Rejected { app, asked, .. } => format!(
                "release a mended version; if something else was to blame, have this one tried again: `tagship-host \
                 deploy {app} --retry {asked}` on the host"
            ),
            Self::Reused { .. } => "release it under a new version: one version stands for one image".into(),
            Self::Unordered { .. } => {
                "use semantic versions (v1.2.3), or images signed with their time of creation; `downgrade: allow` drops \
                 the order altogether"
                    .into()
            }
            Self::BelowFloor { .. } => "release a higher version; only the administrator can lower the floor".into(),
            Self::FromTheFuture { .. } => "set the clocks of this host and of the runner right".into(),
        })
    }
}
