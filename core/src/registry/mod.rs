//! Access to an OCI registry: manifests and blobs, byte for byte, with errors that tell what is wrong.
pub mod error;
mod manifest;
mod client;

pub use client::Client;
pub use error::RegistryError;
pub use manifest::{DOCKER_LIST, DOCKER_MANIFEST, Manifest, OCI_INDEX, OCI_MANIFEST, Target};
