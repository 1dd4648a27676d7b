//! Is a service's container well? Asked at once instead of waiting for the container's own timer, and without wearing
//! out its retries.
//!
//! Podman's `healthcheck run` counts each failure against the container's retries, and one that has used them up may be
//! killed. So until the first success the container's own test is run by exec, which changes no state; then one
//! recorded run makes the container's state say what we found, and that state is what counts. Podman runs the test
//! itself when the container starts; for an application that is ready by then, reading that result is all there is to do.

use std::{path::PathBuf, time::Duration};

use bollard::{
    Docker,
    container::LogOutput,
    errors::Error as EngineError,
    exec::{StartExecOptions, StartExecResults},
    models::{ContainerInspectResponse, ExecConfig, HealthConfig, HealthStatusEnum},
    query_parameters::{LogsOptionsBuilder, WaitContainerOptionsBuilder},
};
use futures_util::{
    StreamExt,
    future::{select_all, try_join_all},
};
use serde::{Deserialize, de::DeserializeOwned};
use tagship_core::explain::Explain;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    config::{Missing, ServiceName},
    deploy::{ContainerFacts, ContainerId, Containers, Failure, HealthState, Proof, Wanted},
    engine,
};

/// How long Podman's own first run is waited for before we run the test ourselves. It takes 0.15 s on two cores; a test
/// of ours beside it only makes both slower.
const FIRST_RUN: Duration = Duration::from_millis(250);

/// How often its result is looked for. Podman's event says the same, but up to 0.3 s later (5.4 with journald).
const FIRST_LOOK: Duration = Duration::from_millis(40);

/// The pause after the first failed probe; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between probes.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest single probe, where the healthcheck does not say: Podman's own default.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a probe's output is kept.
const OUTPUT: usize = 500;

/// How many of a container's last lines are shown.
const LINES: &str = "20";

/// The engine's containers.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    socket: PathBuf,
}

/// What went wrong with the engine's containers.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the container of {service}: {words}")]
pub struct ContainersError {
    action: &'static str,
    service: ServiceName,
    words: String,
}

impl Explain for ContainersError {
    fn kind(&self) -> &'static str {
        "engine"
    }

    fn hint(&self) -> Option<String> {
        Some("`systemctl --user status podman.socket` and `journalctl --user -u podman` say more".into())
    }
}

impl Engine {
    /// The containers behind this engine, whose socket is also asked directly: the healthcheck call is Podman's alone.
    pub fn new(docker: Docker, socket: PathBuf) -> Self {
        Self { docker, socket }
    }

