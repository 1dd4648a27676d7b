//! Making a signature: the private key, the signed bytes, the log's record, and where the registry keeps it.
//!
//! Judging signatures does not live here: that is the core's, the same for both programs.

pub mod attach;
pub mod envelope;
pub mod key;
pub mod rekor;
pub mod sign;
