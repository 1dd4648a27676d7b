//! The one way in which both programs verify an image: fetch its signatures, then judge them.

use super::error::VerifyError;
use super::fetch::{self, FetchError};
use super::policy::{Expectation, Policy};
use super::verified::Verified;
use super::verify;
use crate::explain::Explain;
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
}

impl Explain for CheckError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.kind(),
            Self::Verify(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch(error) => error.hint(),
            Self::Verify(error) => error.hint(),
        }
    }
}

/// Fetches and verifies the signatures of the expected image, format by format: bundles are asked for only where no
/// `.sig` signature counts. When none counts, the error speaks of all that were found.
pub async fn check(client: &Client, expected: &Expectation, policy: &Policy) -> Result<Verified, CheckError> {
    let (mut found, mut malformed) = (Vec::new(), None);
    for format in policy.formats.iter() {
        match fetch::attached(client, &expected.repository, &expected.digest, format).await {
            Ok(more) => found.extend(more),
            // A list that is none hides no signature in the other format; a registry in trouble ends it.
            Err(error @ (FetchError::Manifest { .. } | FetchError::Referrers { .. })) => malformed = Some(error),
            Err(error) => return Err(error.into()),
        }
        if let Ok(verified) = verify::verify(expected, &found, policy) {
            return Ok(verified);
        }
    }
    match malformed {
        Some(error) if found.is_empty() => Err(error.into()),
        _ => Ok(verify::verify(expected, &found, policy)?),
    }
}
