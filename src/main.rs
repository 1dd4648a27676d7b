//! The `tagship` program: parses, runs, prints, sets the exit code. What it does lives in the modules.

mod commands;
mod context;
mod failure;
mod inputs;
mod log;
mod plan;
mod signing;
mod steps;

fn main() {}
