//! What each subcommand does, from its parsed inputs to the last line of the log.

pub mod keygen;
pub mod release;
pub mod verify;
