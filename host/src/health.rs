//! Is a service's container well? Asked at once instead of waiting for the container's own timer, and without wearing
//! out its retries.
//!
//! Podman's `healthcheck run` counts each failure against the container's retries, and one that has used them up may be
//! killed. So until the first success the container's own test is run by exec, which changes no state; then one
//! recorded run makes the container's state say what we found, and that state is what counts. Podman runs the test
//! itself when the container starts; for an application that is ready by then, reading that result is all there is to do.

mod ended;
mod podman;

use std::{path::PathBuf, time::Duration};

use bollard::{
    Docker,
    errors::Error as EngineError,
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use futures_util::{
    StreamExt,
    future::{select_all, try_join_all},
};
use serde::de::DeserializeOwned;
use tagship_core::explain::Explain;
use tokio::time::{Instant, sleep, timeout};

use self::{
    ended::Which,
    podman::{Health, Inspected, Listed, Refused, Test},
};
use crate::{
    config::{Missing, ServiceName},
    deploy::{ContainerFacts, ContainerId, Containers, Failure, HealthState, Proof, Wanted},
    engine,
};

/// How long Podman's own first run is waited for before we run the test ourselves. It takes 0.15 s on an idle machine;
/// a test of ours beside it only makes both slower.
const FIRST_RUN: Duration = Duration::from_millis(500);

/// When its result is looked for first: no run is quicker. Each look costs the engine 4 ms of the processor time that the
/// containers of a group, all starting at once, are short of.
const FIRST_LOOK: Duration = Duration::from_millis(150);

/// How often it is looked for from then on. Podman's event says the same, but up to 0.3 s later (5.4 with journald).
const NEXT_LOOK: Duration = Duration::from_millis(60);

/// The pause after the first failed probe; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between probes.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long the engine may take to show that it is there.
const ANSWER: Duration = Duration::from_secs(10);

/// How long it may take for a healthcheck's recorded run, the slowest of its calls.
const RECORD: Duration = Duration::from_secs(120);

/// How much of a probe's output is kept.
const OUTPUT: usize = 500;

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
    /// It could not be asked at all.
    unreachable: bool,
}

impl Explain for ContainersError {
    fn kind(&self) -> &'static str {
        if self.unreachable { engine::UNREACHABLE } else { "engine" }
    }

    fn hint(&self) -> Option<String> {
        Some(engine::HINT.into())
    }
}

impl Engine {
    /// The containers behind this engine, whose socket is also asked directly: the healthcheck call is Podman's alone.
    pub fn new(docker: Docker, socket: PathBuf) -> Self {
        Self { docker, socket }
    }

    /// The newest container of a unit, as far as the engine says so in time; while it is being replaced there may be none.
    async fn newest(&self, service: &ServiceName, patience: Duration) -> Result<Option<Inspected>, ContainersError> {
        let filters = serde_json::json!({ "label": [format!("PODMAN_SYSTEMD_UNIT={}", service.unit())] });
        let path = format!("containers/json?all=true&filters={}", engine::query(&filters.to_string()));
        let listed: Option<Vec<Listed>> = self.ask("find", service, &path, patience).await?;
        let Some(newest) = listed.into_iter().flatten().max_by_key(|container| container.started) else {
            return Ok(None);
        };
        self.inspect(service, &newest.id).await
    }

    /// What Podman knows about a container; it may be gone.
    async fn inspect(&self, service: &ServiceName, id: &str) -> Result<Option<Inspected>, ContainersError> {
        self.ask("inspect", service, &format!("containers/{id}/json"), engine::LOOK).await
    }

    /// The engine answers.
    async fn answers(&self, service: &ServiceName, container: &ContainerId) -> Result<(), ContainersError> {
        let path = format!("containers/{container}/json");
        self.ask::<serde::de::IgnoredAny>("inspect", service, &path, ANSWER).await.map(drop)
    }

    /// Asks Podman's own API, the only one whose words are all known here; nothing if there is no such container.
    async fn ask<T: DeserializeOwned>(
        &self,
        action: &'static str,
        service: &ServiceName,
        path: &str,
        patience: Duration,
    ) -> Result<Option<T>, ContainersError> {
        let error = |words| ContainersError { action, service: service.clone(), words, unreachable: false };
        let answer = engine::get(&self.socket, &format!("/v4.0.0/libpod/{path}"), patience).await;
        let (status, body) =
            answer.map_err(|cause| ContainersError { unreachable: true, ..error(cause.to_string()) })?;
        if status == 404 {
            return Ok(None);
        }
        if status != 200 {
            return match serde_json::from_slice::<Refused>(&body) {
                Ok(refused) if refused.is_absence() => Ok(None),
                Ok(refused) => Err(error(refused.message)),
                Err(_) => Err(error(format!("status {status}"))),
            };
        }
        serde_json::from_slice(&body).map(Some).map_err(|cause| error(cause.to_string()))
    }

