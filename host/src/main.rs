//! The `tagship-host` program: parses, runs, prints, sets the exit code. What it does lives in the library beside it.

fn main() {}
