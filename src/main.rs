//! The `tagship` program: parses, runs, prints, sets the exit code. What it does lives in the modules.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use tagship_core::credentials::{AuthFiles, Credential};
use tagship_core::registry::{Client, Target};
use tagship_core::secret::Secret;
use tagship_core::signature::{CheckError, PublicKey};
use tagship_core::sys::{self, WipingAllocator};
use tagship_core::tls::Roots;

use tagship::cli::Asked;
use tagship::commands::keygen;
use tagship::commands::verify::{self, VerifyCommandError, Wanted};
use tagship::failure::{Code, Failure, ProcessError};
use tagship::inputs::{self, Access, Check, InputError, Inputs, Origin, Raw, Secrets};
use tagship::log::{Log, RunnerFiles, Style};

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    let started = Instant::now();
    // Before there is a second thread, and before anything can fail with a secret in memory.
    let prepared = sys::harden().and_then(|()| Secrets::take());
    let asked = tagship::cli::parse();
    let style = match asked {
        Asked::Action => Style::Runner,
        _ => Style::for_tool(variable("NO_COLOR").is_some()),
    };
    let log = Log::stdout(style);
    let done = match prepared {
        Ok(secrets) => run(asked, secrets, started, &log),
        Err(source) => Err(vec![Failure::new(Code::Usage, ProcessError::Secrets(source))]),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failures) => {
            failures.iter().for_each(|failure| log.error(&*failure.error));
            failures.first().map_or(ExitCode::SUCCESS, |failure| failure.code.into())
        }
    }
}

fn run(asked: Asked, secrets: Secrets, started: Instant, log: &Log) -> Result<(), Vec<Failure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| vec![Failure::new(Code::Usage, ProcessError::Runtime(source))])?;
    let done = runtime.block_on(async {
        match asked {
            Asked::Action => {
                let raw = Raw::from_action(std::env::vars_os(), secrets);
                release(raw.and_then(|raw| Inputs::parse(raw, None, origin())), true, started, log).await
            }
            Asked::Release(step, flags) => {
                let raw = Raw::from_flags(&flags, secrets);
                release(raw.and_then(|raw| Inputs::parse(raw, step, origin())), false, started, log).await
            }
            Asked::Verify(flags) => {
                let check = Raw::from_flags(&flags, secrets).and_then(Check::parse);
                verify_image(check.map_err(usage)?, log).await.map_err(|failure| vec![failure])
            }
            Asked::Keygen { output, flags } => {
                let password = Raw::from_flags(&flags, secrets).and_then(inputs::new_password);
                make_keys(output, password.map_err(usage)?, log).await.map_err(|failure| vec![failure])
            }
        }
    });
    // What an interrupted step left running must not hold the program.
    runtime.shutdown_background();
    done
}

async fn release(
    inputs: Result<Inputs, InputError>,
    must_be_mount: bool,
    started: Instant,
    log: &Log,
) -> Result<(), Vec<Failure>> {
    let inputs = inputs.map_err(usage)?;
    inputs.each_secret(|secret| log.mask(secret));
    let mut report = tagship::release::run(inputs, must_be_mount, started, log).await;
    let files = RunnerFiles { output: file("OUTPUT"), summary: file("STEP_SUMMARY") };
    if report.failures.is_empty() {
        log.summary(&report.summary);
        if let Err(error) = files.write_summary(&report.summary.lines()) {
            log.warn(&format!("cannot write the step's summary: {error}"));
        }
    }
    if let Err(source) = files.write_outputs(&report.outputs) {
        report.failures.push(Failure::new(Code::Usage, ProcessError::Outputs(source)));
    }
    if report.failures.is_empty() { Ok(()) } else { Err(report.failures) }
}

async fn verify_image(check: Check, log: &Log) -> Result<(), Failure> {
    let roots = Roots::load(check.access.ca.as_deref()).map_err(|error| Failure::new(Code::Usage, error))?;
    let files = match &check.access {
        Access { auth_file: Some(path), .. } => AuthFiles::only(path),
        Access { auth_file: None, .. } => AuthFiles::standard(),
    };
    let credential = match check.access.login {
        Some((user, secret)) => Credential::Basic { user, secret },
        None => files.lookup(&check.image).await.map_err(|error| Failure::new(Code::Usage, error))?,
    };
    let client = Client::new(check.image.registry(), Arc::new(credential), &roots)
        .map_err(|error| Failure::new(Code::Registry, error))?;
    let key = PublicKey::from_pem("public-key", &check.public_key).map_err(|error| Failure::new(Code::Usage, error))?;
    let policy = tagship::steps::preflight::trust(key, check.log.as_ref())?;
    let wanted = match check.target {
        Target::Tag(tag) => Wanted::Tag(tag),
        Target::Digest(digest) => Wanted::Digest(digest),
    };
    let verified = verify::run(&client, &check.image, wanted, &policy).await.map_err(|error| {
        let judged = matches!(error, VerifyCommandError::Check(CheckError::Verify(_)));
        Failure::new(if judged { Code::Signing } else { Code::Registry }, error)
    })?;
    verify::report(&verified).iter().for_each(|line| log.say(line));
    Ok(())
}

async fn make_keys(output: PathBuf, password: Secret, log: &Log) -> Result<(), Failure> {
    let pair = keygen::run(output, password).await.map_err(|error| Failure::new(Code::Signing, error))?;
    log.say(&format!("private key  {}", pair.private.display()));
    log.say(&format!("public key   {}", pair.public.display()));
    log.say(&format!("fingerprint  {}", pair.fingerprint));
    Ok(())
}

fn usage(error: InputError) -> Vec<Failure> {
    vec![Failure::new(Code::Usage, error)]
}

fn origin() -> Origin {
    Origin::from_environment(variable)
}

fn file(name: &str) -> Option<PathBuf> {
    variable(&format!("FORGEJO_{name}")).or_else(|| variable(&format!("GITHUB_{name}"))).map(PathBuf::from)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
