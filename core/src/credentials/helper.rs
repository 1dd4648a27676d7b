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
const NOT_FOUND: &str = "credentials not found";

/// Asks the helper for a registry's credentials; `None` when it has none.
pub(super) async fn get(name: &str, key: &str, path: &Path) -> Result<Option<Credential>, CredentialError> {
    let helper = format!("docker-credential-{name}");
    let answer = |why: &str| CredentialError::HelperAnswer {
        helper: helper.clone(),
        path: path.to_owned(),
        key: key.to_owned(),
        why: why.to_owned(),
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(answer("its name is no program's"));
    }
    let run = tokio::time::timeout(PATIENCE, run(&helper, key)).await;
    let (ended_well, said) = run
        .map_err(|_| answer("it did not answer in time"))?
        .map_err(|source| CredentialError::Helper { helper: helper.clone(), path: path.to_owned(), source })?;
    if !ended_well {
        return match String::from_utf8_lossy(&said).starts_with(NOT_FOUND) {
            true => Ok(None),
            false => Err(answer("it failed")),
        };
    }
    parse(&said).map(Some).ok_or_else(|| answer("its answer is no JSON with Username and Secret"))
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
