//! The full form's request: what the action asks the companion to deploy.
//!
//! Bytes to types and back, nothing else. Whether a signature counts is decided by whoever holds the keys, and whether
//! to deploy by the companion alone.

#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::fields::{self, BootId, Commit, Line, RunUrl};
use super::form::{Form, FormError};
use super::names::RequestId;
use crate::explain::Explain;
use crate::reference::{Digest, Repository, Tag};

/// The largest request, in bytes.
pub const LIMIT: usize = 4096;

/// The largest signature, in bytes: a DER signature on P-521 has 139, on P-256 at most 72.
const SIGNATURE_LIMIT: usize = 256;

/// The keys of a request, as `deploy-host` tells them.
pub const KEYS: [&str; 9] = [REQUEST, IMAGE, DIGEST, COMMIT, RUN, NOT_AFTER, BOOT, ROLLBACK, SIGNATURE];

const REQUEST: &str = "Request";
const IMAGE: &str = "Image";
const DIGEST: &str = "Digest";
const COMMIT: &str = "Commit";
const RUN: &str = "Run";
const NOT_AFTER: &str = "Not-After";
const BOOT: &str = "Boot";
const ROLLBACK: &str = "Rollback";
const SIGNATURE: &str = "Signature";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The version tag that the digest was released under.
    pub tag: Tag,
    /// Names the request; its answer carries the same.
    pub id: RequestId,
    /// Where the image is.
    pub image: Repository,
    /// Which image it is: this decides, not the tag.
    pub digest: Digest,
    /// The commit that it was built from, where there is one.
    pub commit: Option<Commit>,
    /// The workflow run that asks, for people to look at.
    pub run: Option<RunUrl>,
    /// The latest moment at which the deploy may begin.
    pub not_after: Timestamp,
    /// The host's boot that the request was made for, as `deploy-host` told it.
    pub boot: BootId,
    /// Whether an older version than the present one is meant. Grants nothing without a signature.
    pub rollback: bool,
}

/// A request as it came: what it says, and what a signature would have to cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub request: Request,
    signature: Option<Signature>,
}

/// Bytes and the signature that somebody put under them. Not checked by being here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// All bytes before the signature's own line.
    pub message: Vec<u8>,
    /// The signature, decoded from its base64.
    pub bytes: Vec<u8>,
}

/// Why bytes are no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not even the form.
    #[error("the request cannot be read")]
    Form(#[from] FormError),
    /// The first line breaks the OCI grammar of tags.
    #[error("the request's first line is no image tag")]
    Tag,
    /// A key that this version does not know. It may have been meant as a restriction, so it is not passed over.
    #[error("the request has the unknown key {0}")]
    UnknownKey(Line),
    /// A key for the second time.
    #[error("the request has the key {0} twice")]
    Twice(&'static str),
    /// A key that has to be there.
    #[error("the request lacks the key {0}")]
    Missing(&'static str),
    /// A value that its key cannot have.
    #[error("the request's {key} is {why}")]
    Value {
        /// Whose value.
        key: &'static str,
        /// What it is, or is not.
        why: Line,
    },
    /// The signature covers what stands before it: nothing may follow.
    #[error("something follows the request's signature")]
    AfterSignature,
}

impl Explain for RequestError {
    fn kind(&self) -> &'static str {
        match self {
            RequestError::UnknownKey(_) => "request-key-unknown",
            _ => "request-invalid",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            RequestError::UnknownKey(_) => {
                Some("the action is newer than the companion: update tagship-host on the host".to_owned())
            }
            _ => None,
        }
    }
}

impl Request {
    /// The request's bytes, unsigned.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{}\n", self.tag);
        let mut field = |key: &str, value: &dyn fmt::Display| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key}: {value}");
        };
        field(REQUEST, &self.id);
        field(IMAGE, &self.image);
        field(DIGEST, &self.digest);
        if let Some(commit) = &self.commit {
            field(COMMIT, commit);
        }
        if let Some(run) = &self.run {
            field(RUN, run);
        }
        field(NOT_AFTER, &self.not_after);
        field(BOOT, &self.boot);
        if self.rollback {
            field(ROLLBACK, &self.rollback);
        }
        text.into_bytes()
    }

    /// The request's bytes, signed with `sign`, which gets all bytes before the signature's line.
    ///
    /// # Errors
    /// Only those of `sign`.
    pub fn encode_signed<E>(&self, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
        let mut bytes = self.encode();
        let signature = sign(&bytes)?;
        bytes.extend_from_slice(format!("{SIGNATURE}: {}\n", STANDARD.encode(signature)).as_bytes());
        Ok(bytes)
    }
}