    /// The newest container of a unit; while it is being replaced there may be none.
    async fn newest(&self, service: &ServiceName) -> Result<Option<ContainerInspectResponse>, ContainersError> {
        // Podman's own list: the compatible one has states ("stopped") that the client does not know.
        let filters = serde_json::json!({ "label": [format!("PODMAN_SYSTEMD_UNIT={}", service.unit())] });
        let path = format!("containers/json?all=true&filters={}", engine::query(&filters.to_string()));
        let listed: Vec<Listed> = self.ask("find", service, &path).await?;
        let Some(newest) = listed.into_iter().max_by_key(|container| container.started) else { return Ok(None) };
        match self.docker.inspect_container(&newest.id, None).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if engine::is_absent(&error) => Ok(None),
            Err(error) => Err(failed("inspect", service, &error)),
        }
    }

    /// Asks Podman's own API.
    async fn ask<T: DeserializeOwned>(
        &self,
        action: &'static str,
        service: &ServiceName,
        path: &str,
    ) -> Result<T, ContainersError> {
        let error = |words| ContainersError { action, service: service.clone(), words };
        let answer = engine::get(&self.socket, &format!("/v4.0.0/libpod/{path}")).await;
        let (status, body) = answer.map_err(|cause| error(cause.to_string()))?;
        if status != 200 {
            let words = serde_json::from_slice(&body).map(|refused: Refused| refused.message);
            return Err(error(words.unwrap_or_else(|_| format!("status {status}"))));
        }
        serde_json::from_slice(&body).map_err(|cause| error(cause.to_string()))
    }

    /// Returns once the container has ended, with its exit code if it is known; never if that cannot be watched.
    async fn ended(&self, container: &ContainerId) -> Option<i64> {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        match self.docker.wait_container(container.as_str(), Some(options)).next().await {
            Some(Ok(ended)) => Some(ended.status_code),
            Some(Err(EngineError::DockerContainerWaitError { code, .. })) => Some(code),
            Some(Err(error)) if engine::is_absent(&error) => None,
            Some(Err(_)) | None => std::future::pending().await,
        }
    }

    /// Probes until the container is healthy.
    async fn until_healthy(
        &self,
        want: &Wanted<'_>,
        container: &ContainerId,
        test: &Test,
        last: &mut String,
    ) -> Result<(), ContainersError> {
        if self.first_run(want.service, container).await? {
            return Ok(());
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match self.probe(want.service, container, test).await? {
                Probe::Failed(output) => *last = output,
                Probe::Succeeded => {
                    if self.recorded(want.service, container).await? {
                        return Ok(());
                    }
                    "its healthcheck passes, but not when Podman records it".clone_into(last);
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether Podman's own run at the container's start has found it healthy.
    async fn first_run(&self, service: &ServiceName, container: &ContainerId) -> Result<bool, ContainersError> {
        let until = Instant::now() + FIRST_RUN;
        loop {
            let inspected = self.docker.inspect_container(container.as_str(), None).await;
            let found = inspected.map_err(|error| failed("inspect", service, &error))?;
            let log =
                found.state.as_ref().and_then(|state| state.health.as_ref()).and_then(|health| health.log.as_ref());
            if health(&found) == HealthState::Healthy {
                return Ok(true);
            }
            if log.is_some_and(|runs| !runs.is_empty()) || Instant::now() >= until {
                return Ok(false);
            }
            sleep(FIRST_LOOK).await;
        }
    }

    /// Runs the container's test once, without a trace in its state.
    async fn probe(
        &self,
        service: &ServiceName,
        container: &ContainerId,
        test: &Test,
    ) -> Result<Probe, ContainersError> {
        match timeout(test.timeout, self.exec(container, &test.command)).await {
            Ok(Ok((0, _))) => Ok(Probe::Succeeded),
            Ok(Ok((code, output))) if output.is_empty() => {
                Ok(Probe::Failed(format!("its healthcheck exits with {code}")))
            }
            Ok(Ok((code, output))) => Ok(Probe::Failed(format!("its healthcheck exits with {code}: {output}"))),
            Ok(Err(error)) => Err(failed("check the health of", service, &error)),
            Err(_) => Ok(Probe::Failed(format!("its healthcheck takes longer than {} s", test.timeout.as_secs_f32()))),
        }
    }

    async fn exec(&self, container: &ContainerId, command: &[String]) -> Result<(i64, String), EngineError> {
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..ExecConfig::default()
        };
        let id = self.docker.create_exec(container.as_str(), config).await?.id;
        let mut text = Vec::new();
        let started = self.docker.start_exec(&id, Some(StartExecOptions::default())).await?;
        if let StartExecResults::Attached { mut output, .. } = started {
            while let Some(part) = output.next().await {
                let room = OUTPUT.saturating_sub(text.len());
                text.extend(part?.into_bytes().into_iter().take(room));
            }
        }
        let code = self.docker.inspect_exec(&id).await?.exit_code.unwrap_or(-1);
        Ok((code, String::from_utf8_lossy(&text).trim().to_owned()))
    }

    /// Why it can no longer be asked: most likely it has ended, and the engine has not said so yet.
    async fn lost(&self, service: &ServiceName, container: &ContainerId, error: &ContainersError) -> Failure {
        let runs = self.docker.inspect_container(container.as_str(), None).await;
        if runs.is_ok_and(|found| facts(&found).is_some_and(|facts| facts.running)) {
            return Failure::of(error);
        }
        exited(service, timeout(LONGEST_PAUSE, self.ended(container)).await.ok().flatten())
    }

    /// Has the container's state say how it is, by one recorded run unless it says so already.
    async fn recorded(&self, service: &ServiceName, container: &ContainerId) -> Result<bool, ContainersError> {
        let inspected = self.docker.inspect_container(container.as_str(), None).await;
        let found = inspected.map_err(|error| failed("inspect", service, &error))?;
        if health(&found) == HealthState::Healthy {
            return Ok(true);
        }
        let path = format!("containers/{container}/healthcheck");
        let run: HealthRun = self.ask("record the health of", service, &path).await?;
        Ok(run.status == "healthy")
    }

    /// What the container wrote last; nothing once it is removed.
    async fn lines(&self, container: &ContainerId) -> Vec<String> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(LINES).build();
        let logs = self.docker.logs(container.as_str(), Some(options));
        let parts = logs.filter_map(|part| async { part.ok() }).map(LogOutput::into_bytes).collect::<Vec<_>>();
        let bytes = timeout(Duration::from_secs(5), parts).await.unwrap_or_default().concat();
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }
}

impl Containers for Engine {
    type Error = ContainersError;

    async fn find(&self, service: &ServiceName) -> Result<Option<ContainerFacts>, ContainersError> {
        Ok(self.newest(service).await?.as_ref().and_then(facts))
    }

    async fn prove(&self, want: Wanted<'_>) -> Result<Proof, Failure> {
        let fail = |kind, reason: String| Failure::new(kind, reason).at(want.service);
        let begun = Instant::now();
        let found = self.newest(want.service).await.map_err(|error| Failure::of(&error).at(want.service))?;
        let gone =
            || fail("container-exited", format!("the container of {} ended right after its start", want.service));
        let (found, facts) = found.and_then(|found| facts(&found).map(|facts| (found, facts))).ok_or_else(gone)?;
        if Some(&facts.id) == want.not {
            return Err(fail("container-old", format!("{} still runs its old container", want.service)));
        }
        if facts.image != *want.image {
            return Err(fail(
                "container-image",
                format!("{} runs image {} instead of {}", want.service, facts.image.short(), want.image.short()),
            ));
        }
        if !facts.running {
            return Err(gone().tail(self.lines(&facts.id).await));
        }
        let proof = Proof {
            service: want.service.clone(),
            container: facts.id.clone(),
            image: facts.image,
            restarts: facts.restarts,
        };
        let test = found.config.and_then(|config| config.healthcheck).and_then(Test::of);
        let test = match (test, want.missing) {
            (Some(test), _) => test,
            (None, Missing::Running) => return Ok(proof),
            (None, Missing::Refuse) => {
                return Err(fail("no-healthcheck", format!("the container of {} has no healthcheck", want.service)));
            }
        };
        if facts.health == HealthState::Healthy {
            return Ok(proof);
        }
        let mut last = String::from("its healthcheck has not answered yet");
        let left = want.timeout.saturating_sub(begun.elapsed());
        let outcome = tokio::select! {
            biased;
            code = self.ended(&proof.container) => Err(exited(want.service, code)),
            healthy = timeout(left, self.until_healthy(&want, &proof.container, &test, &mut last)) => match healthy {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(self.lost(want.service, &proof.container, &error).await),
                Err(_) => Err(Failure::new(
                    "unhealthy",
                    format!("{} is not healthy after {} s: {last}", want.service, want.timeout.as_secs()),
                )),
            },
        };
        match outcome {
            Ok(()) => Ok(proof),
            Err(failure) => Err(failure.at(want.service).tail(self.lines(&proof.container).await)),
        }
    }

    async fn hold(&self, proofs: &[Proof], window: Duration) -> Result<(), Failure> {
        let ends = proofs.iter().map(|proof| Box::pin(async move { (proof, self.ended(&proof.container).await) }));
        let ends: Vec<_> = ends.collect();
        if !window.is_zero() && !ends.is_empty() {
            tokio::select! {
                ((proof, code), ..) = select_all(ends) => {
                    let lines = self.lines(&proof.container).await;
                    return Err(exited(&proof.service, code).at(&proof.service).tail(lines));
                }
                () = sleep(window) => {}
            }
        }
        try_join_all(proofs.iter().map(|proof| self.still(proof))).await.map(drop)
    }
}

impl Engine {
    /// Nothing has changed since the proof.
    async fn still(&self, proof: &Proof) -> Result<(), Failure> {
        let found = self.find(&proof.service).await.map_err(|error| Failure::of(&error).at(&proof.service))?;
        let changed = match found {
            None => "its container is gone",
            Some(now) if now.id != proof.container => "its container was replaced",
            Some(now) if !now.running => "its container has ended",
            Some(now) if now.restarts != proof.restarts => "its container was restarted",
            Some(now) if now.image != proof.image => "its container runs another image",
            Some(now) if matches!(now.health, HealthState::Unhealthy | HealthState::Starting) => "its health is gone",
            Some(_) => return Ok(()),
        };
        let reason = format!("{} did not stay as it was found healthy: {changed}", proof.service);
        let lines = self.lines(&proof.container).await;
        Err(Failure::new("unsettled", reason).at(&proof.service).tail(lines))
    }
}

/// How a container is asked for its health.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    command: Vec<String>,
    timeout: Duration,
}

