//! The world in memory as the ports of a deploy see it.

use std::time::SystemTime;

use super::*;

impl Registry for World {
    async fn resolve(&self, tag: &Tag) -> Result<Option<Digest>, RegistryError> {
        self.passes("asks the registry for", tag).await;
        down(&self.state())?;
        Ok(self.state().tags.get(tag).copied())
    }

    async fn contents(&self, digest: Digest) -> Result<Option<Contents>, RegistryError> {
        self.passes("asks what is in", digest).await;
        down(&self.state())?;
        let config = format!(r#"{{"rootfs":{{"diff_ids":["{digest}"]}}}}"#);
        Ok(Contents::new(&[self.state().size], config.as_bytes()))
    }

    async fn check(&self, expected: &Expectation, policy: &Policy) -> Result<Verified, CheckError> {
        self.passes("fetches the signatures of", expected.digest).await;
        let state = self.state();
        let image = tagship_core::reference::ImageRef::pinned(&expected.repository, &expected.digest);
        down(&state).map_err(|source| tagship_core::signature::FetchError::Registry { image, source })?;
        let layers = state.signatures.get(&expected.digest).cloned().unwrap_or_default();
        Ok(verify::verify(expected, &layers, policy)?)
    }
}

fn down(state: &State) -> Result<(), RegistryError> {
    match state.registry_down {
        true => Err(RegistryError::Server { url: IMAGE.into(), status: 503, message: String::new() }),
        false => Ok(()),
    }
}

impl Host for World {
    type Registry = World;
    type Units = World;
    type Store = World;
    type Containers = World;

    async fn registry(&self, _: &Settings) -> Result<World, Denied> {
        Ok(self.clone())
    }

    async fn adapters(&self, _: &Settings) -> Result<Adapters<World, World, World>, Failure> {
        match self.state().engine_down {
            true => Err(Failure::new("engine-missing", "no engine answers")),
            false => Ok(Adapters { units: self.clone(), store: self.clone(), containers: self.clone() }),
        }
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }

    fn verdict(&self, _: &App, verdict: &Verdict) {
        self.state().verdicts.push(verdict.clone());
    }

    fn marked(&self, _: &App, marked: &Marked) {
        self.state().marks.push(marked.clone());
    }

    async fn tidy(&self, _: &World, settings: &Settings, running: &ImageId, _: &StateDir) -> Result<usize, Failure> {
        let names = std::fs::read_dir(&settings.handoff).unwrap().map(|entry| entry.unwrap().file_name());
        let answers = names.filter(|name| name.to_string_lossy().starts_with("deploy-status.")).count();
        self.state().tidied.push((running.clone(), answers));
        Ok(0)
    }
}

/// What can go wrong in this world, once everything is connected.
#[derive(Debug, thiserror::Error)]
#[error("nobody answers")]
pub(crate) struct Silent;

impl Explain for Silent {
    fn kind(&self) -> &'static str {
        "silent"
    }
}

impl Units for World {
    type Error = Silent;

    async fn inspect(&self, service: &ServiceName) -> Result<UnitFacts, Silent> {
        self.passes("inspects", service).await;
        let active = if self.state().runs.contains_key(service) { "active" } else { "inactive" };
        Ok(UnitFacts {
            load: if self.state().unknown.contains(service) { "not-found" } else { "loaded" }.into(),
            active: active.into(),
            sub: "running".into(),
            enablement: "generated".into(),
            command: vec![format!("localhost/app:{service}")],
            ..UnitFacts::default()
        })
    }

    async fn restart(&self, service: &ServiceName) -> Result<(), Silent> {
        self.passes("restarts", service).await;
        {
            let mut state = self.state();
            state.restarts += 1;
            let container = state.restarts;
            if let Some(image) = state.names.get(&format!("localhost/app:{service}")).cloned() {
                state.runs.insert(service.clone(), (image, container));
                let running = state.running();
                state.moments.extend(running);
            }
        }
        self.passes("has restarted", service).await;
        Ok(())
    }

