//! A transparency log's answer: the entry, and the checkpoint and inclusion proof that show it in the log's tree.
//!
//! Bytes are read as a whole answer, and as checkpoint and proof of an answer that is otherwise good: a note in the
//! form of C2SP's `signed-note`, a line `==`, and the other members of `inclusionProof`.

use std::sync::LazyLock;

use serde_json::{Value, json};
use tagship_core::signature::log::{Answer, MAX_ANSWER_LEN, Proposal};

use super::template::{fill, sections};
use super::world::{Hash, INDEX, Party, TIME, WORLD, base64, hash, stamped, tree};
use super::{same_as_serde_json, told};

const PAYLOAD: &[u8] = b"the payload";

/// The members of `inclusionProof` beside its checkpoint, for a log of two leaves of which the second is ours.
const PROOF: &str = r#""hashes":["${first}"],"logIndex":1,"rootHash":"${root}","treeSize":2"#;

static RECORD: LazyLock<Record> = LazyLock::new(|| {
    let signature = WORLD.owner.sign(PAYLOAD);
    let proposal = Proposal::hashed_rekord(PAYLOAD, &signature, &WORLD.owner.public);
    let body = serde_json::to_vec(&proposal).expect("a body");
    Record { signature, body }
});

/// A signature that the log has recorded.
struct Record {
    signature: Vec<u8>,
    body: Vec<u8>,
}

/// Reads bytes as an answer, and as part of one. Says whether either proved anything.
pub(crate) fn run(bytes: &[u8]) -> bool {
    let whole = answer(bytes);
    let parts = sections(bytes, "==");
    let note = parts.first().copied().unwrap_or_default();
    let proof = parts.get(1).copied().unwrap_or(PROOF.as_bytes());
    whole | str::from_utf8(&framed(note, proof)).is_ok_and(|text| answer(text.as_bytes()))
}

/// The answer that holds this checkpoint and this proof.
fn framed(note: &[u8], proof: &[u8]) -> Vec<u8> {
    let first = tree(&RECORD.body).first;
    let leaf = hash(&[&[0], &RECORD.body]);
    // The root that the proof leads to, by an algorithm of our own: so that every tree can be tried, not only one.
    let with = |root: Hash| {
        fill(proof, |name| match name {
            "first" => Some(hex(&first)),
            "leaf" => Some(hex(&leaf)),
            "root" => Some(hex(&root)),
            _ => None,
        })
    };
    let members: Option<Value> = serde_json::from_slice(&[b"{", &with([0; 32])[..], b"}"].concat()).ok();
    let root = members.as_ref().and_then(|members| root(members, leaf)).unwrap_or_default();
    let size = members.and_then(|members| members.get("treeSize")?.as_u64()).unwrap_or_default();

    let text = note.iter().position(|byte| *byte == b'\n').unwrap_or_default();
    let values = |name: &str| match name {
        "root" => Some(base64(&root)),
        "size" => Some(size.to_string().into_bytes()),
        _ => None,
    };
    let (signed, signatures) = match text {
        0 => (note, &b""[..]),
        _ => split_at_blank_line(note),
    };
    let mut checkpoint = fill(signed, values);
    let sign = |party: &Party, text: &[u8]| base64(&[&[1, 2, 3, 4], &party.sign(text)[..]].concat());
    let lines = fill(signatures, |name| match name {
        "log" => Some(sign(&WORLD.log, &checkpoint)),
        "stranger" => Some(sign(&WORLD.stranger, &checkpoint)),
        _ => None,
    });
    checkpoint.extend(lines);

    let body = String::from_utf8(base64(&RECORD.body)).expect("base64 is text");
    let log = WORLD.log.public.fingerprint().to_string();
    let timestamp = String::from_utf8(WORLD.log.sign64(stamped(&body, &log).as_bytes())).expect("base64 is text");
    let checkpoint = json!(String::from_utf8_lossy(&checkpoint)).to_string();
    let before = format!(
        r#"{{"24296fb24b8ad77a":{{"body":"{body}","integratedTime":{TIME},"logID":"{log}","logIndex":{INDEX},"verification":{{"signedEntryTimestamp":"{timestamp}","inclusionProof":{{"checkpoint":{checkpoint},"#
    );
    [before.as_bytes(), &with(root), b"}}}}"].concat()
}

/// A note, with the end of its last line, and all that stands below.
fn split_at_blank_line(note: &[u8]) -> (&[u8], &[u8]) {
    let at = note.windows(2).position(|pair| pair == b"\n\n").map_or(note.len(), |at| at + 1);
    note.split_at(at)
}

fn answer(bytes: &[u8]) -> bool {
    let answer = match Answer::parse(bytes) {
        Ok(answer) => answer,
        Err(error) => {
            told(&error);
            return false;
        }
    };
    let document = same_as_serde_json(bytes, MAX_ANSWER_LEN).expect("an answer is strict JSON");
    let proposal = Proposal::hashed_rekord(PAYLOAD, &RECORD.signature, &WORLD.owner.public);
    let logged = match answer.verify(&WORLD.log.public, proposal.subject()) {
        Ok(recorded) => recorded.logged,
        Err(error) => {
            told(&error);
            return false;
        }
    };
    assert_eq!((logged.index(), logged.time()), (INDEX, TIME), "what the log did not sign was believed");
    let entry = document.as_object().and_then(|entries| entries.values().next()).expect("one entry");
    let proof = &entry["verification"]["inclusionProof"];
    let computed = root(proof, hash(&[&[0], &RECORD.body])).expect("a proof that holds leads to a root");
    assert_eq!(proof["rootHash"].as_str().map(str::as_bytes), Some(&hex(&computed)[..]), "the proof leads elsewhere");
    let note = proof["checkpoint"].as_str().unwrap_or_default();
    let lines: Vec<_> = note.split('\n').collect();
    let told_root = String::from_utf8(base64(&computed)).expect("base64 is text");
    assert_eq!(lines.get(2).copied(), Some(told_root.as_str()), "the checkpoint is of another tree");
    assert_eq!(lines.get(1).and_then(|size| size.parse().ok()), proof["treeSize"].as_u64(), "of another size");
    true
}

/// The root that an inclusion proof leads to (RFC 9162 clause 2.1.3.2), `None` if it is none.
fn root(proof: &Value, leaf: Hash) -> Option<Hash> {
    let mut place = proof.get("logIndex")?.as_u64()?;
    let mut last = proof.get("treeSize")?.as_u64()?.checked_sub(1)?;
    if place > last {
        return None;
    }
    let mut root = leaf;
    for text in proof.get("hashes")?.as_array()? {
        let other = unhex(text.as_str()?)?;
        if last == 0 {
            return None;
        }
        if place & 1 == 1 || place == last {
            root = hash(&[&[1], &other, &root]);
            while place & 1 == 0 && place != 0 {
                (place, last) = (place >> 1, last >> 1);
            }
        } else {
            root = hash(&[&[1], &root, &other]);
        }
        (place, last) = (place >> 1, last >> 1);
    }
    (last == 0).then_some(root)
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

fn unhex(text: &str) -> Option<Hash> {
    let digits: Vec<u8> = text.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    bytes.try_into().ok()
}
