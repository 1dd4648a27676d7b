//! What the action and the companion must agree on: references, registry access, signatures, the hand-off protocol.
//!
//! Nothing here prints, decides a deploy, or knows which of the two programs it serves.

pub mod credentials;
pub mod engine;
pub mod explain;
pub mod failpoint;
pub mod file;
pub mod handoff;
pub mod reference;
pub mod registry;
pub mod secret;
pub mod signature;
pub mod sys;
pub mod text;
pub mod tls;
