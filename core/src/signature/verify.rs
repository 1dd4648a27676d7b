//! Decides whether an image's signatures count. Pure: layers, policy and expectation in, [`Verified`] or the most
//! telling reason out; no network, clock or file is used here.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::annotations::Annotations;
use super::bundle;
use super::error::{Fault, VerifyError};
use super::keys::PublicKey;
use super::layer::{Content, Layer};
use super::log::{Entry, Logged, Subject};
use super::payload::{self, Payload};
use super::policy::{AnnotationRule, Expectation, Policy, Rekor};
use super::verified::{Evidence, TagClaim, Verified};
use crate::reference::Digest;

/// Checks each layer on its own; one must pass all of it.
///
/// Of several good ones the last, which is the newest, with the requested tag counts, else the last without any. An
/// image signed under other tags alone is refused even if a signature without any tag is among them: what its owner said
/// most precisely holds.
pub fn verify(expected: &Expectation, layers: &[Layer], policy: &Policy) -> Result<Verified, VerifyError> {
    let mut good = Vec::new();
    let mut closest = Fault::NoSignature;
    for layer in layers {
        match check(expected, layer, policy) {
            Ok(verified) => good.push(verified),
            Err(fault) if fault.rank() >= closest.rank() => closest = fault,
            Err(_) => {}
        }
    }
    choose(expected, good, closest)
        .map_err(|fault| VerifyError::new(expected.repository.clone(), expected.digest, layers.len(), fault))
}

/// Picks among signatures that count. Tags are compared here, not layer by layer: one image may have several.
fn choose(expected: &Expectation, good: Vec<Verified>, closest: Fault) -> Result<Verified, Fault> {
    let (tagged, untagged): (Vec<_>, Vec<_>) = good.into_iter().partition(|one| one.tag != TagClaim::Unsigned);
    let Some(requested) = &expected.tag else {
        // One that says more is preferred to one that says less.
        return tagged.into_iter().next_back().or(untagged.into_iter().next_back()).ok_or(closest);
    };
    if tagged.is_empty() {
        return untagged.into_iter().next_back().ok_or(closest);
    }
    let mut others = Vec::new();
    let mut chosen = None;
    for verified in tagged {
        match &verified.tag {
            TagClaim::Signed(signed) if signed != requested && !others.contains(signed) => others.push(signed.clone()),
            TagClaim::Signed(signed) if signed == requested => chosen = Some(verified),
            _ => {}
        }
    }
    chosen.ok_or_else(|| Fault::TagMismatch { requested: requested.clone(), signed: others })
}

/// Everything about one layer but its tag, cheapest and most telling first. Nothing signed is parsed before its
/// signature has verified.
fn check(expected: &Expectation, layer: &Layer, policy: &Policy) -> Result<Verified, Fault> {
    let bytes = match &layer.content {
        Content::Bytes(bytes) if Digest::of(bytes) == layer.digest => bytes,
        Content::Bytes(_) | Content::Corrupt => return Err(Fault::Tampered),
        Content::Missing => return Err(Fault::PayloadMissing),
    };
    let encoded = layer.signature().ok_or(Fault::Malformed("the signature is missing"))?;
    let signature = STANDARD.decode(encoded).map_err(|_| Fault::Malformed("the signature is not base64"))?;
    if !super::der::is_canonical_ecdsa(&signature) {
        return Err(Fault::Malformed("the signature is not in canonical DER"));
    }
    let key =
        policy.keys.iter().find(|key| key.verify(&signature, bytes)).ok_or_else(|| unknown_signer(layer, policy))?;
    let payload = payload::decode(bytes).map_err(Fault::Payload)?;
    names_the_image(expected, &payload, policy)?;
    let logged = recorded(layer, policy, &Subject { payload: bytes, signature: &signature, key })?;
    let annotations =
        if policy.annotations == AnnotationRule::Off { Annotations::default() } else { payload.annotations };
    let tag = match annotations.tag() {
        Some(tag) => TagClaim::Signed(tag.clone()),
        None if policy.annotations == AnnotationRule::Required => return Err(Fault::AnnotationsMissing),
        None => TagClaim::Unsigned,
    };
    Ok(Verified {
        repository: expected.repository.clone(),
        digest: expected.digest,
        tag,
        annotations,
        key_name: key.name().to_owned(),
        evidence: Evidence {
            payload: String::from_utf8_lossy(bytes).into_owned(),
            signature: encoded.to_owned(),
            bundle: logged.is_some().then(|| layer.bundle().map(str::to_owned)).flatten(),
            key: key.fingerprint(),
        },
        logged,
    })
}

/// Why no trusted key verifies a signature: somebody else's, or one of ours over other bytes. The log's entry or our
/// own note beside the signature may tell which; both are unchecked and change nothing but the message.
fn unknown_signer(layer: &Layer, policy: &Policy) -> Fault {
    let logged = layer.bundle().and_then(|text| bundle::decode(text).ok()).and_then(|entry: Entry| entry.claimed_key());
    let noted = layer.claimed_key().and_then(|text| text.parse().ok());
    let claimed = logged.map(|key| key.fingerprint()).or(noted);
    match claimed {
        Some(claimed) if policy.keys.iter().any(|key| key.fingerprint() == claimed) => Fault::Tampered,
        claimed => Fault::Foreign { by: claimed, trusted: policy.keys.iter().map(PublicKey::fingerprint).collect() },
    }
}

fn names_the_image(expected: &Expectation, payload: &Payload, policy: &Policy) -> Result<(), Fault> {
    if payload.docker_reference != payload::docker_reference(&expected.repository) {
        return Err(Fault::OtherRepository { signed: payload.docker_reference.clone() });
    }
    if payload.digest != expected.digest {
        return Err(Fault::OtherDigest { signed: payload.digest });
    }
    match payload.annotations.repository() {
        Some(signed) if policy.annotations != AnnotationRule::Off && *signed != expected.repository => {
            Err(Fault::OtherRepository { signed: signed.to_string() })
        }
        _ => Ok(()),
    }
}

fn recorded(layer: &Layer, policy: &Policy, subject: &Subject<'_>) -> Result<Option<Logged>, Fault> {
    match (policy.rekor, layer.bundle()) {
        (Rekor::Off, _) | (Rekor::WhenPresent, None) => Ok(None),
        (Rekor::Required, None) => Err(Fault::LogMissing),
        (Rekor::Required | Rekor::WhenPresent, Some(text)) => {
            bundle::decode(text).and_then(|entry| entry.verify(&policy.log_keys, subject)).map(Some).map_err(Fault::Log)
        }
    }
}
