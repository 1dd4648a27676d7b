//! Access to an OCI registry: manifests and blobs, byte for byte, with errors that tell what is wrong.
//!
//! This is a client of its own over `reqwest` rather than a layer over `oci-client`, because what tagship needs most is
//! what a general client does not promise (`oci-client` 0.18, read):
//!
//! - Answers are bounded. A registry is not trusted, and there a body is read to its end whatever its length.
//! - A 401 is judged by its status alone. Forgejo sends two bodies with it, which breaks the stream over HTTP/2; a client
//!   that reads the body reports a broken connection where the password is wrong.
//! - One token serves all operations on all repositories; there each repository and each operation has its own, after
//!   an extra request to `/v2/`. Here the first request that needs a token is also the one that learns where to get it.
//!   A verification is the token, the manifest of signatures, and a payload.
//! - Manifests go in and come out as the same bytes with the same media type, and each digest is computed from them.
//! - An upload can be begun and cancelled: only that tells who may push from who may merely log in.
//! - Connections that break and servers in trouble are asked again, within seconds; what is refused is not.
//! - Errors distinguish what the user has to do, an unknown certificate authority among them.
//!
//! Nothing here reads what manifests say; signatures are found and judged in [`crate::signature`].

mod auth;
mod client;
mod error;
mod link;
mod manifest;
mod retry;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod wire;

pub use client::Client;
pub use error::RegistryError;
pub use manifest::{Manifest, OCI_INDEX, OCI_MANIFEST, Target};
pub(crate) use retry::Limits;
