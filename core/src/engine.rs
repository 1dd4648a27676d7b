//! The connection to the container engine: a local socket that speaks Docker's API, in production rootless Podman's.
//!
//! What is asked of the engine lives with those who ask. Two traps are closed here, so that nobody else need know them:
//!
//! - bollard 0.21 encodes registry credentials with the standard base64 alphabet. Podman decodes the URL's alphabet, as
//!   Docker's API defines it, so a password such as `?>~` would be refused. Each request's header is rewritten on its way
//!   out ([`URL alphabet`](https://www.rfc-editor.org/rfc/rfc4648#section-5)); both are equally long.
//! - A push without credentials would carry a header full of nulls, which Podman takes for a set of empty logins instead
//!   of looking into the user's own auth.json. That header is left out.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use bollard::{BollardRequest, ClientVersion, Docker};
use reqwest::header::HeaderValue;
use tokio::net::UnixStream;

use crate::credentials::Credential;
use crate::explain::Explain;

/// The version of the API that is spoken: the oldest that Docker 29 still takes, and new enough for all that is asked.
/// Podman takes any.
const API: ClientVersion = ClientVersion { major_version: 1, minor_version: 44 };

/// How long the engine may take to say that it is there.
const PING: Duration = Duration::from_secs(5);

/// How long the engine may take to begin an answer: stopping a container and taking in a large build context are long.
/// Streams have no limit of their own.
const ANSWER: Duration = Duration::from_secs(600);

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No socket where one was expected.
    #[error("no container engine's socket at {}", listed(.tried))]
    Missing {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },

    /// DOCKER_HOST or CONTAINER_HOST names something else than a local socket.
    #[error("{variable} names {value:?}, which is no local socket")]
    NotLocal {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },

    /// The socket may not be opened.
    #[error("may not open the container engine's socket {}", .path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// Nobody listens, or what is there is no socket.
    #[error("no container engine listens at {}", .path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// Something listens, but does not answer in time.
    #[error("what listens at {} does not answer", .path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
    },

    /// Something listens and answers, but not as an engine.
    #[error("what listens at {} is no container engine", .path.display())]
    NotAnEngine {
        /// The socket.
        path: PathBuf,
        /// What the answer was taken for.
        source: bollard::errors::Error,
    },
}

impl Explain for EngineError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "engine-missing",
            Self::NotLocal { .. } => "engine-not-local",
            Self::Forbidden { .. } => "engine-forbidden",
            Self::NotRunning { .. } | Self::Silent { .. } => "engine-not-running",
            Self::NotAnEngine { .. } => "engine-unknown",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::Missing { .. } => {
                    "on the host run `systemctl --user enable --now podman.socket`, in a login session: after `su` there is no \
                     XDG_RUNTIME_DIR, by which the socket is found; in a job the runner mounts the socket at \
                     /var/run/docker.sock unless its `docker_host` is \"-\""
                }
                Self::NotLocal { .. } => {
                    "name a socket, unix:///run/user/1000/podman/podman.sock, or unset the variable"
                }
                Self::Forbidden { .. } => {
                    "the socket's owner must run this; under SELinux let the runner's configuration have \
                     `container.options: --security-opt label=disable`"
                }
                Self::NotRunning { .. } | Self::Silent { .. } => {
                    "on the host run `systemctl --user restart podman.socket` and look at `journalctl --user -u podman`"
                }
                Self::NotAnEngine { .. } => "name the socket of Podman's or Docker's API",
            }
            .to_owned(),
        )
    }
}