impl Received {
    /// Reads a request. Strict: unknown, missing and repeated keys are refused.
    ///
    /// # Errors
    /// For anything that is no well-formed request, with the first defect found.
    pub fn parse(bytes: &[u8]) -> Result<Received, RequestError> {
        let form = Form::parse(bytes, LIMIT)?;
        let tag = form.first.parse().map_err(|_| RequestError::Tag)?;
        let mut id = None;
        let mut image = None;
        let mut digest = None;
        let mut commit = None;
        let mut run = None;
        let mut not_after = None;
        let mut boot = None;
        let mut rollback = None;
        let mut signature = None;
        for field in &form.fields {
            if signature.is_some() {
                return Err(RequestError::AfterSignature);
            }
            let value = field.value;
            match field.key {
                REQUEST => set(&mut id, REQUEST, value.parse())?,
                IMAGE => set(&mut image, IMAGE, value.parse())?,
                DIGEST => set(&mut digest, DIGEST, value.parse())?,
                COMMIT => set(&mut commit, COMMIT, value.parse())?,
                RUN => set(&mut run, RUN, value.parse())?,
                NOT_AFTER => set(&mut not_after, NOT_AFTER, fields::utc(value))?,
                BOOT => set(&mut boot, BOOT, value.parse())?,
                ROLLBACK => set(&mut rollback, ROLLBACK, truth(value))?,
                SIGNATURE => {
                    let bytes = decode(value).map_err(|why| RequestError::Value { key: SIGNATURE, why })?;
                    let message = form.before(field).to_vec();
                    signature = Some(Signature { message, bytes });
                }
                unknown => return Err(RequestError::UnknownKey(Line::lossy(unknown))),
            }
        }
        let request = Request {
            tag,
            id: id.ok_or(RequestError::Missing(REQUEST))?,
            image: image.ok_or(RequestError::Missing(IMAGE))?,
            digest: digest.ok_or(RequestError::Missing(DIGEST))?,
            commit,
            run,
            not_after: not_after.ok_or(RequestError::Missing(NOT_AFTER))?,
            boot: boot.ok_or(RequestError::Missing(BOOT))?,
            rollback: rollback.unwrap_or(false),
        };
        Ok(Received { request, signature })
    }

    /// The signature under the request, if any. It proves nothing until it is verified.
    #[must_use]
    pub fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }
}

/// What can be told about a request that cannot be read, so that its answer reaches whoever waits for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// The first line, if it is a tag.
    pub tag: Option<Tag>,
    /// The first `Request` line's value, if it is an identifier.
    pub id: Option<RequestId>,
}

/// Looks for tag and identifier in bytes that are no request.
#[must_use]
pub fn salvage(bytes: &[u8]) -> Salvaged {
    let bounded = bytes.get(..LIMIT).unwrap_or(bytes);
    let mut lines = bounded.split(|byte| *byte == b'\n').map(|line| str::from_utf8(line).unwrap_or_default());
    let tag = lines.next().and_then(|line| line.parse().ok());
    let id = lines.find_map(|line| line.strip_prefix(REQUEST)?.strip_prefix(": ")).and_then(|id| id.parse().ok());
    Salvaged { tag, id }
}

fn set<T, E: fmt::Display>(slot: &mut Option<T>, key: &'static str, value: Result<T, E>) -> Result<(), RequestError> {
    if slot.is_some() {
        return Err(RequestError::Twice(key));
    }
    *slot = Some(value.map_err(|error| RequestError::Value { key, why: Line::lossy(&error.to_string()) })?);
    Ok(())
}

fn truth(value: &str) -> Result<bool, &'static str> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("neither true nor false"),
    }
}

fn decode(value: &str) -> Result<Vec<u8>, Line> {
    // The standard engine refuses missing padding and bits that stand for nothing: one signature, one spelling.
    match STANDARD.decode(value) {
        Ok(bytes) if bytes.is_empty() => Err(Line::lossy("empty")),
        Ok(bytes) if bytes.len() > SIGNATURE_LIMIT => Err(Line::lossy("too long for a signature")),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(Line::lossy("not base64")),
    }
}
