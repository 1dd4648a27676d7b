//! Credential helpers: `docker-credential-NAME get`, the protocol of docker-credential-helpers.
//!
//! Which helper serves which registry is known one level up.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::{Credential, CredentialError};

/// The longest answer that is read.
const ANSWER_MAX: u64 = 64 * 1024;

/// How long a helper may take; one that asks a person has nobody to ask here.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a helper says, with a failing exit code, when it knows nothing. Nothing else tells this from a fault.
const NOT_FOUND: &[u8] = b"credentials not found";

/// Asks the helper of this name for a registry's credentials; `None` when it has none. `path` is the file that names it.
pub(super) async fn get(name: &str, key: &str, path: &Path) -> Result<Option<Credential>, CredentialError> {
    // Docker's own tools take an empty name for none.
    if name.is_empty() {
        return Ok(None);
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        let why = format!("the helper for {key:?} has a name that is no program's");
        return Err(CredentialError::Malformed { path: path.to_owned(), why });
    }
    let program = format!("docker-credential-{name}");
    ask(&program, key, path).await
}

pub(super) async fn ask(program: &str, key: &str, path: &Path) -> Result<Option<Credential>, CredentialError> {
    let (ended_well, said) = tokio::time::timeout(PATIENCE, run(program, key))
        .await
        .map_err(|_| answer(program, key, path, "it did not answer in time"))?
        .map_err(|source| CredentialError::Helper { helper: program.to_owned(), path: path.to_owned(), source })?;
    if ended_well {
        let found = parse(&said);
        return found
            .map(Some)
            .ok_or_else(|| answer(program, key, path, "it answers no JSON with Username and Secret"));
    }
    match said.starts_with(NOT_FOUND) {
        true => Ok(None),
        false => Err(answer(program, key, path, "it failed")),
    }
}

fn answer(helper: &str, key: &str, path: &Path, why: &str) -> CredentialError {
    CredentialError::HelperAnswer {
        helper: helper.to_owned(),
        path: path.to_owned(),
        key: key.to_owned(),
        why: why.to_owned(),
    }
}

async fn run(helper: &str, key: &str) -> std::io::Result<(bool, Zeroizing<Vec<u8>>)> {
    let mut child = Command::new(helper)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read is judged by what it answers.
        let _ = stdin.write_all(key.as_bytes()).await;
    }
    let mut said = Zeroizing::new(Vec::new());
    if let Some(stdout) = child.stdout.take() {
        stdout.take(ANSWER_MAX).read_to_end(&mut said).await?;
    }
    Ok((child.wait().await?.success(), said))
}

fn parse(said: &[u8]) -> Option<Credential> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let Answer { username, secret } = serde_json::from_slice(said).ok()?;
    Some(match username.as_str() {
        // The protocol's way of saying that the secret is a refresh token.
        "<token>" => Credential::IdentityToken { token: secret.into() },
        _ => Credential::Basic { user: username, secret: secret.into() },
    })
}
