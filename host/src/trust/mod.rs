//! Who an image is, and whether it may follow what was proven here before. Pure: no file, registry or clock in it.
//!
//! `identity` names a verified image, `order` compares two names, [`judge`](judge::judge) rules, and [`TrustState`] is
//! all that is remembered between deploys.

pub mod identity;
pub mod judge;
pub mod order;
mod refusal;
mod state;

pub use identity::Release;
pub use refusal::Refusal;
pub use state::{Rejected, TrustState};