enum Probe {
    Succeeded,
    Failed(String),
}

/// A container in Podman's own list.
#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Id")]
    id: String,
    /// Seconds since 1970; zero or less if it never was.
    #[serde(rename = "StartedAt")]
    started: i64,
}

/// Podman's answer where it refuses.
#[derive(Deserialize)]
struct Refused {
    message: String,
}

/// Podman's answer to a recorded run.
#[derive(Deserialize)]
struct HealthRun {
    #[serde(rename = "Status")]
    status: String,
}

impl Test {
    /// The image specification's forms: `CMD` with words, `CMD-SHELL` with a line for the shell, `NONE` for none.
    fn of(config: HealthConfig) -> Option<Self> {
        let words = config.test?;
        let (form, rest) = words.split_first()?;
        let command = match form.as_str() {
            "NONE" | "" => return None,
            "CMD" => rest.to_vec(),
            "CMD-SHELL" => vec!["/bin/sh".into(), "-c".into(), rest.join(" ")],
            _ => words,
        };
        let own = config.timeout.and_then(|nanos| u64::try_from(nanos).ok()).filter(|nanos| *nanos > 0);
        let timeout = own.map_or(PROBE_TIMEOUT, Duration::from_nanos);
        (!command.is_empty()).then_some(Self { command, timeout })
    }
}

