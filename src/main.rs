//! The `tagship` program: parses, runs, prints, sets the exit code. What it does lives in the modules.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tagship::cli::Asked;
use tagship::commands::{keygen, release, verify};
use tagship::failure::{Code, Failure, ProcessError};
use tagship::inputs::{self, Check, InputError, Inputs, Origin, Raw, Secrets};
use tagship::log::{Log, RunnerFiles, Style};
use tagship_core::sys::{self, WipingAllocator};

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator::new();

/// Stack that is overwritten before the program ends: far more than a release reaches down, and an eighth of what Linux
/// gives.
const STACK: usize = 1024 * 1024;

/// How long is waited for what an interrupted step left running, and for the threads to end, so that none of them holds a
/// secret when the process ends. Longer than the key's scrypt takes, and short enough for who interrupts.
const THREADS_END: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let started = Instant::now();
    tagship::log::withhold_panics();
    // All that ever holds a secret is below, and gone when it returns.
    sys::then_scrub(STACK, || work(started))
}

fn work(started: Instant) -> ExitCode {
    // Before there is a second thread, and before anything can fail with a secret in memory.
    let prepared = sys::harden().and_then(|()| Secrets::take());
    let is_secret = |text: &str| prepared.as_ref().is_ok_and(|secrets| secrets.are_in(text));
    let asked = match tagship::cli::parse(is_secret) {
        Ok(asked) => asked,
        Err(code) => return code,
    };
    let style = match asked {
        Asked::Action => Style::Runner,
        _ => Style::for_tool(variable("NO_COLOR").is_some()),
    };
    let log = Log::stdout(style);
    let done = match prepared {
        Ok(secrets) => {
            // Before any of what was given is looked at: what is wrong with it may be shown.
            secrets.each(|secret| log.hide(secret));
            run(asked, secrets, started, &log)
        }
        Err(source) => Err(vec![Failure::new(Code::Usage, ProcessError::Secrets(source))]),
    };
    match done {
        Ok(()) => match log.failed() {
            Some(source) => {
                log.last_words(&ProcessError::Log(source));
                Code::Untold.into()
            }
            None => ExitCode::SUCCESS,
        },
        Err(failures) => {
            failures.iter().for_each(|failure| log.error(&*failure.error));
            // What the log could not take is said where it still can be.
            if let (Some(_), Some(first)) = (log.failed(), failures.first()) {
                log.last_words(&*first.error);
            }
            failures.first().map_or(ExitCode::SUCCESS, |failure| failure.code.into())
        }
    }
}

fn run(asked: Asked, secrets: Secrets, started: Instant, log: &Log) -> Result<(), Vec<Failure>> {
    // One thread: all the waiting is for others, and what computes has a thread of its own. A second would cost every
    // answer on its way a change of threads.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| vec![Failure::new(Code::Usage, ProcessError::Runtime(source))])?;
    let done = runtime.block_on(async {
        let usage = |error: InputError| vec![Failure::new(Code::Usage, error)];
        let origin = Origin::from_environment(variable);
        let files = RunnerFiles::from_environment(variable);
        match asked {
            Asked::Action => {
                let raw = Raw::from_action(std::env::vars_os(), secrets);
                let inputs = raw.and_then(|raw| Inputs::parse(raw, None, origin)).map_err(usage)?;
                release::command(inputs, true, &files, started, log).await
            }
            Asked::Release(step, flags) => {
                let raw = Raw::from_flags(&flags, secrets);
                let inputs = raw.and_then(|raw| Inputs::parse(raw, step, origin)).map_err(usage)?;
                release::command(inputs, false, &files, started, log).await
            }
            Asked::Verify(flags) => {
                let check = Raw::from_flags(&flags, secrets).and_then(Check::parse).map_err(usage)?;
                verify::command(check, log).await.map_err(|failure| vec![failure])
            }
            Asked::Keygen { output, flags } => {
                let password = Raw::from_flags(&flags, secrets).and_then(inputs::new_password).map_err(usage)?;
                keygen::command(output, password, log).await.map_err(|failure| vec![failure])
            }
        }
    });
    runtime.shutdown_timeout(THREADS_END);
    done
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
