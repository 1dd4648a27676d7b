//! What the program does beside the steps of a release.

pub mod keygen;
pub mod verify;
