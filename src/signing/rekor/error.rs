//! Why a transparency log did not record a signature, told apart by what the user has to do about it.

use reqwest::Url;
use tagship_core::explain::Explain;
use tagship_core::signature::log::{self, LogError};

/// Why a signature is not recorded. Nothing has been pushed then, and trying again is always safe.
#[derive(Debug, thiserror::Error)]
pub enum RekorError {
    /// The HTTP client could not be set up.
    #[error("cannot set up a connection to the transparency log {url}")]
    Setup {
        /// The log.
        url: Url,
        /// Why.
        source: reqwest::Error,
    },
    /// No connection, or it broke.
    #[error("cannot reach the transparency log {url}")]
    Unreachable {
        /// What was asked for.
        url: Url,
        /// Why.
        source: reqwest::Error,
    },
    /// The certificate is not trusted.
    #[error("the certificate of the transparency log {url} is not trusted here")]
    Certificate {
        /// What was asked for.
        url: Url,
        /// Why.
        source: reqwest::Error,
    },
    /// The log is in trouble.
    #[error("the transparency log {url} answered {status}{}", said(.message))]
    Server {
        /// What was asked for.
        url: Url,
        /// Its status, 5xx.
        status: u16,
        /// What it said, escaped.
        message: String,
    },
    /// The log does not want the entry.
    #[error("the transparency log {url} refused the entry with {status}{}", said(.message))]
    Refused {
        /// What was asked for.
        url: Url,
        /// Its status.
        status: u16,
        /// What it said, escaped.
        message: String,
    },
    /// More than an entry.
    #[error("the transparency log {url} answered more than {max} bytes", max = log::MAX_ANSWER_LEN)]
    TooLarge {
        /// What was asked for.
        url: Url,
    },
    /// It says that the entry exists, but not where.
    #[error("the transparency log {url} has the entry already, but does not say where")]
    NoLocation {
        /// What was asked for.
        url: Url,
    },
    /// What it answered proves nothing.
    #[error("the answer of the transparency log {url} does not prove that the signature is recorded")]
    Unproven {
        /// What was asked for.
        url: Url,
        /// Why.
        source: LogError,
    },
}

impl Explain for RekorError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Setup { .. } => "log-setup",
            Self::Unreachable { .. } => "log-unreachable",
            Self::Certificate { .. } => "log-certificate",
            Self::Server { .. } => "log-error",
            Self::Refused { .. } => "log-refused",
            Self::TooLarge { .. } | Self::NoLocation { .. } | Self::Unproven { .. } => "log-invalid",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Setup { .. } => "check `rekor-url` and `ca`",
            Self::Unreachable { .. } | Self::Server { .. } => {
                "no signature was pushed; run the job again later, or sign without the log (`tlog: false`) if the \
                 host's policy allows it"
            }
            Self::Certificate { .. } => "hand in the log's certificate authority with `ca`; no signature was pushed",
            Self::Refused { .. } => "check that `rekor-url` is a Rekor v1 log; no signature was pushed",
            Self::Unproven { source: LogError::UnknownLog(_), .. } => {
                "for a private log, give its public key as `rekor-public-key`; no signature was pushed"
            }
            Self::TooLarge { .. } | Self::NoLocation { .. } | Self::Unproven { .. } => {
                "check `rekor-url` and `rekor-public-key`; no signature was pushed"
            }
        };
        Some(hint.to_owned())
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
