//! For tests: a registry with signed images, and a host whose units, images and containers are in memory.

pub(crate) mod world;

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
    state_dir::StateDir,
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
            revoked_keys: vec![],
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
