//! What the action and the companion must agree on: references, registry access, signatures, the hand-off protocol.
//!
//! Nothing here prints, decides a deploy, or knows which of the two programs it serves.