fn facts(found: &ContainerInspectResponse) -> Option<ContainerFacts> {
    Some(ContainerFacts {
        id: found.id.clone()?.try_into().ok()?,
        image: found.image.clone()?.try_into().ok()?,
        running: found.state.as_ref().and_then(|state| state.running).unwrap_or(false),
        restarts: found.restart_count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
        health: health(found),
    })
}

fn health(found: &ContainerInspectResponse) -> HealthState {
    let status = found.state.as_ref().and_then(|state| state.health.as_ref()).and_then(|health| health.status);
    match status {
        None | Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) => HealthState::None,
        Some(HealthStatusEnum::STARTING) => HealthState::Starting,
        Some(HealthStatusEnum::HEALTHY) => HealthState::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => HealthState::Unhealthy,
    }
}

fn exited(service: &ServiceName, code: Option<i64>) -> Failure {
    let how = code.map_or_else(String::new, |code| format!(" with {code}"));
    Failure::new("container-exited", format!("the container of {service} exited{how} before it was proven"))
}

fn failed(action: &'static str, service: &ServiceName, error: &EngineError) -> ContainersError {
    ContainersError { action, service: service.clone(), words: engine::words(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_of(words: &[&str], timeout: Option<i64>) -> Option<Test> {
        let test = Some(words.iter().map(|word| (*word).to_owned()).collect());
        Test::of(HealthConfig { test, timeout, ..HealthConfig::default() })
    }

    #[test]
    fn the_forms_of_a_test() {
        let test = test_of(&["CMD", "curl", "-f", "http://localhost/"], Some(3_000_000_000)).unwrap();
        assert_eq!(test.command, ["curl", "-f", "http://localhost/"]);
        assert_eq!(test.timeout, Duration::from_secs(3));
        let test = test_of(&["CMD-SHELL", "test -e /ok || exit 1"], None).unwrap();
        assert_eq!(test.command, ["/bin/sh", "-c", "test -e /ok || exit 1"]);
        assert_eq!(test.timeout, PROBE_TIMEOUT);
    }

    #[test]
    fn what_is_no_test() {
        for (defect, words) in
            [("none", &["NONE"][..]), ("nothing", &[]), ("an empty form", &[""]), ("CMD without words", &["CMD"])]
        {
            assert_eq!(test_of(words, None), None, "{defect}");
        }
        assert_eq!(Test::of(HealthConfig::default()), None);
        assert_eq!(test_of(&["CMD", "true"], Some(-1)).unwrap().timeout, PROBE_TIMEOUT);
    }

    #[test]
    fn a_container_without_ids_is_none() {
        assert_eq!(facts(&ContainerInspectResponse::default()), None);
        let half = ContainerInspectResponse { id: Some("ab".repeat(32)), ..ContainerInspectResponse::default() };
        assert_eq!(facts(&half), None);
    }
}
