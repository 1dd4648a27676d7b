//! The `tagship` program: parses, runs, prints, sets the exit code. What it does lives in the modules.

mod context;
mod failure;
mod inputs;
mod log;
mod steps;

fn main() {}
