//! The `tagship` program: parses, runs, prints, sets the exit code. What it does lives in the modules.

fn main() {}
