//! Fuzz targets: one for each kind of bytes that come from somebody who is not trusted. Each file holds one target:
//! what is done with the bytes, and what must then hold beyond "no panic".
//!
//! A target is a plain function. The engine calls it in `fuzz.rs`, an ordinary test with every file below `corpus/`;
//! which bytes to try, and for how long, does not belong here.
//!
//! A defect shows as a panic, so assertions are what these files are made of.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod bundle;
mod checkpoint;
mod config;
mod key_pem;
mod manifest;
mod payload;
mod request;
mod sigstore_bundle;
mod template;
mod verify;
mod world;

use std::fmt::Debug;

use serde_json::Value;
use tagship_core::explain::{self, Explain};
use tagship_core::handoff::fields::Word;
use tagship_core::signature::json;

/// A kind of bytes to try.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name on the command line; the directory below `corpus/` is called the same.
    pub name: &'static str,
    /// Takes any bytes, and says whether they were accepted as anything. Panics when something that must hold does not.
    pub run: fn(&[u8]) -> bool,
}

/// Every target there is.
pub const TARGETS: [Target; 9] = [
    Target { name: "bundle", run: bundle::run },
    Target { name: "checkpoint", run: checkpoint::run },
    Target { name: "config", run: config::run },
    Target { name: "key_pem", run: key_pem::run },
    Target { name: "manifest", run: manifest::run },
    Target { name: "payload", run: payload::run },
    Target { name: "request", run: request::run },
    Target { name: "sigstore_bundle", run: sigstore_bundle::run },
    Target { name: "verify", run: verify::run },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// What every error owes its reader, whatever bytes it speaks of: a text, a stable kind, and perhaps a hint.
fn explained(error: &impl Explain) {
    let kind = error.kind();
    assert!(kind.parse::<Word>().is_ok(), "the kind {kind:?} is no stable word");
    assert!(!told(error).is_empty());
    assert_ne!(error.hint().as_deref(), Some(""));
}

/// The whole text of an error: writing it must not fail either.
fn told(error: &dyn std::error::Error) -> String {
    explain::chain(error)
}

/// What the strict parser takes, serde_json takes too, and reads the same in it: being strict may not be being
/// different. Gives the document.
fn same_as_serde_json(bytes: &[u8], limit: usize) -> Option<Value> {
    let strict: Value = json::parse(bytes, limit).ok()?;
    let plain: Value = serde_json::from_slice(bytes).expect("strict JSON is JSON");
    assert_eq!(strict, plain, "the strict parser reads something else");
    Some(strict)
}

/// A value that was written and read again is the value that it was.
fn comes_back<T: PartialEq + Debug, E: Debug>(value: &T, again: Result<T, E>) {
    assert_eq!(*value, again.expect("what was written can be read"), "written and read again");
}
