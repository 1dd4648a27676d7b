//! Signatures of images: what is signed, what a log says of it, how it is fetched, and what makes it count.
//!
//! Bytes go in at [`fetch`] and come out of [`verify::verify`] as a [`Verified`], which nothing else can make. Private
//! keys, and writing to a log or a registry, do not live here.

pub mod annotations;
mod attached;
pub mod bundle;
mod check;
mod der;
pub mod dsse;
mod error;
pub mod fetch;
pub mod json;
#[cfg(test)]
mod key_vectors;
mod keys;
mod layer;
pub mod log;
pub mod payload;
pub mod pem;
mod policy;
pub mod sigstore_bundle;
mod spki;
pub mod statement;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod vectors;
mod verified;
pub mod verify;

pub use annotations::Annotations;
pub use attached::{Attached, Blob, Content};
pub use check::{CheckError, check};
pub use error::{Fault, VerifyError};
pub use fetch::FetchError;
pub use keys::{Algorithm, Fingerprint, FingerprintError, KeyError, PublicKey};
pub use layer::{KEY_ANNOTATION, Layer, SIGNATURE_ANNOTATION};
pub use log::Logged;
pub use policy::{AnnotationRule, Expectation, Format, Formats, Policy, Rekor};
pub use spki::kind_of_private;
pub use verified::{Evidence, TagClaim, Verified};
