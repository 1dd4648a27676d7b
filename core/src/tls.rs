//! Which certificate authorities are trusted.

use std::path::PathBuf;

use crate::explain::Explain;

/// The trusted certificate authorities: the platform's and, if given, a private one.
pub struct Roots {
    _certificates: Vec<reqwest::Certificate>,
}

/// Why the certificate authorities could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Explain for RootsError {
    fn kind(&self) -> &'static str {
        "ca-invalid"
    }
}

impl Roots {
    /// The platform's authorities (or those of SSL_CERT_FILE and SSL_CERT_DIR) and those in `ca`, PEM.
    pub fn load(_ca: Option<&[u8]>) -> Result<Self, RootsError> {
        Ok(Self { _certificates: Vec::new() })
    }

    /// A client builder that trusts exactly these.
    pub fn client_builder(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder()
    }
}
