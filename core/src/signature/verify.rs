//! Decides whether an image's signatures count. Pure: what was found, policy and expectation in, [`Verified`] or the most
//! telling reason out; no network, clock or file is used here.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::annotations::Annotations;
use super::attached::{Attached, Blob, Unusable};
use super::bundle;
use super::error::{Fault, VerifyError};
use super::keys::{Algorithm, Fingerprint, PublicKey};
use super::layer::Layer;
use super::log::{Entry, Kind, LogError, Logged, Subject};
use super::payload;
use super::policy::{AnnotationRule, Expectation, Policy, Rekor};
use super::sigstore_bundle::{self, Signer, SigstoreBundle};
use super::statement;
use super::verified::{Evidence, TagClaim, Verified};
use crate::reference::Digest;

/// Checks each signature on its own; one must pass all of it.
///
/// Of several good ones the last, which is the newest, with the requested tag counts, else the last without any. An
/// image signed under other tags alone is refused even if a signature without any tag is among them: what its owner said
/// most precisely holds.
pub fn verify(expected: &Expectation, found: &[Attached], policy: &Policy) -> Result<Verified, VerifyError> {
    let mut good = Vec::new();
    let mut closest = Fault::NoSignature;
    for attached in found {
        let checked = match attached {
            Attached::Layer(layer) => check_layer(expected, layer, policy),
            Attached::Bundle(blob) => check_bundle(expected, blob, policy),
        };
        match checked {
            Ok(verified) => good.push(verified),
            Err(fault) if fault.rank() >= closest.rank() => closest = fault,
            Err(_) => {}
        }
    }
    choose(expected, good, closest)
        .map_err(|fault| VerifyError::new(expected.repository.clone(), expected.digest, found.len(), fault))
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

/// What one signature says, once the signature itself has been found to be by a trusted key.
struct Signed<'p> {
    key: &'p PublicKey,
    /// The repository, where the payload has a place of its own for it.
    docker_reference: Option<String>,
    digest: Digest,
    annotations: Annotations,
}

/// Everything about one layer but its tag, cheapest and most telling first. Nothing signed is parsed before its
/// signature has verified.
fn check_layer(expected: &Expectation, layer: &Layer, policy: &Policy) -> Result<Verified, Fault> {
    let bytes = usable(&layer.payload)?;
    let encoded = layer.signature().ok_or(Fault::Malformed("the signature is missing"))?;
    let signature = STANDARD.decode(encoded).map_err(|_| Fault::Malformed("the signature is not base64"))?;
    let key = signer(policy, &signature, bytes, || claimed_by(layer))?;
    let payload = payload::decode(bytes).map_err(Fault::Payload)?;
    let signed = Signed {
        key,
        docker_reference: Some(payload.docker_reference),
        digest: payload.digest,
        annotations: payload.annotations,
    };
    names_the_image(expected, &signed, policy)?;
    let subject = Subject { kind: Kind::HashedRekord, payload: bytes, signature: &signature, key };
    let logged = match (policy.rekor, layer.bundle()) {
        (Rekor::Off, _) | (Rekor::WhenPresent, None) => None,
        (Rekor::Required, None) => return Err(Fault::LogMissing),
        (Rekor::Required | Rekor::WhenPresent, Some(text)) => {
            let entry = bundle::decode(text).and_then(|entry| entry.verify(&policy.log_keys, &subject));
            Some(entry.map_err(Fault::Log)?)
        }
    };
    let evidence = Evidence::Layer {
        payload: String::from_utf8_lossy(bytes).into_owned(),
        signature: encoded.to_owned(),
        bundle: logged.is_some().then(|| layer.bundle().map(str::to_owned)).flatten(),
        key: key.fingerprint(),
    };
    admit(expected, policy, signed, logged, evidence)
}

/// As [`check_layer`], about a bundle.
fn check_bundle(expected: &Expectation, blob: &Blob, policy: &Policy) -> Result<Verified, Fault> {
    let bytes = usable(blob)?;
    let bundle = sigstore_bundle::decode(bytes).map_err(Fault::Bundle)?;
    let Signer::Key(hint) = bundle.signer else { return Err(foreign(policy, None)) };
    let envelope = &bundle.envelope;
    let key = signer(policy, &envelope.signature, &envelope.signed_bytes(), || hint)?;
    if envelope.payload_type != statement::PAYLOAD_TYPE {
        return Err(Fault::Malformed("its envelope holds no in-toto statement"));
    }
    let statement = statement::decode(&envelope.payload).map_err(Fault::Payload)?;
    let signed = Signed { key, docker_reference: None, digest: statement.digest, annotations: statement.annotations };
    names_the_image(expected, &signed, policy)?;
    let logged = logged(&bundle, key, policy)?;
    let text = String::from_utf8_lossy(bytes).into_owned();
    admit(expected, policy, signed, logged, Evidence::Bundle { sigstore_bundle: text, key: key.fingerprint() })
}

