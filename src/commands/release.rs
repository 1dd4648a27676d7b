//! `tagship action`, `tagship release` and single steps: runs a release, and tells the runner what came of it.

use std::time::Instant;

use crate::failure::{Code, Failure, ProcessError};
use crate::inputs::Inputs;
use crate::log::{Log, RunnerFiles};
use crate::release;

/// Runs what the inputs ask for. Outputs are written whatever happens: later steps of a workflow may run on a failure.
///
/// # Errors
/// All that went wrong, the first of which decides the exit code.
pub async fn command(
    inputs: Inputs,
    must_be_mount: bool,
    files: &RunnerFiles,
    started: Instant,
    log: &Log,
) -> Result<(), Vec<Failure>> {
    inputs.each_secret(|secret| log.hide(secret));
    let mut report = release::run(inputs, must_be_mount, started, log).await;
    if report.failures.is_empty() {
        log.summary(&report.summary);
        if let Err(error) = files.write_summary(&report.summary.lines()) {
            log.warn(&format!("cannot write the step's summary: {error}"));
        }
    }
    if let Err(source) = files.write_outputs(&report.outputs) {
        report.failures.push(Failure::new(Code::Untold, ProcessError::Outputs(source)));
    }
    if report.failures.is_empty() { Ok(()) } else { Err(report.failures) }
}