    async fn stop(&self, service: &ServiceName) -> Result<(), Silent> {
        self.passes("stops", service).await;
        self.state().runs.remove(service);
        Ok(())
    }

    async fn tail(&self, _: &ServiceName, _: Option<SystemTime>) -> Vec<String> {
        vec!["last words".into()]
    }
}

impl Store for World {
    type Error = Silent;

    async fn rooms(&self) -> Result<Vec<Room>, Silent> {
        self.passes("asks for", "room").await;
        Ok(vec![Room { directory: "/store".into(), device: 1, free: self.state().free }])
    }

    async fn layers(&self) -> Result<BTreeSet<Digest>, Silent> {
        self.passes("asks for", "layers").await;
        Ok(BTreeSet::new())
    }

    async fn pull(&self, verified: &Verified, _: &(dyn Fn(&str) + Sync)) -> Result<Pulled, Silent> {
        self.passes("pulls", verified.digest()).await;
        Ok(Pulled::new(verified, image_of(verified.digest()), true))
    }

    async fn resolve(&self, name: &LocalName) -> Result<Option<ImageId>, Silent> {
        self.passes("resolves", name).await;
        Ok(self.state().names.get(&name.to_string()).cloned())
    }

    async fn has(&self, _: &ImageId) -> Result<bool, Silent> {
        Ok(true)
    }

    async fn place(&self, leave: Leave<'_>, name: &LocalName) -> Result<(), Silent> {
        self.passes("places", name).await;
        {
            let mut state = self.state();
            state.names.insert(name.to_string(), leave.image().clone());
            if let Leave::Verified(pulled) = leave {
                state.placed.insert(pulled.image().clone());
            }
        }
        self.passes("has placed", name).await;
        Ok(())
    }

    async fn forget(&self, name: &LocalName) -> Result<(), Silent> {
        self.passes("forgets", name).await;
        self.state().names.remove(&name.to_string());
        Ok(())
    }

    async fn digests(&self, image: &ImageId, of: &Repository) -> Result<Vec<Digest>, Silent> {
        self.passes("asks for the digests of", image).await;
        let state = self.state();
        let all = state.tags.values().chain(state.signatures.keys()).filter(|_| *of == repository());
        Ok(all.copied().filter(|digest| image_of(*digest) == *image).collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn keep(&self, _: &ImageId) -> Result<(), Silent> {
        Ok(())
    }
}

impl Containers for World {
    type Error = Silent;

    async fn find(&self, service: &ServiceName) -> Result<Option<ContainerFacts>, Silent> {
        self.passes("finds the container of", service).await;
        let state = self.state();
        if state.engine_silent {
            return Err(Silent);
        }
        Ok(state.runs.get(service).map(|(image, container)| ContainerFacts {
            id: id(*container),
            image: image.clone(),
            running: true,
            restarts: 0,
            health: match service {
                _ if state.sick.contains(image) => HealthState::Unhealthy,
                _ if state.unchecked.contains(service) => HealthState::None,
                _ => HealthState::Healthy,
            },
        }))
    }

    async fn prove(&self, want: Wanted<'_>) -> Result<Proof, Failure> {
        self.passes("proves", want.service).await;
        let state = self.state();
        match state.runs.get(want.service) {
            Some((image, container)) if image == want.image && !state.sick.contains(image) => Ok(Proof {
                service: want.service.clone(),
                container: id(*container),
                image: image.clone(),
                restarts: 0,
                checked: !state.unchecked.contains(want.service),
            }),
            _ => Err(Failure::new("unhealthy", "it does not get healthy").at(want.service)),
        }
    }

    async fn hold(&self, _: &[Proof], _: Duration) -> Result<(), Failure> {
        let happens = self.state().in_settle.take();
        if let Some(happens) = happens {
            happens();
        }
        Ok(())
    }
}

fn id(number: u64) -> ContainerId {
    format!("{number:064x}").try_into().unwrap()
}