fn usable(blob: &Blob) -> Result<&[u8], Fault> {
    blob.bytes().map(AsRef::as_ref).map_err(|why| match why {
        Unusable::Corrupt => Fault::Tampered,
        Unusable::Missing => Fault::PayloadMissing,
    })
}

/// The trusted key that signed. The claim says who else may have: it is unchecked, and tells no more than which message
/// is right.
fn signer<'p>(
    policy: &'p Policy,
    signature: &[u8],
    message: &[u8],
    claim: impl FnOnce() -> Option<Fingerprint>,
) -> Result<&'p PublicKey, Fault> {
    policy.keys.iter().find(|key| key.verify(signature, message)).ok_or_else(|| {
        let foreign = foreign(policy, claim());
        if policy.keys.iter().any(|key| key.fits(signature)) { foreign } else { misfit(foreign, signature) }
    })
}

/// What is wrong with a signature that has no trusted key's form: it is malformed, unless it is somebody else's, by a
/// key of another algorithm.
fn misfit(foreign: Fault, signature: &[u8]) -> Fault {
    match foreign {
        Fault::Foreign { by: Some(_), .. } => foreign,
        Fault::Foreign { by: None, .. } if Algorithm::ALL.iter().any(|other| other.fits(signature)) => foreign,
        _ => Fault::Malformed("the signature has not the form of a trusted key's"),
    }
}

/// Why no trusted key verifies a signature: somebody else's, or one of ours over other bytes.
fn foreign(policy: &Policy, claimed: Option<Fingerprint>) -> Fault {
    match claimed {
        Some(claimed) if policy.keys.iter().any(|key| key.fingerprint() == claimed) => Fault::Tampered,
        by => Fault::Foreign { by, trusted: policy.keys.iter().map(PublicKey::fingerprint).collect() },
    }
}

/// Whose signature a layer says it is: by the log's entry, else by our own note beside it.
fn claimed_by(layer: &Layer) -> Option<Fingerprint> {
    let logged = layer.bundle().and_then(|text| bundle::decode(text).ok()).and_then(|entry: Entry| entry.claimed_key());
    logged.map(|key| key.fingerprint()).or(layer.claimed_key().and_then(|text| text.parse().ok()))
}

fn names_the_image(expected: &Expectation, signed: &Signed<'_>, policy: &Policy) -> Result<(), Fault> {
    if let Some(reference) = &signed.docker_reference
        && *reference != payload::docker_reference(&expected.repository)
    {
        return Err(Fault::OtherRepository { signed: reference.clone() });
    }
    if signed.digest != expected.digest {
        return Err(Fault::OtherDigest { signed: signed.digest });
    }
    match signed.annotations.repository() {
        // Where a signature has no other word for its repository, this one is heeded whatever the rule.
        Some(other)
            if *other != expected.repository
                && (policy.annotations != AnnotationRule::Off || signed.docker_reference.is_none()) =>
        {
            Err(Fault::OtherRepository { signed: other.to_string() })
        }
        _ => Ok(()),
    }
}

/// The log's word about a bundle. One good entry of a log that is trusted is enough; of bad ones the last is told.
fn logged(bundle: &SigstoreBundle, key: &PublicKey, policy: &Policy) -> Result<Option<Logged>, Fault> {
    if policy.rekor == Rekor::Off {
        return Ok(None);
    }
    let SigstoreBundle { envelope, entries, .. } = bundle;
    let subject = Subject { kind: Kind::Dsse, payload: &envelope.payload, signature: &envelope.signature, key };
    let mut fault = None;
    for evidence in entries {
        match evidence {
            Ok(found) => match found.entry.verify_with(&found.proof, &policy.log_keys, &subject) {
                Ok(logged) => return Ok(Some(logged)),
                Err(error) => fault = Some(error),
            },
            Err(unfit) => fault = Some(LogError::from(*unfit)),
        }
    }
    match (fault, policy.rekor) {
        (Some(error), _) => Err(Fault::Log(error)),
        (None, Rekor::Required) => Err(Fault::LogMissing),
        (None, _) => Ok(None),
    }
}

fn admit(
    expected: &Expectation,
    policy: &Policy,
    signed: Signed<'_>,
    logged: Option<Logged>,
    evidence: Evidence,
) -> Result<Verified, Fault> {
    let annotations =
        if policy.annotations == AnnotationRule::Off { Annotations::default() } else { signed.annotations };
    let tag = match annotations.tag() {
        Some(tag) => TagClaim::Signed(tag.clone()),
        None if policy.annotations == AnnotationRule::Required => return Err(Fault::AnnotationsMissing),
        None => TagClaim::Unsigned,
    };
    Ok(Verified {
        repository: expected.repository.clone(),
        digest: expected.digest,
        repository_signed: signed.docker_reference.is_some() || annotations.repository().is_some(),
        tag,
        annotations,
        key_name: signed.key.name().to_owned(),
        evidence,
        logged,
    })
}
