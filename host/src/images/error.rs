//! What can go wrong with the image store, and what to try.

use tagship_core::explain::Explain;

use crate::{config::App, engine};

/// What went wrong with the image store.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// The registry's image did not get into the store.
    #[error("cannot pull {reference}: {words}")]
    Pull {
        /// For which app.
        app: App,
        /// What was pulled.
        reference: String,
        /// The engine's words.
        words: String,
    },
    /// The store does not say that what was pulled is what was verified.
    #[error("the store does not have {reference} after its pull")]
    Other {
        /// What was pulled.
        reference: String,
    },
    /// The engine could not be asked.
    #[error("cannot {action} {name}: the engine cannot be reached: {words}")]
    Unreachable {
        /// What was asked.
        action: &'static str,
        /// Of what.
        name: String,
        /// Why not.
        words: String,
    },
    /// The store did not do what it was asked for.
    #[error("cannot {action} {name}: {words}")]
    Engine {
        /// What was asked.
        action: &'static str,
        /// Of what.
        name: String,
        /// The engine's words.
        words: String,
    },
}

impl Explain for ImagesError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Pull { .. } | Self::Other { .. } => "pull",
            Self::Engine { .. } => "engine",
            Self::Unreachable { .. } => engine::UNREACHABLE,
        }
    }

    fn hint(&self) -> Option<String> {
        let (words, app) = match self {
            Self::Pull { app, words, .. } => (words.to_lowercase(), Some(app)),
            Self::Engine { words, .. } => (words.to_lowercase(), None),
            Self::Unreachable { .. } => return Some(engine::HINT.into()),
            Self::Other { .. } => {
                return Some("`podman images --digests` shows what is there; look for what removes images".into());
            }
        };
        let says = |any: &[&str]| any.iter().any(|part| words.contains(part));
        let hint = if says(&["no space left", "quota exceeded"]) {
            "make room on the disk; `podman system df` shows what images take"
        } else if says(&["unauthorized", "authentication required", "denied", "forbidden"]) {
            "run `podman login` as the app's user with an account that may read the image"
        } else if says(&["x509", "certificate"]) {
            "put the registry's CA where Podman looks: /etc/containers/certs.d/REGISTRY/ca.crt, or the system's store"
        } else if says(&["no signature exists"]) {
            "Podman's policy wants a signature at the image's `.sig` tag, and there is none: release with \
             `signature-formats: sig,bundle`, the action's default"
        } else if let Some(app) = app
            && says(&["signature", "policy"])
        {
            return Some(format!(
                "Podman's policy.json refuses the image: if `verify` in the app's configuration has changed since, as in a \
                 key's rotation, run `tagship-host policy {app} --write`; else compare the keys of both"
            ));
        } else {
            return None;
        };
        Some(hint.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_pull_says_what_to_try() {
        let hint = |words: &str| {
            let app = "demo".parse().unwrap();
            ImagesError::Pull { app, reference: "r".into(), words: words.into() }.hint()
        };
        assert!(hint("writing blob: no space left on device").unwrap().contains("disk"));
        assert!(hint("unauthorized: authentication required").unwrap().contains("podman login"));
        assert!(hint("tls: x509: certificate signed by unknown authority").unwrap().contains("CA"));
        let unsigned = hint("Source image rejected: A signature was required, but no signature exists").unwrap();
        assert!(unsigned.contains("`.sig`") && unsigned.contains("signature-formats"), "{unsigned}");
        let foreign = hint("Source image rejected: cryptographic signature verification failed").unwrap();
        assert!(foreign.contains("tagship-host policy demo --write"), "{foreign}");
        assert_eq!(hint("something else"), None);
        assert!(ImagesError::Other { reference: "r".into() }.hint().unwrap().contains("podman images"));
    }
}
