//! `deploy-host`: what the companion tells about itself.
//!
//! A hint for the action, never an input to a decision of the host: anybody who can write in the directory can write
//! it. Bytes to types and back, nothing else.

use serde::{Deserialize, Serialize};

use super::fields::{BootId, Line};
use crate::explain::Explain;
use crate::reference::{Digest, Repository, Tag};

/// The largest file, in bytes.
pub const LIMIT: usize = 16 * 1024;

/// What a companion tells. Keys of later versions are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFile {
    /// The protocol's version that it speaks.
    pub protocol: u32,
    /// The keys that it knows in a request; it refuses others.
    pub request_keys: Vec<Line>,
    /// Its own version.
    pub companion: Line,
    /// The image that it deploys.
    pub image: Repository,
    /// How long a whole deploy may take, rollback included, in seconds.
    pub budget_seconds: u64,
    /// The boot that it runs in.
    pub boot: BootId,
    /// Whether it deploys only what a transparency log recorded.
    pub log_required: bool,
    /// What runs, once something was deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
}

/// What runs on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The version, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// The image.
    pub digest: Digest,
}

/// Why bytes are no `deploy-host`.
#[derive(Debug, thiserror::Error)]
pub enum HostFileError {
    /// Too many bytes.
    #[error("deploy-host is larger than {LIMIT} bytes")]
    TooLarge,
    /// Another version of the protocol.
    #[error("the companion speaks version {theirs} of the hand-off protocol, this program version {ours}")]
    Protocol {
        /// What the file says.
        theirs: u32,
        /// What this code speaks.
        ours: u32,
    },
    /// Not the JSON that it should be.
    #[error("deploy-host cannot be read")]
    Json(#[source] serde_json::Error),
}

impl Explain for HostFileError {
    fn kind(&self) -> &'static str {
        match self {
            HostFileError::Protocol { .. } => "protocol-version",
            HostFileError::TooLarge | HostFileError::Json(_) => "host-file-invalid",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            HostFileError::Protocol { .. } => "use the same release of the action and of tagship-host".to_owned(),
            HostFileError::TooLarge | HostFileError::Json(_) => {
                "remove the file; `tagship-host deploy APP` on the host writes it anew".to_owned()
            }
        })
    }
}

impl HostFile {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Strings, numbers and lists of them: there is nothing in it that JSON cannot hold.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads the file. Its version is judged first, since another version may have other keys.
    ///
    /// # Errors
    /// If it is too large, of another version, or not the JSON that it should be.
    pub fn parse(bytes: &[u8]) -> Result<HostFile, HostFileError> {
        #[derive(Deserialize)]
        struct VersionOnly {
            protocol: u32,
        }

        if bytes.len() > LIMIT {
            return Err(HostFileError::TooLarge);
        }
        let VersionOnly { protocol } = serde_json::from_slice(bytes).map_err(HostFileError::Json)?;
        if protocol != super::VERSION {
            return Err(HostFileError::Protocol { theirs: protocol, ours: super::VERSION });
        }
        serde_json::from_slice(bytes).map_err(HostFileError::Json)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn good() -> Value {
        json!({
            "protocol": 1,
            "request_keys": ["Request", "Image"],
            "companion": "0.1.0",
            "image": "git.example.org/chris/app",
            "budget_seconds": 600,
            "boot": "0a0a0a0a-0000-4000-8000-00000000000f",
            "log_required": true,
            "running": {"tag": "v1", "digest": format!("sha256:{}", "0".repeat(64))},
        })
    }

    fn parse(value: &Value) -> Result<HostFile, HostFileError> {
        HostFile::parse(value.to_string().as_bytes())
    }

    #[test]
    fn a_good_file_comes_back() {
        let host = parse(&good()).unwrap();
        assert_eq!(HostFile::parse(&host.encode()).unwrap(), host);
        assert!(host.encode().ends_with(b"}\n"));
    }

    #[test]
    fn later_keys_are_passed_over_and_running_may_be_absent() {
        let mut value = good();
        value["mood"] = json!("good");
        value.as_object_mut().unwrap().remove("running");
        assert_eq!(parse(&value).unwrap().running, None);
    }

    #[test]
    fn another_protocol_is_told_before_anything_else() {
        let error = HostFile::parse(br#"{"protocol": 2, "all": "different"}"#).unwrap_err();
        assert_eq!(error.kind(), "protocol-version");
        assert!(error.to_string().contains("speaks version 2"), "{error}");
    }

    #[test]
    fn files_with_a_defect_are_refused() {
        for key in ["protocol", "request_keys", "companion", "image", "budget_seconds", "boot", "log_required"] {
            let mut value = good();
            value.as_object_mut().unwrap().remove(key);
            assert!(parse(&value).is_err(), "no {key}");
        }
        for (key, wrong) in [
            ("protocol", json!("1")),
            ("protocol", json!(-1)),
            ("request_keys", json!("Request")),
            ("request_keys", json!(["a\nb"])),
            ("companion", json!("\u{1b}[2J")),
            ("image", json!("App")),
            ("budget_seconds", json!(-600)),
            ("boot", json!("now")),
            ("log_required", json!("yes")),
            ("running", json!({"tag": "v1"})),
            ("running", json!({"digest": "sha256:0"})),
        ] {
            let mut value = good();
            value[key] = wrong.clone();
            assert!(parse(&value).is_err(), "{key}: {wrong}");
        }
        for (defect, bytes) in
            [("empty", &b""[..]), ("half", b"{\"protocol\": 1,"), ("a list", b"[]"), ("binary", b"\xff")]
        {
            assert!(HostFile::parse(bytes).is_err(), "{defect}");
        }
        assert!(matches!(HostFile::parse(&vec![b' '; LIMIT + 1]), Err(HostFileError::TooLarge)));
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = HostFile::parse(&bytes);
        }
    }
}
