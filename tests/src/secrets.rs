//! Finds out whether a secret is left anywhere: in a held process's memory, seen from outside, and in the files of a
//! host.
//!
//! What must be found and what must not is said by the scenarios. The search itself is proven by `keeper`, a program that
//! keeps what it was given.

mod files;
mod job;
mod memory;
mod needles;
mod traced;

pub use files::Files;
pub use job::{Job, Running, image};
pub use memory::{Hit, Memory};
pub use needles::{Kind, Needle, Needles, Secrets};
pub use traced::{End, Traced};
