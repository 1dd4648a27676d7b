//! Which image a local name stands for, asked in a hurry: one request to Podman's service, and where that fails the
//! program that the unit itself is about to run.
//!
//! The service answers within milliseconds; the program needs 50 or more, but neither socket nor service. Quadlets start
//! their containers by the program alone, so a socket that is missing, not there yet at boot, or hanging is no reason to
//! keep them from starting. And where the program gets no answer either, the unit's own `podman run` would get none:
//! refusing then costs no service that could have started, and there is no way past the guard by silencing the engine.

use std::{io, path::Path, process::Stdio, time::Duration};

use serde::Deserialize;
use tagship_core::{engine as socket, explain};
use tokio::{process::Command, time::timeout};

use crate::{
    deploy::{ImageId, LocalName},
    engine,
};

/// The longest wait for the service. It is started by the first connection, which takes 0.2 s on an idle machine.
const SERVICE: Duration = Duration::from_secs(2);

/// The longest wait for the program, at a boot where everything starts at once; both together stay well below the 90 s
/// that systemd gives a unit to start in (`DefaultTimeoutStartSec=`).
const PROGRAM: Duration = Duration::from_secs(20);

/// Nobody says what the name stands for.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// The program could not be run, or does not end.
    #[error("cannot run podman")]
    Run(#[source] io::Error),
    /// It ended with an error, or said something else.
    #[error("podman does not say what {name} is: {words}")]
    Refused {
        /// What was asked for.
        name: String,
        /// Its words.
        words: String,
    },
}

/// What Podman says of an image, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: ImageId,
}

/// The image that a local name stands for; none if there is no such name.
pub async fn ask(name: &LocalName) -> Result<Option<ImageId>, Silence> {
    let service = match socket::locate() {
        Ok(socket) => ask_service(&socket, name, SERVICE).await,
        Err(_) => None,
    };
    match service {
        Some(image) => Ok(Some(image)),
        // Anything but an image, "no such image" included: what listens there may be another engine than the unit's.
        None => ask_program("podman", name, PROGRAM).await,
    }
}

async fn ask_service(socket: &Path, name: &LocalName, patience: Duration) -> Option<ImageId> {
    let path = format!("/v4.0.0/libpod/images/{name}/json");
    let (status, body) = engine::get(socket, &path, patience).await.ok()?;
    let inspected = serde_json::from_slice::<Inspected>(&body).ok().filter(|_| status == 200)?;
    Some(inspected.id)
}

async fn ask_program(program: &str, name: &LocalName, patience: Duration) -> Result<Option<ImageId>, Silence> {
    let mut command = Command::new(program);
    command.args(["image", "inspect", "--format", "{{.Id}}", &name.to_string()]);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let slow = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", patience.as_secs()));
    let output = timeout(patience, output).await.map_err(slow).and_then(|output| output).map_err(Silence::Run)?;
    let refused = |words: &str| {
        let words = words.trim().chars().take(300).collect();
        Err(Silence::Refused { name: name.to_string(), words })
    };
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        // containers-storage's words, the same since Podman 3.
        false if said.contains("image not known") => Ok(None),
        false => refused(&said),
        true => match String::from_utf8_lossy(&output.stdout).trim().to_owned().try_into() {
            Ok(image) => Ok(Some(image)),
            Err(error) => refused(&explain::chain(&error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn name() -> LocalName {
        LocalName { repository: "localhost/app".parse().unwrap(), tag: "web".parse().unwrap() }
    }

    /// What is made of an engine's answer, and what it was asked.
    async fn answered(answer: &str) -> (Option<ImageId>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answer = answer.to_owned();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 1024];
            let length = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let image = ask_service(&path, &name(), Duration::from_secs(5)).await;
        (image, server.await.unwrap())
    }

    #[tokio::test]
    async fn the_service_is_asked_once_and_only_an_image_is_an_answer() {
        let ok = |body: &str| format!("HTTP/1.0 200 OK\r\n\r\n{body}");
        let (image, asked) = answered(&ok(&format!(r#"{{"Id":"sha256:{ID}","Names":[]}}"#))).await;
        assert_eq!(image.unwrap().as_str(), ID);
        assert!(asked.starts_with("GET /v4.0.0/libpod/images/localhost/app:web/json HTTP/1.0\r\n"), "{asked}");
        for (defect, answer) in [
            ("not there", "HTTP/1.0 404 Not Found\r\n\r\n{\"cause\":\"image not known\"}".to_owned()),
            ("another engine", "HTTP/1.0 404 Not Found\r\n\r\n{\"message\":\"page not found\"}".to_owned()),
            ("an id beside an error", format!("HTTP/1.0 500 Oh\r\n\r\n{{\"Id\":\"{ID}\"}}")),
            ("a short id", ok(r#"{"Id":"0123"}"#)),
            ("no id", ok("{}")),
            ("an array", ok(&format!(r#"[{{"Id":"{ID}"}}]"#))),
            ("cut off", ok(&format!(r#"{{"Id":"{ID}""#))),
            ("nothing", String::new()),
        ] {
            assert_eq!(answered(&answer).await.0, None, "{defect}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_hangs_is_left_for_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(ask_service(&path, &name(), SERVICE).await, None);
        assert_eq!(ask_service(&dir.path().join("none.sock"), &name(), SERVICE).await, None);
    }

    fn podman(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("podman");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn said(script: &str, patience: Duration) -> Result<Option<ImageId>, Silence> {
        let dir = tempfile::tempdir().unwrap();
        let program = podman(dir.path(), script);
        ask_program(program.to_str().unwrap(), &name(), patience).await
    }

    #[tokio::test]
    async fn the_program_says_which_image_it_is_or_that_there_is_none() {
        let long = Duration::from_secs(30);
        let words = format!(r#"[ "$*" = "image inspect --format {{{{.Id}}}} localhost/app:web" ] && echo {ID}"#);
        assert_eq!(said(&words, long).await.unwrap().unwrap().as_str(), ID);
        let none = "echo 'Error: localhost/app:web: image not known' >&2; exit 125";
        assert_eq!(said(none, long).await.unwrap(), None);
        for (defect, script) in [
            ("an error", "echo 'Error: database is locked' >&2; exit 125"),
            ("an id and an error", &format!("echo {ID}; exit 1")),
            ("nothing", "exit 0"),
            ("no id", "echo nonsense"),
            ("two ids", &format!("echo {ID}; echo {ID}")),
            ("killed", "kill -9 $$"),
        ] {
            assert!(matches!(said(script, long).await, Err(Silence::Refused { .. })), "{defect}");
        }
        assert!(matches!(said("exec sleep 60", Duration::from_millis(50)).await, Err(Silence::Run(_))), "it hangs");
        let missing = ask_program("/nonexistent/podman", &name(), long).await;
        assert!(matches!(missing, Err(Silence::Run(_))));
    }
}
