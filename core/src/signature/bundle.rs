//! The Rekor bundle that cosign 2.x writes beside a signature: the layer annotation `dev.sigstore.cosign/bundle`.
//!
//! Only its form lives here; whether it proves anything is [`Entry::verify`]'s to say.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::json;
use super::log::{Entry, LogError};

/// The annotation that carries a bundle.
pub const ANNOTATION: &str = "dev.sigstore.cosign/bundle";

/// Longest bundle that is read, in bytes: one has 1.5 KiB.
pub(super) const MAX_LEN: usize = 128 * 1024;

/// Reads a bundle.
pub fn decode(text: &str) -> Result<Entry, LogError> {
    let Bundle { signed_entry_timestamp, payload } = json::parse(text.as_bytes(), MAX_LEN).map_err(LogError::Json)?;
    Ok(Entry {
        body: payload.body,
        integrated_time: payload.integrated_time,
        log_index: payload.log_index,
        log_id: payload.log_id,
        timestamp: STANDARD.decode(signed_entry_timestamp).map_err(|_| LogError::Field("SignedEntryTimestamp"))?,
    })
}

/// Writes a bundle, members in cosign's order.
pub fn encode(entry: &Entry) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Bundle {
        signed_entry_timestamp: STANDARD.encode(&entry.timestamp),
        payload: Payload {
            body: entry.body.clone(),
            integrated_time: entry.integrated_time,
            log_index: entry.log_index,
            log_id: entry.log_id.clone(),
        },
    })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(expecting = "an object")]
struct Bundle {
    #[serde(rename = "SignedEntryTimestamp")]
    signed_entry_timestamp: String,
    #[serde(rename = "Payload")]
    payload: Payload,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    body: String,
    #[serde(rename = "integratedTime")]
    integrated_time: i64,
    #[serde(rename = "logIndex")]
    log_index: u64,
    #[serde(rename = "logID")]
    log_id: String,
}
