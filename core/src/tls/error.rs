//! Why there are no certificate authorities to trust.

use std::path::Path;

use crate::explain::Explain;
use crate::text;

/// Why the certificate authorities could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// SSL_CERT_FILE or SSL_CERT_DIR leads to no certificate.
    #[error("SSL_CERT_FILE or SSL_CERT_DIR leads to no certificate")]
    Platform {
        /// The first thing that went wrong, if anything did.
        source: Option<rustls_native_certs::Error>,
    },

    /// The private authority is no PEM.
    #[error("cannot read the certificate authority {}: {why}", shown(name))]
    Pem {
        /// What the authority was called: its path, mostly.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },

    /// There is nothing in the private authority's PEM that could be a block.
    #[error("the certificate authority {} has no CERTIFICATE block", shown(name))]
    Empty {
        /// What the authority was called.
        name: String,
    },

    /// A private key where a certificate belongs.
    #[error("{} holds a private key, not a certificate authority's certificate", shown(name))]
    Private {
        /// What the authority was called.
        name: String,
    },

    /// A PEM block of something else.
    #[error("{} holds a {label:?}, not a certificate authority's certificate", shown(name))]
    Label {
        /// What the authority was called.
        name: String,
        /// The block's label.
        label: String,
    },

    /// A block of the private authority's PEM is no certificate.
    #[error("the certificate authority {} has a block that is no certificate", shown(name))]
    Certificate {
        /// What the authority was called.
        name: String,
        /// What the TLS library says.
        source: rustls::Error,
    },

    /// The TLS library has no version and cipher of its own to speak.
    #[error("cannot prepare TLS")]
    Setup {
        /// What the TLS library says.
        source: rustls::Error,
    },
}

fn shown(name: &str) -> String {
    text::path(Path::new(name))
}

impl Explain for RootsError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Setup { .. } => "tls-setup",
            _ => "ca-invalid",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::Platform { .. } => "name a readable PEM file in SSL_CERT_FILE, or unset it",
                Self::Setup { .. } => return None,
                Self::Private { .. } => {
                    "give the certificate, and keep the authority's private key away from this machine"
                }
                _ => "hand in the authority's certificate as PEM, from -----BEGIN CERTIFICATE----- to the end line",
            }
            .to_owned(),
        )
    }
}
