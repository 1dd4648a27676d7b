//! The `tagship-host` program: parses, runs, prints, sets the exit code. What it does lives in the library beside it.

use std::process::ExitCode;

use clap::Parser;
use tagship_core::sys::WipingAllocator;
use tagship_host::{cli::Cli, commands, report};

/// The password of the registry is in memory here, too.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator::new();

fn main() -> ExitCode {
    let cli = Cli::parse();
    report::print_traces();
    // One thread: all the waiting is for others.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report::line(report::Urgency::Error, &format!("error: cannot start: {error}"));
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(code) => code,
        Err(error) => {
            report::error(&error);
            error.exit_code()
        }
    }
}
