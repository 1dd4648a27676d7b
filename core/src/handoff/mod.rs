//! The hand-off protocol: files in one directory that the action and the companion share.
//!
//! `request`, `status`, `log` and `host` turn bytes into types and back, and touch no file. `dir`, `follow` and
//! `watch` handle the files, and know nothing about what is in them. Neither side's decisions live here: when to wait,
//! to give up, to refuse or to deploy is up to the two programs.
//!
//! Everything in the directory may have been written by a compromised job, or by a hostile host: contents are bounded
//! before they are parsed, and no file type makes anything here block or leave the directory.

pub mod dir;
#[cfg(test)]
mod document;
pub mod fields;
pub mod follow;
pub mod form;
pub mod host;
pub mod log;
pub mod names;
pub mod request;
pub mod status;
pub mod watch;

/// The version of the protocol that this code speaks. `deploy-host` tells it.
pub const VERSION: u32 = 1;
