//! What can go wrong between us and a registry, told apart by what the user has to do about it.
//!
//! How a failure is recognised is known where requests are made; here it is only named and explained.

use std::time::Duration;

use crate::explain::Explain;
use crate::reference::{Digest, Registry};

/// A request to a registry that did not end well. URLs are shown without their query.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The HTTP client could not be set up.
    #[error("cannot set up a connection to {registry}")]
    Setup {
        /// The registry that was meant.
        registry: Registry,
        /// What the HTTP client says.
        source: reqwest::Error,
    },

    /// No connection: name unknown, refused, reset.
    #[error("cannot reach {url}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What the HTTP client says.
        source: reqwest::Error,
    },

    /// A connection, but no answer in time.
    #[error("{url} gave no complete answer within {:.1} s", .after.as_secs_f32())]
    TimedOut {
        /// What was asked for.
        url: String,
        /// How long was waited.
        after: Duration,
        /// What the HTTP client says.
        source: reqwest::Error,
    },

    /// The registry's certificate comes from an authority that is not trusted here.
    #[error("the certificate of {url} is from an authority that is not trusted here")]
    UnknownAuthority {
        /// What was asked for.
        url: String,
        /// What the TLS library says.
        source: reqwest::Error,
    },

    /// The registry's certificate is refused for another reason: expired, other name.
    #[error("the certificate of {url} is not acceptable")]
    Certificate {
        /// What was asked for.
        url: String,
        /// What the TLS library says.
        source: reqwest::Error,
    },

    /// The registry does not accept the credentials, or none were given and it wants some.
    #[error("{registry} {}", if *.anonymous { "wants credentials, and none are known for it" } else { "refuses the credentials" })]
    Unauthorized {
        /// The registry that was asked.
        registry: Registry,
        /// Whether no credentials were given.
        anonymous: bool,
    },

    /// The credentials are right, but do not allow this.
    #[error("{registry} accepts the credentials, but they may not {operation} {url}")]
    Denied {
        /// The registry that was asked.
        registry: Registry,
        /// `push to` or `read`.
        operation: &'static str,
        /// What was asked for.
        url: String,
    },

    /// What was asked for is not there.
    #[error("{url} does not exist")]
    Absent {
        /// What was asked for.
        url: String,
    },

    /// The bytes are not those that the digest names.
    #[error("{url} answered other content than it should: expected {expected}, got {found}")]
    Corrupt {
        /// What was asked for.
        url: String,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came, or that the registry claims.
        found: String,
    },

    /// The answer is longer than what can be meant.
    #[error("{url} answered more than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The most that was accepted.
        limit: usize,
    },

    /// A list in pages, longer than what is read of it.
    #[error("{url} lists more than the {limit} {unit} that are read")]
    LongList {
        /// What was asked for.
        url: String,
        /// The most that is read.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },

    /// The registry sends us on to where we do not go: away from TLS, or in circles.
    #[error("{url} redirects to where it should not")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Why the redirect was not followed.
        source: reqwest::Error,
    },

    /// The answer broke off.
    #[error("the answer of {url} broke off")]
    Interrupted {
        /// What was asked for.
        url: String,
        /// What the HTTP client says.
        source: reqwest::Error,
    },

    /// The registry is in trouble, or wants us to come back later (5xx and 429).
    #[error("{url} answered {status}{}", suffix(.message))]
    Server {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the registry said, escaped; may be empty.
        message: String,
    },

    /// The registry refuses the request as such (other 4xx).
    #[error("{url} answered {status}{}", suffix(.message))]
    Refused {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the registry said, escaped; may be empty.
        message: String,
    },

    /// The service that the registry names gives no token.
    #[error("{url}, where {registry} has its tokens made, answered {status}{}", suffix(.message))]
    NoToken {
        /// The registry that was asked.
        registry: Registry,
        /// The address that it names.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the service said, escaped; may be empty.
        message: String,
    },

    /// The answer is none that a registry gives.
    #[error("{url} does not answer as a registry: {why}")]
    Protocol {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
}

fn suffix(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl Explain for RegistryError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Setup { .. } => "registry-setup",
            Self::Unreachable { .. } => "registry-unreachable",
            Self::TimedOut { .. } => "registry-timeout",
            Self::UnknownAuthority { .. } => "registry-unknown-ca",
            Self::Certificate { .. } => "registry-certificate",
            Self::Unauthorized { .. } => "registry-unauthorized",
            Self::Denied { .. } => "registry-denied",
            Self::Absent { .. } => "registry-absent",
            Self::Corrupt { .. } => "registry-corrupt",
            Self::TooLarge { .. } | Self::LongList { .. } => "registry-too-large",
            Self::Redirect { .. } => "registry-redirect",
            Self::Interrupted { .. } => "registry-interrupted",
            Self::Server { .. } => "registry-error",
            Self::Refused { .. } | Self::NoToken { .. } => "registry-refused",
            Self::Protocol { .. } => "registry-protocol",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unreachable { .. } => {
                "check the registry's name, that it runs, and that this machine (in CI: the job's container) reaches it"
            }
            Self::TimedOut { .. } | Self::Interrupted { .. } => {
                "check that the registry and any proxy before it are well, then try again"
            }
            Self::UnknownAuthority { .. } => {
                "hand in the private certificate authority as PEM with the action's `ca` input, or, on the host as well, \
                 name its file in SSL_CERT_FILE"
            }
            Self::Certificate { .. } => {
                "renew the registry's certificate, or use the name that it was made for; a self-signed one must not be \
                 marked as an authority's: make an authority and sign the registry's certificate with it"
            }
            Self::Unauthorized { anonymous: true, .. } => {
                "give a user and a token, or log in with `podman login` as the user that runs this"
            }
            Self::Unauthorized { anonymous: false, .. } => {
                "check the user and the token; it may have expired or been revoked"
            }
            Self::Denied { operation: "push to", .. } => {
                "a job's automatic token cannot push packages on Forgejo: use a personal access token with \
                 `write:package` of a user who owns the package or has package rights in the organisation"
            }
            Self::Denied { .. } => "use a token with `read:package` of a user who may see the package",
            Self::Absent { .. } => "check the image's name, and on Forgejo that its owner exists",
            Self::Corrupt { .. } => {
                "nothing of it was used; check the registry's storage and any proxy or cache in between"
            }
            Self::Server { status: 429, .. } => "the registry limits how often it may be asked: try again later",
            Self::Server { .. } => "look at the registry's own log, then try again",
            Self::Redirect { .. } | Self::Protocol { .. } => {
                "check that the name is a registry's and that no proxy or login page answers for it"
            }
            Self::NoToken { .. } => {
                "the registry names this address itself: check the external address in its configuration (Forgejo: \
                 ROOT_URL), and that a proxy before it passes this path on"
            }
            Self::TooLarge { .. } => {
                "nothing that belongs there is so long: check that the name is an image's, and that the registry \
                 itself answers and no other server for it"
            }
            Self::LongList { .. } => "delete what nobody needs of what it lists",
            Self::Refused { status: 300..=399, .. } => {
                "it sends on, but not to an address that can be followed: check the registry's external address and any \
                 proxy or login page before it"
            }
            Self::Refused { status: 413, .. } => {
                "raise the longest request that a proxy before the registry lets through"
            }
            Self::Refused { .. } => {
                "look for the reason in the registry's own log; check its version, and any proxy before it"
            }
            Self::Setup { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
