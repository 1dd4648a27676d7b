//! The proof that a log's tree holds an entry: a path of hashes to a root, and the log's signature over that root.

use sigstore::rekor::models::InclusionProof;
use sigstore::rekor::models::checkpoint::SignedCheckpoint;

use super::LogError;
use crate::signature::keys::PublicKey;

/// Most leaves of a tree: Rekor counts them in an `int64`. Beyond 2^63 a path may have 64 hashes, and sigstore's
/// arithmetic shifts by as many bits, which overflows.
const MAX_SIZE: u64 = i64::MAX.cast_unsigned();

/// Most hashes of an inclusion proof: a path in a tree of 2^63 leaves.
const MAX_HASHES: usize = 63;

/// Most signatures under a checkpoint: the log's own and some witnesses'.
const MAX_CHECKPOINT_SIGNATURES: usize = 16;

/// Longest checkpoint, in bytes: one with a witness has 400.
const MAX_CHECKPOINT_LEN: usize = 16 * 1024;

/// An inclusion proof. Nothing of it is checked until [`Entry::verify_with`](super::Entry::verify_with).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The entry's place in this shard of the log, unlike its index over all of them.
    pub index: u64,
    /// The root of the tree.
    pub root: [u8; 32],
    /// The number of leaves of the tree.
    pub size: u64,
    /// The path from the leaf to the root.
    pub hashes: Vec<[u8; 32]>,
    /// The log's signed note about the tree (C2SP tlog-checkpoint).
    pub checkpoint: String,
}

impl Proof {
    /// Checks that the tree holds the leaf, and that the log signed the tree's root.
    pub(super) fn verify(&self, leaf: &[u8], log: &PublicKey) -> Result<(), LogError> {
        let index = i64::try_from(self.index).map_err(|_| LogError::Field("inclusion proof"))?;
        if self.size > MAX_SIZE || self.hashes.len() > MAX_HASHES {
            return Err(LogError::Field("inclusion proof"));
        }
        if self.checkpoint.len() > MAX_CHECKPOINT_LEN {
            return Err(LogError::Field("checkpoint"));
        }
        let mut outcome = Err(LogError::Field("checkpoint"));
        for checkpoint in checkpoints(&self.checkpoint) {
            // A witness may sign in a way that is not known here.
            let Some(checkpoint) = checkpoint else { continue };
            let proof = InclusionProof::new(index, self.root, self.size, self.hashes.clone(), Some(checkpoint));
            outcome = proof.verify(leaf, &log.sigstore()).map_err(|error| LogError::Proof(Box::new(error)));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

/// The checkpoint once for each of its signatures: sigstore's parser takes exactly one, but a log may add witnesses'.
fn checkpoints(text: &str) -> impl Iterator<Item = Option<SignedCheckpoint>> {
    use serde::Deserialize as _;

    let (note, signatures) = text.split_once("\n\n").unwrap_or_default();
    signatures
        .lines()
        .filter(|line| !line.is_empty())
        .take(MAX_CHECKPOINT_SIGNATURES)
        .map(move |line| SignedCheckpoint::deserialize(serde_json::Value::String(format!("{note}\n\n{line}\n"))).ok())
}
