//! For tests: a registry with signed images, and a host whose units, images and containers are in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sigstore::crypto::signing_key::{
    KeyPair as _, Signer as _,
    ecdsa::{
        EllipticCurve,
        ec::{EcdsaKeys, EcdsaSigner},
    },
};
use tagship_core::{
    explain::Explain,
    failpoint,
    reference::{Digest, Repository, Tag},
    registry::RegistryError,
    signature::{
        AnnotationRule, Annotations, Attached, Blob, CheckError, Expectation, Formats, Layer, Policy, PublicKey, Rekor,
        SIGNATURE_ANNOTATION, Verified, payload, verify,
    },
};

use crate::{
    config::{App, Downgrade, Health, Missing, RequestPolicy, RootFile, ServiceName, Settings, VerifySettings},
    deploy::{
        ContainerFacts, ContainerId, Containers, Contents, Failure, HealthState, ImageId, Leave, LocalName, Proof,
        Pulled, Room, Store, UnitFacts, Units, Wanted,
    },
    desk::{Adapters, Host},
    history::{Marked, Verdict},
    stop::Stop,
    verify::{Denied, Registry},
};

pub(crate) const IMAGE: &str = "git.example.org/chris/app";

/// A key pair of somebody.
pub(crate) struct Signer {
    signer: EcdsaSigner,
    pub(crate) public: PublicKey,
}

impl Signer {
    pub(crate) fn new() -> Self {
        let keys = EcdsaKeys::new(EllipticCurve::P256).unwrap();
        let public = PublicKey::from_spki("key", &keys.public_key_to_der().unwrap()).unwrap();
        Self { signer: EcdsaSigner::from_ecdsa_keys(&keys).unwrap(), public }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signer.sign(message).unwrap()
    }

    /// A signature of an image of [`IMAGE`], with these annotations.
    pub(crate) fn layer(&self, digest: Digest, annotations: &[(&str, &str)]) -> Attached {
        let entries = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let annotations = Annotations::new(entries).unwrap();
        let payload = payload::encode(&repository(), &digest, &annotations).unwrap();
        let signature = STANDARD.encode(self.sign(&payload));
        Attached::Layer(Layer {
            payload: Blob::of(payload),
            annotations: [(SIGNATURE_ANNOTATION.to_owned(), signature)].into(),
        })
    }
}

pub(crate) fn repository() -> Repository {
    IMAGE.parse().unwrap()
}

pub(crate) fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

/// The digest of the image that a test calls by this name.
pub(crate) fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// The local id of the image with this digest.
pub(crate) fn image_of(digest: Digest) -> ImageId {
    Digest::of(digest.hex().as_bytes()).hex().try_into().unwrap()
}

/// A public key on P-384, as OpenSSL writes it.
pub(crate) const P384: &str = "-----BEGIN PUBLIC KEY-----\n\
    MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEp45dYQ+kmIZ3XNKCZ80lSOb/pgLzh8OK\n\
    BRxIKuHBlB40yOYxTnDCdflCJYwz9Oao++RVRX5pGfeUL3p2b3IYr1bgyV3f5qKw\n\
    PYuHxT7f6K8TZr0YDawzzUdreGWThFhO\n\
    -----END PUBLIC KEY-----\n";

/// The settings of an app of two services that trusts this key.
pub(crate) fn settings(key: &Signer, handoff: &std::path::Path) -> Settings {
    let service = |name: &str| name.parse::<ServiceName>().unwrap();
    Settings {
        app: "app".parse().unwrap(),
        image: repository(),
        moving_tag: Some(tag("stable")),
        local_image: Some("localhost/app".parse().unwrap()),
        handoff: handoff.to_owned(),
        requesters: vec![],
        verify: VerifySettings {
            keys: vec![RootFile::for_test("/etc/app.pub", key.public.to_pem().as_bytes())],
            formats: Formats::BOTH,
            rekor: Rekor::Off,
            rekor_keys: vec![],
            annotations: AnnotationRule::WhenPresent,
            requests: RequestPolicy::Any,
            downgrade: Downgrade::Refuse,
            floor: None,
        },
        before: vec![],
        services: vec![vec![service("web")], vec![service("worker")]],
        health: Health { timeout: Duration::from_secs(5), settle: Duration::ZERO, missing: Missing::Running },
        budget: Duration::from_secs(60),
        keep_images: 3,
        reserve_space: 0,
    }
}

/// What the world outside is like. Clones are the same world.
#[derive(Clone, Default)]
pub(crate) struct World {
    state: Arc<Mutex<State>>,
    pub(crate) stop: Stop,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) tags: BTreeMap<Tag, Digest>,
    pub(crate) signatures: BTreeMap<Digest, Vec<Attached>>,
    pub(crate) registry_down: bool,
    pub(crate) engine_down: bool,
    /// The engine can be connected to, and then finds no container.
    pub(crate) engine_silent: bool,
    /// Images whose containers never get healthy.
    pub(crate) sick: BTreeSet<ImageId>,
    /// Services without a healthcheck.
    pub(crate) unchecked: BTreeSet<ServiceName>,
    /// Services that the service manager does not know.
    pub(crate) unknown: BTreeSet<ServiceName>,
    pub(crate) names: BTreeMap<String, ImageId>,
    /// What each service runs, and in which container.
    pub(crate) runs: BTreeMap<ServiceName, (ImageId, u64)>,
    pub(crate) restarts: u64,
    /// How many bytes the store has room for, and how many each image takes.
    pub(crate) free: u64,
    pub(crate) size: u64,
    /// What happens on the host while a set of services settles.
    pub(crate) in_settle: Option<Box<dyn FnOnce() + Send>>,
    /// How long whatever is asked of this world takes.
    pub(crate) pace: Duration,
    /// What was put in place because its signature was verified.
    pub(crate) placed: BTreeSet<ImageId>,
    /// What all services ran together after a restart, each time anew.
    pub(crate) moments: Vec<ImageId>,
    /// What the system journal was told.
    pub(crate) verdicts: Vec<Verdict>,
    /// What it was told of the mark.
    pub(crate) marks: Vec<Marked>,
    /// For which images older ones were removed, and how many answers there were by then.
    pub(crate) tidied: Vec<(ImageId, usize)>,
}

impl State {
    fn running(&self) -> Option<ImageId> {
        let images: BTreeSet<&ImageId> = self.runs.values().map(|(image, _)| image).collect();
        images.first().filter(|_| images.len() == 1).map(|image| (*image).clone())
    }
}

impl World {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Releases an image as tagship does: pushed and signed under its tag.
    pub(crate) fn release(&self, key: &Signer, name: &str) -> Digest {
        let digest = digest(name);
        let created = "2026-01-01T00:00:00Z";
        let layer = key.layer(digest, &[("tag", name), ("repository", IMAGE), ("created", created)]);
        self.state().tags.insert(tag(name), digest);
        self.state().signatures.entry(digest).or_default().push(layer);
        digest
    }

    /// What all services run, if it is one image.
    pub(crate) fn running(&self) -> Option<ImageId> {
        self.state().running()
    }

    /// Something is asked of this world: others have the time to do something, too, and a test to end it all.
    async fn passes(&self, what: &str, which: impl Display) {
        failpoint::pass(what, which);
        let pace = self.state().pace;
        if pace > Duration::ZERO {
            tokio::time::sleep(pace).await;
        }
    }
}

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

    async fn tidy(&self, _: &World, settings: &Settings, running: &ImageId) -> Result<usize, Failure> {
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

    async fn tail(&self, _: &ServiceName) -> Vec<String> {
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
