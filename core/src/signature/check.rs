//! The one way in which both programs verify an image: fetch its signatures, then judge them.

use super::error::VerifyError;
use super::fetch::{self, FetchError, Found, List};
use super::policy::{Expectation, Policy};
use super::verified::Verified;
use super::verify;
use crate::explain::Explain;
use crate::reference::ImageRef;
use crate::registry::Client;

/// Why an image is not verified: its signatures could not be had, or none of them counts.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// They could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// None counts.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// None of those that were read counts, and there are more.
    #[error("{image}: no signature that was read counts; of the {listed} {} in its {list} the first {unread} were not", .list.unit())]
    Unread {
        /// Of what.
        image: Box<ImageRef>,
        /// Which list is too long.
        list: List,
        /// How many it names.
        listed: usize,
        /// How many of these were not read.
        unread: usize,
        /// Why those that were read do not count.
        source: VerifyError,
    },
}

impl Explain for CheckError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.kind(),
            Self::Verify(error) => error.kind(),
            Self::Unread { .. } => "too-many-signatures",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch(error) => error.hint(),
            Self::Verify(error) => error.hint(),
            Self::Unread { list, image, .. } => Some(list.room(image)),
        }
    }
}

/// Fetches and verifies the signatures of the expected image, format by format: bundles are asked for only where no
/// `.sig` signature counts. When none counts, the error speaks of all that were found, and of what was not read.
pub async fn check(client: &Client, expected: &Expectation, policy: &Policy) -> Result<Verified, CheckError> {
    let (mut found, mut malformed, mut long) = (Vec::new(), None, None);
    for format in policy.formats.iter() {
        match fetch::attached(client, &expected.repository, &expected.digest, format).await {
            Ok(Found { list, listed, unread, attached, .. }) => {
                found.extend(attached);
                long = long.or((unread > 0).then_some((list, listed, unread)));
            }
            // A list that is none hides no signature in the other format; a registry in trouble ends it.
            Err(error @ FetchError::Malformed { .. }) => malformed = Some(error),
            Err(error) => return Err(error.into()),
        }
        if let Ok(verified) = verify::verify(expected, &found, policy) {
            return Ok(verified);
        }
    }
    match malformed {
        // What is in a list that is too long may be the signature that is wanted.
        Some(error) if found.is_empty() || error.is_length() => Err(error.into()),
        _ => verify::verify(expected, &found, policy).map_err(|source| match long {
            Some((list, listed, unread)) => {
                let image = Box::new(ImageRef::pinned(&expected.repository, &expected.digest));
                CheckError::Unread { image, list, listed, unread, source }
            }
            None => source.into(),
        }),
    }
}
