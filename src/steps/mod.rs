//! The steps of a release. Each takes what it needs and returns what it learned; none reaches into another.

pub mod build;
pub mod deploy;
pub mod preflight;
pub mod promote;
pub mod push;
pub mod sign;