/// Where the engine's socket is: what `DOCKER_HOST` or `CONTAINER_HOST` names, else the first usual place that has one.
pub fn locate() -> Result<PathBuf, EngineError> {
    find(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// Connects to the engine's socket and proves, within seconds, that an engine answers there.
///
/// Without `socket`, that of `DOCKER_HOST` or `CONTAINER_HOST`; else `$XDG_RUNTIME_DIR/podman/podman.sock` or
/// `/var/run/docker.sock`, whichever exists first.
pub async fn connect(socket: Option<&Path>) -> Result<Docker, EngineError> {
    let path = match socket {
        Some(path) => path.to_owned(),
        None => locate()?,
    };
    match UnixStream::connect(&path).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(EngineError::Missing { tried: vec![path] }),
        Err(source) if source.kind() == ErrorKind::PermissionDenied => {
            return Err(EngineError::Forbidden { path, source });
        }
        Err(source) => return Err(EngineError::NotRunning { path, source }),
    }
    let docker = Docker::connect_with_unix(&path.to_string_lossy(), ANSWER.as_secs(), &API)
        .map_err(|source| EngineError::NotAnEngine { path: path.clone(), source })?
        .with_request_modifier(mend_credentials);
    match tokio::time::timeout(PING, docker.ping()).await {
        Ok(Ok(_)) => Ok(docker),
        Ok(Err(source)) => Err(EngineError::NotAnEngine { path, source }),
        Err(_) => Err(EngineError::Silent { path }),
    }
}

/// Credentials in the engine's terms, for a push or a pull; `None` for none. The engine is another process: what it is
/// given leaves the care of [`crate::secret`].
pub fn docker_credentials(credential: &Credential) -> Option<DockerCredentials> {
    match credential {
        Credential::Anonymous => None,
        Credential::Basic { user, secret } => Some(DockerCredentials {
            username: Some(user.clone()),
            password: Some(secret.expose_str()?.to_owned()),
            ..DockerCredentials::default()
        }),
        Credential::IdentityToken { token } => Some(DockerCredentials {
            identitytoken: Some(token.expose_str()?.to_owned()),
            ..DockerCredentials::default()
        }),
    }
}

/// Credentials in the engine's terms for a build, whose base images may come from several registries.
pub fn build_credentials<'a>(
    credentials: impl IntoIterator<Item = (&'a String, &'a Credential)>,
) -> HashMap<String, DockerCredentials> {
    let known = credentials.into_iter().filter_map(|(key, credential)| Some((key, docker_credentials(credential)?)));
    known.map(|(key, credential)| (key.clone(), credential)).collect()
}

fn find(variable: impl Fn(&str) -> Option<String>) -> Result<PathBuf, EngineError> {
    for name in ["DOCKER_HOST", "CONTAINER_HOST"] {
        if let Some(value) = variable(name) {
            let path = value.strip_prefix("unix://").unwrap_or(&value);
            return match path.starts_with('/') {
                true => Ok(path.into()),
                false => Err(EngineError::NotLocal { variable: name, value }),
            };
        }
    }
    let podman = variable("XDG_RUNTIME_DIR").map(|runtime| Path::new(&runtime).join("podman/podman.sock"));
    let tried: Vec<PathBuf> = podman.into_iter().chain([PathBuf::from("/var/run/docker.sock")]).collect();
    tried.iter().find(|path| path.exists()).cloned().ok_or(EngineError::Missing { tried })
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}

/// Puts each credential header into the alphabet that engines read, and takes away one that holds nothing.
fn mend_credentials(mut request: BollardRequest) -> BollardRequest {
    for name in ["x-registry-auth", "x-registry-config"] {
        let Some(value) = request.headers_mut().remove(name) else { continue };
        if is_empty(value.as_bytes()) {
            continue;
        }
        let bytes = value.as_bytes().iter().map(|b| match b {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        });
        // Of the same characters, so it is a header value again.
        if let Ok(mut value) = HeaderValue::from_bytes(&bytes.collect::<Vec<_>>()) {
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
    }
    request
}

/// Whether there is no login in it: nothing but nulls, or no registry at all.
fn is_empty(header: &[u8]) -> bool {
    let json = STANDARD.decode(header).unwrap_or_default();
    serde_json::from_slice::<HashMap<String, Option<serde::de::IgnoredAny>>>(&json)
        .is_ok_and(|held| held.values().all(Option::is_none))
}

#[cfg(test)]
mod tests;
