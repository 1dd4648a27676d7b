//! How a container ended: with which exit code, and what it wrote last.
//!
//! Quadlet's containers are removed as soon as they have ended, so each question here may come too late. Podman's events
//! outlive the container.

use std::time::{Duration, SystemTime};

use bollard::{
    container::LogOutput,
    errors::Error as EngineError,
    query_parameters::{LogsOptionsBuilder, WaitContainerOptionsBuilder},
};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use super::{
    ContainersError, Engine,
    podman::{self, Refused},
};
use crate::{
    config::ServiceName,
    deploy::{ContainerId, Failure},
    engine,
};

/// How many of a container's last lines are shown.
const LINES: &str = "20";

/// How much of them, in bytes: a line has no longest length.
const LAST_WORDS: usize = 16 * 1024;

/// How far back events are read: whatever is asked for has just ended.
const LATELY: &str = "2m";

/// The longest that the end of a container which can no longer be asked is waited for, or that its event is.
const END: Duration = Duration::from_secs(1);

/// After what time events are read once more.
const AGAIN: Duration = Duration::from_millis(100);

/// The longest that what it left is read: what was read by then is better than nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a service's own words are.
pub(super) fn more(service: &ServiceName) -> String {
    format!("`journalctl --user -u {}` says more", service.unit())
}

/// Which container of a service has ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'a> {
    /// This one.
    This(&'a ContainerId),
    /// The last that ended since then, but for the one that ran before.
    LastSince(SystemTime, Option<&'a ContainerId>),
}

impl Engine {
    /// Returns once the container has ended, with its exit code if it is known; never if that cannot be watched.
    pub(super) async fn ended(&self, container: &ContainerId) -> Option<i64> {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        match self.docker.wait_container(container.as_str(), Some(options)).next().await {
            Some(Ok(ended)) => Some(ended.status_code),
            Some(Err(EngineError::DockerContainerWaitError { code, .. })) => Some(code),
            Some(Err(error)) if engine::is_absent(&error) => None,
            Some(Err(_)) | None => std::future::pending().await,
        }
    }

    /// Why a container can no longer be asked: most likely it has ended, and the engine has not said so yet.
    pub(super) async fn lost(
        &self,
        service: &ServiceName,
        container: &ContainerId,
        error: &ContainersError,
    ) -> Failure {
        match self.inspect(service, container.as_str()).await {
            Ok(Some(found)) if found.state.running => return Failure::of(error),
            // Nobody can say how the container is.
            Err(silence) if silence.unreachable => return Failure::of(&silence),
            Ok(_) | Err(_) => {}
        }
        let code = timeout(END, self.ended(container)).await.ok().flatten();
        self.exited(service, Which::This(container), code).await
    }

    /// That a container has ended, with its exit code: the one that is known, or else the one that Podman's events tell.
    pub(super) async fn exited(&self, service: &ServiceName, which: Which<'_>, code: Option<i64>) -> Failure {
        let code = match code {
            Some(code) => Some(code),
            None => self.told_code(service, which).await,
        };
        let how = code.map_or_else(String::new, |code| format!(" with {code}"));
        Failure::new("container-exited", format!("the container of {service} exited{how}")).hint(more(service))
    }

    /// Podman's events are in the systemd journal, which may be behind what has just ended. On the way back that restart
    /// ended another container, too: there the code is that one's where the journal is behind.
    async fn told_code(&self, service: &ServiceName, which: Which<'_>) -> Option<i64> {
        let begun = Instant::now();
        loop {
            let code = self.code_among_events(service, which).await;
            if code.is_some() || begun.elapsed() >= END {
                return code;
            }
            sleep(AGAIN).await;
        }
    }

    async fn code_among_events(&self, service: &ServiceName, which: Which<'_>) -> Option<i64> {
        let label = format!("PODMAN_SYSTEMD_UNIT={}", service.unit());
        let filters = serde_json::json!({ "type": ["container"], "event": ["died"], "label": [label] });
        let filters = engine::query(&filters.to_string());
        let path = format!("/v4.0.0/libpod/events?stream=false&since={LATELY}&filters={filters}");
        let (status, body) = engine::get(&self.socket, &path, PATIENCE).await.ok()?;
        let died = podman::deaths(&body).filter(|_| status == 200);
        let died = died.filter(|died| match which {
            Which::This(container) => died.container() == container.as_str(),
            Which::LastSince(since, old) => {
                died.at() >= since && old.is_none_or(|old| died.container() != old.as_str())
            }
        });
        died.last()?.code()
    }

    /// What the container wrote last; nothing once it is removed.
    pub(super) async fn lines(&self, container: &ContainerId) -> Vec<String> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(LINES).build();
        let logs = self.docker.logs(container.as_str(), Some(options));
        let mut bytes = Vec::new();
        let read = async {
            let words = logs.filter_map(async |part| part.ok().filter(|part| !is_refusal(part)));
            let mut parts = std::pin::pin!(words.map(LogOutput::into_bytes));
            while let Some(part) = parts.next().await {
                let room = LAST_WORDS.saturating_sub(bytes.len());
                bytes.extend(part.into_iter().take(room));
            }
        };
        let _ = timeout(PATIENCE, read).await;
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }
}

/// Podman says that it will answer before it looks whether the container is still there, and then writes its error where
/// the log should be. That text has no frame, as each line of a container without a terminal has.
fn is_refusal(part: &LogOutput) -> bool {
    let LogOutput::Console { message } = part else { return false };
    serde_json::from_slice::<Refused>(message).is_ok_and(|refused| refused.response >= 400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_refusal_is_not_what_the_container_said() {
        let refusal =
            br#"{"cause":"no such container","message":"failed to obtain logs for Container '4f'","response":500}"#;
        let console = |text: &[u8]| LogOutput::Console { message: text.to_vec().into() };
        assert!(is_refusal(&console(refusal)));
        assert!(!is_refusal(&LogOutput::StdOut { message: refusal.to_vec().into() }));
        assert!(!is_refusal(&console(br#"{"message":"cannot read settings","level":"error"}"#)));
        assert!(!is_refusal(&console(b"cannot read settings\n")));
    }
}
