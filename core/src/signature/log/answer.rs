//! A log's answer: an entry, and the proof that the log's tree holds it.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{Entry, LogError, Logged, MAX_ANSWER_LEN, Proof, Subject};
use crate::reference::Digest;
use crate::signature::json;
use crate::signature::keys::PublicKey;

/// A log's answer to an upload or a query: one entry and its inclusion proof.
#[derive(Clone, Debug)]
pub struct Answer {
    entry: Entry,
    proof: Option<Proof>,
}

/// An entry whose every proof was checked.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The entry, to be kept beside the signature.
    pub entry: Entry,
    /// The proof that the log's tree holds it.
    pub proof: Proof,
    /// What was found.
    pub logged: Logged,
}

impl Answer {
    /// Reads the answer of `POST` and `GET` of `/api/v1/log/entries`: an object with one entry under its id.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let entries: BTreeMap<String, WireEntry> = json::parse(bytes, MAX_ANSWER_LEN).map_err(LogError::Json)?;
        let mut entries = entries.into_values();
        let (Some(entry), None) = (entries.next(), entries.next()) else {
            return Err(LogError::Field("number of entries"));
        };
        let timestamp = STANDARD
            .decode(entry.verification.signed_entry_timestamp)
            .map_err(|_| LogError::Field("signedEntryTimestamp"))?;
        Ok(Self {
            entry: Entry {
                body: entry.body,
                integrated_time: entry.integrated_time,
                log_index: entry.log_index,
                log_id: entry.log_id,
                timestamp,
            },
            proof: entry.verification.inclusion_proof.map(WireProof::read).transpose()?,
        })
    }

    /// Checks all of it: what [`Entry::verify`] checks, and that the log's signed tree holds the entry.
    pub fn verify(self, log: &PublicKey, subject: &Subject<'_>) -> Result<Recorded, LogError> {
        let Self { entry, proof } = self;
        let proof = proof.ok_or(LogError::NoProof)?;
        let logged = entry.verify_with(&proof, std::slice::from_ref(log), subject)?;
        Ok(Recorded { entry, proof, logged })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEntry {
    body: String,
    integrated_time: i64,
    #[serde(rename = "logID")]
    log_id: String,
    log_index: u64,
    verification: WireVerification,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireVerification {
    signed_entry_timestamp: String,
    inclusion_proof: Option<WireProof>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProof {
    checkpoint: String,
    hashes: Vec<String>,
    log_index: u64,
    root_hash: String,
    tree_size: u64,
}

impl WireProof {
    fn read(self) -> Result<Proof, LogError> {
        let hash = |hex: &String| format!("sha256:{hex}").parse::<Digest>().map(|digest| *digest.as_bytes());
        let field = |_| LogError::Field("inclusion proof");
        Ok(Proof {
            index: self.log_index,
            root: hash(&self.root_hash).map_err(|_| LogError::Field("root hash"))?,
            size: self.tree_size,
            hashes: self.hashes.iter().map(hash).collect::<Result<_, _>>().map_err(field)?,
            checkpoint: self.checkpoint,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::signature::log::Kind;
    use crate::signature::testing::{self, Signer, node};

    /// An entry of Sigstore's staging log with its proof in a tree of 14358 leaves, from sigstore-rs' test data.
    const STAGING_ENTRY: &str = include_str!("../../../testdata/rekor-staging-entry.json");
    const STAGING_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEDODRU688UYGuy54mNUlaEBiQdTE9
nYLr0lg6RXowI/QV/RE1azBn4Eg5/2uTOMbhB1/gfcHzijzFi9Tk+g1Prg==
-----END PUBLIC KEY-----";

    const PAYLOAD: &[u8] = b"the payload";

    /// A log of two leaves, of which the second is ours.
    struct World {
        owner: Signer,
        log: Signer,
        signature: Vec<u8>,
    }

    impl World {
        fn new() -> Self {
            let owner = Signer::new("owner");
            let signature = owner.sign(PAYLOAD);
            Self { owner, log: Signer::new("log"), signature }
        }

        fn subject(&self) -> Subject<'_> {
            Subject { kind: Kind::HashedRekord, payload: PAYLOAD, signature: &self.signature, key: &self.owner.public }
        }

        fn answer(&self) -> Value {
            let body = testing::body(PAYLOAD, &self.signature, &self.owner.public);
            let entry = self.log.entry(&body);
            let proof = self.log.proof(&body);
            let hex = |bytes: &[u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            json!({ "24296fb24b8ad77a": {
                "body": entry.body,
                "integratedTime": entry.integrated_time,
                "logID": entry.log_id,
                "logIndex": entry.log_index,
                "verification": {
                    "inclusionProof": {
                        "checkpoint": proof.checkpoint,
                        "hashes": [hex(&proof.hashes[0])],
                        "logIndex": proof.index,
                        "rootHash": hex(&proof.root),
                        "treeSize": proof.size,
                    },
                    "signedEntryTimestamp": STANDARD.encode(&entry.timestamp),
                },
            }})
        }

        fn verify(&self, answer: &str) -> Result<Recorded, LogError> {
            Answer::parse(answer.as_bytes())?.verify(&self.log.public, &self.subject())
        }
    }

    #[test]
    fn a_real_proof_holds() {
        let entry: Value = serde_json::from_str(STAGING_ENTRY).unwrap();
        let answer = Answer::parse(json!({ "id": entry }).to_string().as_bytes()).unwrap();
        let key = PublicKey::from_pem("staging", STAGING_KEY.as_bytes()).unwrap();
        let (leaf, proof) = (answer.entry.body_bytes().unwrap(), answer.proof.clone().unwrap());
        proof.verify(&leaf, &key).unwrap();
        assert!(proof.verify(b"another leaf", &key).is_err());
        assert!(proof.verify(&leaf, &PublicKey::public_log()).is_err());
        let world = World::new();
        assert!(matches!(answer.verify(&key, &world.subject()), Err(LogError::Other("payload"))));
    }

    #[test]
    fn an_answer_proves_the_entry() {
        let world = World::new();
        let recorded = world.verify(&world.answer().to_string()).unwrap();
        assert_eq!((recorded.logged.index(), recorded.entry.log_index), (42, 42));
        let mut answer = world.answer();
        let checkpoint = answer.pointer_mut("/24296fb24b8ad77a/verification/inclusionProof/checkpoint").unwrap();
        // Of a witness that is not known here, before and after the log's own signature.
        let witness = format!("\u{2014} witness.test {}\n", STANDARD.encode([9; 70]));
        let (note, own) = checkpoint.as_str().unwrap().split_once("\n\n").unwrap();
        *checkpoint = format!("{note}\n\n{witness}{own}{witness}").into();
        world.verify(&answer.to_string()).unwrap();
    }

    #[test]
    fn refuses_what_proves_nothing() {
        let world = World::new();
        let (stranger, zeros) = (Signer::new("stranger"), "00".repeat(32));
        let proof = "/24296fb24b8ad77a/verification/inclusionProof";
        let at = |field: &str| format!("{proof}/{field}");
        let root = world.log.proof(&testing::body(PAYLOAD, &world.signature, &world.owner.public)).root;
        for (defect, path, value) in [
            ("no proof", proof.to_owned(), Value::Null),
            ("checkpoint empty", at("checkpoint"), json!("")),
            ("checkpoint without signature", at("checkpoint"), json!("log.test - 1\n2\nAAAA\n")),
            ("checkpoint without blank line", at("checkpoint"), json!("log.test\n2\n\u{2014} log.test AAAA\n")),
            ("checkpoint signature not base64", at("checkpoint"), json!("log.test\n2\nAAAA\n\n\u{2014} log.test @\n")),
            ("checkpoint of another tree", at("checkpoint"), json!(world.log.checkpoint(2, &[7; 32]))),
            ("checkpoint of another size", at("checkpoint"), json!(world.log.checkpoint(3, &root))),
            ("checkpoint by a stranger", at("checkpoint"), json!(stranger.checkpoint(2, &root))),
            ("no hashes", at("hashes"), json!([])),
            ("other hash", at("hashes"), json!([zeros])),
            ("too many hashes", at("hashes"), json!(vec![zeros.clone(); 65])),
            ("hash not hexadecimal", at("hashes"), json!(["zz"])),
            ("other root", at("rootHash"), json!(zeros)),
            ("root not hexadecimal", at("rootHash"), json!("")),
            ("other place", at("logIndex"), json!(0)),
            ("place beyond the tree", at("logIndex"), json!(2)),
            ("place negative", at("logIndex"), json!(-1)),
            ("other size", at("treeSize"), json!(3)),
            ("size zero", at("treeSize"), json!(0)),
            ("size negative", at("treeSize"), json!(-2)),
            ("no timestamp", "/24296fb24b8ad77a/verification/signedEntryTimestamp".to_owned(), json!("")),
            ("no entry", String::new(), json!({})),
            ("a list", String::new(), json!([])),
        ] {
            let mut answer = world.answer();
            *answer.pointer_mut(&path).unwrap() = value;
            assert!(world.verify(&answer.to_string()).is_err(), "{defect}");
        }
        let mut two = world.answer();
        two["other"] = two["24296fb24b8ad77a"].clone();
        assert!(world.verify(&two.to_string()).is_err(), "two entries");
        // Signed by the log itself, so that nothing stops it before the arithmetic.
        let mut endless = world.answer();
        let root = node(&[&[9]]);
        let size = (1_u64 << 63) + 1;
        let proof = json!({
            "checkpoint": world.log.checkpoint(size, &root), "hashes": [], "logIndex": 0, "treeSize": size,
            "rootHash": root.map(|byte| format!("{byte:02x}")).concat(),
        });
        endless["24296fb24b8ad77a"]["verification"]["inclusionProof"] = proof;
        assert!(
            matches!(world.verify(&endless.to_string()), Err(LogError::Field(_))),
            "a tree of more than 2^63 leaves"
        );
        let short: String = world.answer().to_string().chars().take(500).collect();
        assert!(world.verify(&short).is_err(), "cut short");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = Answer::parse(&bytes);
        }

        #[test]
        fn no_proof_makes_it_panic(
            checkpoint in ".{0,120}", index in proptest::prelude::any::<u64>(), size in proptest::prelude::any::<u64>(),
            hashes in 0..70_usize,
        ) {
            let proof = Proof { checkpoint, hashes: vec![[0; 32]; hashes], index, root: [0; 32], size };
            proptest::prop_assert!(proof.verify(b"leaf", &PublicKey::public_log()).is_err());
        }
    }
}