    /// Probes until the container is healthy; `false` once Podman, after the container's own retries, holds it to be
    /// unhealthy: whoever set them has said how long to be patient.
    async fn until_healthy(
        &self,
        want: &Wanted<'_>,
        container: &ContainerId,
        test: &Test,
        last: &mut String,
    ) -> Result<bool, ContainersError> {
        if self.first_run(want.service, container).await? {
            return Ok(true);
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match self.probe(want.service, container, test).await? {
                Probe::Failed(output) => {
                    *last = output;
                    let found = self.inspect(want.service, container.as_str()).await?;
                    if found.is_some_and(|found| found.health() == HealthState::Unhealthy) {
                        return Ok(false);
                    }
                }
                Probe::Succeeded => {
                    if self.recorded(want.service, container).await? {
                        return Ok(true);
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
        let mut pause = FIRST_LOOK;
        loop {
            let found = self.inspect(service, container.as_str()).await?;
            let Some(health) = found.and_then(|found| found.state.health) else { return Ok(false) };
            if health.state() == HealthState::Healthy {
                return Ok(true);
            }
            if !health.log.unwrap_or_default().is_empty() || Instant::now() >= until {
                return Ok(false);
            }
            sleep(pause).await;
            pause = NEXT_LOOK;
        }
    }

    /// Runs the container's test once, without a trace in its state.
    async fn probe(
        &self,
        service: &ServiceName,
        container: &ContainerId,
        test: &Test,
    ) -> Result<Probe, ContainersError> {
        let failed = |how: String| Ok(Probe::Failed(format!("its healthcheck {how}")));
        match timeout(test.timeout, self.exec(container, &test.command)).await {
            Ok(Ok((0, _))) => Ok(Probe::Succeeded),
            Ok(Ok((code, output))) if output.is_empty() => failed(format!("exits with {code}")),
            Ok(Ok((code, output))) => failed(format!("exits with {code}: {output}")),
            Ok(Err(error)) => Err(ContainersError {
                action: "check the health of",
                service: service.clone(),
                words: engine::words(&error),
                unreachable: engine::is_unreachable(&error),
            }),
            Err(_) => failed(format!("takes longer than {} s", test.timeout.as_secs_f32())),
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

    /// Has the container's state say how it is, by one recorded run unless it says so already.
    async fn recorded(&self, service: &ServiceName, container: &ContainerId) -> Result<bool, ContainersError> {
        let found = self.inspect(service, container.as_str()).await?;
        if found.is_some_and(|found| found.health() == HealthState::Healthy) {
            return Ok(true);
        }
        let path = format!("containers/{container}/healthcheck");
        let run: Option<Health> = self.ask("record the health of", service, &path, RECORD).await?;
        Ok(run.is_some_and(|run| run.state() == HealthState::Healthy))
    }
}

impl Containers for Engine {
    type Error = ContainersError;

    async fn find(&self, service: &ServiceName) -> Result<Option<ContainerFacts>, ContainersError> {
        Ok(self.newest(service, engine::LOOK).await?.as_ref().map(Inspected::facts))
    }

    async fn prove(&self, want: Wanted<'_>) -> Result<Proof, Failure> {
        let fail = |kind, reason: String| Failure::new(kind, reason).at(want.service);
        let begun = Instant::now();
        let found =
            self.newest(want.service, want.timeout).await.map_err(|error| Failure::of(&error).at(want.service))?;
        let Some(found) = found else {
            return Err(self.exited(want.service, Which::LastSince(want.since, want.not), None).await.at(want.service));
        };
        let facts = found.facts();
        if Some(&facts.id) == want.not {
            let reason = format!("{} still runs its old container", want.service);
            return Err(fail("container-old", reason).hint(ended::more(want.service)));
        }
        if facts.image != *want.image {
            return Err(fail(
                "container-image",
                format!("{} runs image {} instead of {}", want.service, facts.image.short(), want.image.short()),
            )
            .hint("look at the unit's `Image=`, and for what else moves its name"));
        }
        if !facts.running {
            let lines = self.lines(&facts.id).await;
            let failure = self.exited(want.service, Which::This(&facts.id), found.state.exit_code).await;
            return Err(failure.at(want.service).tail(lines));
        }
        let proof = Proof {
            service: want.service.clone(),
            container: facts.id.clone(),
            image: facts.image,
            restarts: facts.restarts,
            checked: true,
        };
        let test = found.config.healthcheck.and_then(Test::of);
        let test = match (test, want.missing) {
            (Some(test), _) => test,
            (None, Missing::Running) => return Ok(Proof { checked: false, ..proof }),
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
            code = self.ended(&proof.container) => {
                Err(self.exited(want.service, Which::This(&proof.container), code).await)
            }
            healthy = timeout(left, self.until_healthy(&want, &proof.container, &test, &mut last)) => match healthy {
                Ok(Ok(true)) => Ok(()),
                Ok(Ok(false)) => Err(Failure::new(
                    "unhealthy",
                    format!("{} is unhealthy after its own retries: {last}", want.service),
                )
                .hint("raise the healthcheck's start period or its retries if it needs longer than that to start")),
                Ok(Err(error)) => Err(self.lost(want.service, &proof.container, &error).await),
                // Nobody can say how it is: that speaks against no image.
                Err(_) if let Err(error) = self.answers(want.service, &proof.container).await => {
                    Err(Failure::of(&error))
                }
                Err(_) => Err(Failure::new(
                    "unhealthy",
                    format!("{} is not healthy after {} s: {last}", want.service, want.timeout.as_secs()),
                )
                .hint("raise `health.timeout` if it needs longer than that to start")),
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
                    let failure = self.exited(&proof.service, Which::This(&proof.container), code).await;
                    return Err(failure.at(&proof.service).tail(lines));
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
        Err(Failure::new("unsettled", reason).at(&proof.service).hint(ended::more(&proof.service)).tail(lines))
    }
}

enum Probe {
    Succeeded,
    Failed(String),
}
