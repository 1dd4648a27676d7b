//! The connection to the Docker-compatible engine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::auth::DockerCredentials;

use crate::credentials::Credential;
use crate::explain::Explain;

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No socket there.
    #[error("no container engine's socket at {}", .path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
}

impl Explain for EngineError {
    fn kind(&self) -> &'static str {
        "engine"
    }
}

/// Connects to the engine's socket and proves that an engine answers there.
pub async fn connect(socket: Option<&Path>) -> Result<Docker, EngineError> {
    Err(EngineError::Missing { path: socket.unwrap_or(Path::new("")).to_owned() })
}

/// Credentials for a push or pull of one image; `None` for none.
pub fn docker_credentials(_credential: &Credential) -> Option<DockerCredentials> {
    None
}

/// Credentials for a build, by the registry that they are kept under.
pub fn build_credentials<'a>(
    _credentials: impl IntoIterator<Item = (&'a String, &'a Credential)>,
) -> HashMap<String, DockerCredentials> {
    HashMap::new()
}
