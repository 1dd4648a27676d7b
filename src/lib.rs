//! The parts of the `tagship` program, for its own `main` and for tests. No interface for others: nothing here is
//! stable.

pub mod cli;
pub mod commands;
pub mod context;
pub mod failure;
pub mod inputs;
pub mod log;
pub mod plan;
pub mod release;
pub mod signing;
pub mod steps;
pub mod stop;
mod telling;
#[cfg(test)]
pub(crate) mod testing;
