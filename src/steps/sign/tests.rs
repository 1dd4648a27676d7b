//! Signing in a registry that is slow, shared, full or not there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tagship_core::registry::{OCI_INDEX, OCI_MANIFEST, Target};
use tagship_core::signature::fetch::{MAX_BUNDLES, MAX_LAYERS};
use tagship_core::signature::{TagClaim, payload};

use super::*;
use crate::commands::verify::{VerifyCommandError, report, run as verify_image};
use crate::log::{Style, testing};
use crate::testing::{FakeLog, Reply, Store, registry, serve};

struct World {
    store: Arc<Mutex<Store>>,
    client: Client,
    repository: Repository,
    digest: Digest,
    key: SigningKey,
    facts: Facts,
}

impl World {
    async fn new() -> Self {
        let (store, client, repository) = registry().await;
        let image = br#"{"schemaVersion":2}"#;
        store.lock().unwrap().manifests.insert("v0.2.9".to_owned(), image.to_vec());
        let facts = Facts {
            tag: "v0.2.9".parse().unwrap(),
            commit: Some("0123abc".to_owned()),
            run: Some("17".to_owned()),
            further: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
        };
        Self { store, client, repository, digest: Digest::of(image), key: SigningKey::generate().unwrap(), facts }
    }

    async fn sign(&self, key: &SigningKey, rekor: Option<&rekor::Log>) -> Result<Verified, SignStepError> {
        self.sign_as(Formats::BOTH, key, rekor).await
    }

    async fn sign_as(
        &self,
        formats: Formats,
        key: &SigningKey,
        rekor: Option<&rekor::Log>,
    ) -> Result<Verified, SignStepError> {
        let (log, _) = testing::log(Style::Plain);
        let Self { client, repository, digest, facts, .. } = self;
        let lists = look(client, repository, digest, formats).await?;
        run(Needs { client, repository, digest: *digest, facts, key, log: rekor, formats }, lists, &log).await
    }

    /// Signs, and tells whether a signature was added.
    async fn adds(&self, key: &SigningKey, rekor: Option<&rekor::Log>) -> bool {
        let before = self.layers();
        self.sign(key, rekor).await.unwrap();
        self.layers() > before
    }

    fn layers(&self) -> usize {
        self.store.lock().unwrap().layers(&self.digest).len()
    }

    fn bundles(&self) -> usize {
        self.store.lock().unwrap().referrers(&self.digest).len()
    }
}

#[tokio::test]
async fn signs_once_and_verifies() {
    let mut world = World::new().await;
    let first = world.sign(&world.key, None).await.unwrap();
    assert_eq!((first.digest(), first.logged(), world.layers()), (world.digest, None, 1));
    assert!(!world.adds(&world.key, None).await);
    world.facts.run = Some("18".to_owned());
    assert!(!world.adds(&world.key, None).await, "another run says nothing new");
    world.facts.commit = Some("4567def".to_owned());
    assert!(world.adds(&world.key, None).await);
    world.facts.further.clear();
    assert!(world.adds(&world.key, None).await);
    assert_eq!(world.layers(), 3);

    let policy = policy(world.key.public(), None, Formats::BOTH);
    let wanted = Target::Tag("v0.2.9".parse().unwrap());
    let verified = verify_image(&world.client, &world.repository, wanted, &policy).await.unwrap();
    let report = report(&verified).join("\n");
    assert!(report.contains("tag        v0.2.9 (signed)\ncommit     4567def\ncreated    "), "{report}");
    let absent = Target::Tag("v9".parse().unwrap());
    let error = verify_image(&world.client, &world.repository, absent, &policy).await.unwrap_err();
    assert_eq!(error.kind(), "no-such-image");
    let unsigned = Target::Digest(Digest::of(b"x"));
    let error = verify_image(&world.client, &world.repository, unsigned, &policy).await.unwrap_err();
    assert_eq!(error.kind(), "no-signature");
}

/// How many blobs were uploaded.
fn uploads(world: &World) -> usize {
    world.store.lock().unwrap().asked.iter().filter(|line| line.starts_with("POST")).count()
}

async fn prepared(world: &World) -> Ahead {
    let World { client, repository, digest, facts, .. } = world;
    prepare(client, repository, digest, Formats::BOTH, facts).await.unwrap()
}

async fn sign_prepared(world: &World, ahead: Ahead) -> Verified {
    let World { client, repository, digest, facts, key, .. } = world;
    let needs = Needs { client, repository, digest: *digest, facts, key, log: None, formats: Formats::BOTH };
    run(needs, ahead, &testing::log(Style::Plain).0).await.unwrap()
}

#[tokio::test]
async fn what_was_uploaded_ahead_is_named_by_nothing_and_not_uploaded_again() {
    let world = World::new().await;
    let ahead = prepared(&world).await;
    assert_eq!((uploads(&world), world.layers(), world.bundles()), (3, 0, 0));
    let verified = sign_prepared(&world, ahead).await;
    assert_eq!(verified.digest(), world.digest);
    // The bundle alone has the signature in it.
    assert_eq!((uploads(&world), world.layers(), world.bundles()), (4, 1, 1));
    assert!(!world.adds(&world.key, None).await);
}

#[tokio::test]
async fn nothing_is_uploaded_ahead_for_an_image_that_has_a_signature() {
    let world = World::new().await;
    world.sign(&world.key, None).await.unwrap();
    let before = uploads(&world);
    let ahead = prepared(&world).await;
    assert_eq!(uploads(&world), before);
    sign_prepared(&world, ahead).await;
    assert_eq!((uploads(&world), world.layers()), (before, 1));
}

#[tokio::test]
async fn a_signature_that_came_in_between_is_kept() {
    let world = World::new().await;
    let ahead = prepared(&world).await;
    world.sign(&SigningKey::generate().unwrap(), None).await.unwrap();
    sign_prepared(&world, ahead).await;
    assert_eq!((world.layers(), world.bundles()), (2, 2));
    let store = world.store.lock().unwrap();
    let manifest: Value = serde_json::from_slice(&store.manifests[world.digest.signature_tag().as_str()]).unwrap();
    assert!(store.blobs.contains_key(manifest["config"]["digest"].as_str().unwrap()), "a config that is there");
}

#[tokio::test]
async fn what_was_uploaded_ahead_and_is_gone_is_uploaded_again() {
    let world = World::new().await;
    let theirs =
        br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}"#.to_vec();
    let ahead = prepared(&world).await;
    {
        let mut store = world.store.lock().unwrap();
        store.blobs.clear();
        store.overwrites.push_back(theirs);
    }
    sign_prepared(&world, ahead).await;
    let store = world.store.lock().unwrap();
    let payload = store.layers(&world.digest)[0]["digest"].as_str().unwrap().to_owned();
    assert!(store.blobs.contains_key(&payload));
}

#[tokio::test]
async fn keeps_the_signatures_of_others() {
    let world = World::new().await;
    let other = SigningKey::generate().unwrap();
    world.sign(&other, None).await.unwrap();
    world.sign(&world.key, None).await.unwrap();
    assert_eq!(world.layers(), 2);
    assert!(!world.adds(&other, None).await);
}

fn only(format: Format) -> Formats {
    Formats::among(&[format]).unwrap()
}

#[tokio::test]
async fn each_format_is_where_its_readers_look() {
    for (format, layers, bundles) in [(Format::Sig, 1, 0), (Format::Bundle, 0, 1)] {
        let world = World::new().await;
        let verified = world.sign_as(only(format), &world.key, None).await.unwrap();
        assert_eq!(verified.tag_claim(), &TagClaim::Signed("v0.2.9".parse().unwrap()));
        assert_eq!((world.layers(), world.bundles()), (layers, bundles), "{format:?}");
        // What is missing is added, what is there is not signed again.
        world.sign(&world.key, None).await.unwrap();
        assert_eq!((world.layers(), world.bundles()), (1, 1), "{format:?}");
    }
}

#[tokio::test]
async fn a_registry_that_lists_referrers_is_not_given_a_list() {
    let world = World::new().await;
    world.store.lock().unwrap().lists_referrers = true;
    world.sign(&world.key, None).await.unwrap();
    world.sign(&SigningKey::generate().unwrap(), None).await.unwrap();
    assert_eq!((world.layers(), world.bundles()), (2, 0));
    assert!(!world.adds(&world.key, None).await);
    let asked = world.store.lock().unwrap().asked.join("\n");
    assert!(asked.contains("/referrers/sha256:"), "{asked}");
    assert!(!asked.lines().any(|line| line.ends_with(world.digest.referrers_tag().as_str())), "{asked}");
}

#[tokio::test]
async fn an_image_that_is_gone_gets_no_bundle() {
    let world = World::new().await;
    world.store.lock().unwrap().manifests.clear();
    let error = world.sign_as(only(Format::Bundle), &world.key, None).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), ("no-such-image", Code::Registry));
}

#[tokio::test]
async fn signs_again_what_another_signer_undid() {
    for format in Format::ALL {
        let world = World::new().await;
        world.sign_as(only(format), &SigningKey::generate().unwrap(), None).await.unwrap();
        let tag = match format {
            Format::Sig => world.digest.signature_tag(),
            Format::Bundle => world.digest.referrers_tag(),
        };
        let theirs = world.store.lock().unwrap().manifests[tag.as_str()].clone();
        world.store.lock().unwrap().overwrites.extend([theirs.clone(), theirs.clone()]);
        world.sign_as(only(format), &world.key, None).await.unwrap();
        assert_eq!(world.layers() + world.bundles(), 2, "{format:?}");
        // A slower one, after ours was seen: once by us already.
        let world = World { key: SigningKey::generate().unwrap(), ..world };
        world.store.lock().unwrap().overwrites_once_seen.extend([theirs.clone(), theirs]);
        world.sign_as(only(format), &world.key, None).await.unwrap();
        assert!(world.store.lock().unwrap().overwrites_once_seen.is_empty(), "{format:?}");
        assert_eq!(world.layers() + world.bundles(), 2, "{format:?}");
    }
}

#[tokio::test]
async fn a_registry_without_a_list_of_referrers_is_asked_for_it_once() {
    let world = World::new().await;
    world.sign(&world.key, None).await.unwrap();
    let asked = world.store.lock().unwrap().asked.clone();
    assert_eq!(asked.iter().filter(|line| line.contains("/referrers/")).count(), 1, "{asked:?}");
}

#[tokio::test]
async fn says_so_when_its_signature_never_stays() {
    let index = format!(r#"{{"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
    for (format, emptied) in [(Format::Sig, r#"{"layers":[]}"#.to_owned()), (Format::Bundle, index)] {
        let world = World::new().await;
        world.store.lock().unwrap().overwrites.extend(vec![emptied.into_bytes(); 5]);
        let error = world.sign_as(only(format), &world.key, None).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), ("signature-lost", Code::Signing), "{format:?}");
    }
}

#[tokio::test]
async fn records_before_it_pushes() {
    let world = World::new().await;
    let fake = Arc::new(FakeLog::new());
    let answering = Arc::clone(&fake);
    let up = serve(move |request| Reply(201, String::new(), answering.answer(&request.body))).await;
    let down = serve(|_| Reply(500, String::new(), Vec::new())).await;
    let lying = serve(|_| Reply(201, String::new(), FakeLog::new().answer(b"{}"))).await;
    for (address, kind) in [(down, "log-error"), (lying, "log-invalid")] {
        let error = world.sign(&world.key, Some(&fake.client(&address))).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(!world.store.lock().unwrap().was_written(), "{kind}");
    }
    let signed = world.sign(&world.key, Some(&fake.client(&up))).await.unwrap();
    assert_eq!(signed.logged().map(|logged| logged.index()), Some(7));
    assert!(!world.adds(&world.key, Some(&fake.client(&up))).await);
    let other = world.sign(&world.key, Some(&FakeLog::new().client(&up))).await;
    assert_eq!(other.unwrap_err().kind(), "log-invalid", "a log that is not trusted recorded nothing");
}

#[tokio::test]
async fn an_unlogged_signature_does_not_do_where_the_log_is_on() {
    let world = World::new().await;
    world.sign(&world.key, None).await.unwrap();
    let fake = FakeLog::new();
    let public = fake.public();
    let address = serve(move |request| Reply(201, String::new(), fake.answer(&request.body))).await;
    let log = rekor::Log::new(
        &format!("http://{address}").parse().unwrap(),
        public,
        &tagship_core::tls::Roots::load(None).unwrap(),
    )
    .unwrap();
    let signed = world.sign(&world.key, Some(&log)).await.unwrap();
    assert_eq!((signed.logged().map(|logged| logged.index()), world.layers()), (Some(7), 2));
}

#[tokio::test]
async fn reserved_annotations_are_refused() {
    let mut world = World::new().await;
    world.facts.further.insert("tag".to_owned(), "v1".to_owned());
    let error = world.sign(&world.key, None).await.unwrap_err();
    assert_eq!(error.kind(), "bad-annotation");
    world.facts.further = BTreeMap::from([("x".to_owned(), "y".repeat(70_000))]);
    let error = world.sign(&world.key, None).await.unwrap_err();
    assert_eq!(error.kind(), "bad-annotation");
    assert!(!world.store.lock().unwrap().was_written());
}

/// Signatures of somebody else: bundles in the index under the image's tag, and layers of its `.sig` manifest.
fn crowd(world: &World, bundles: usize, layers: usize) {
    let digest = |n: usize| Digest::of(format!("another's {n}").as_bytes());
    let mut store = world.store.lock().unwrap();
    let entries: Vec<_> = (0..bundles).map(|n| json!({ "mediaType": OCI_MANIFEST, "digest": digest(n) })).collect();
    let index = json!({ "mediaType": OCI_INDEX, "manifests": entries });
    store.manifests.insert(world.digest.referrers_tag().to_string(), index.to_string().into_bytes());
    let entries: Vec<_> =
        (0..layers).map(|n| json!({ "mediaType": payload::MEDIA_TYPE, "digest": digest(n) })).collect();
    let manifest = json!({ "layers": entries });
    store.manifests.insert(world.digest.signature_tag().to_string(), manifest.to_string().into_bytes());
}

async fn verified(world: &World) -> Result<Verified, VerifyCommandError> {
    let policy = policy(world.key.public(), None, Formats::BOTH);
    verify_image(&world.client, &world.repository, Target::Digest(world.digest), &policy).await
}

#[tokio::test]
async fn the_last_place_is_taken_and_counts() {
    let world = World::new().await;
    crowd(&world, MAX_BUNDLES - 1, 200);
    world.sign(&world.key, None).await.unwrap();
    assert_eq!((world.bundles(), world.layers()), (MAX_BUNDLES, 201));
    assert!(verified(&world).await.is_ok());
    assert!(!world.adds(&world.key, None).await, "signing again finds it");
}

#[tokio::test]
async fn where_one_list_is_full_neither_is_written() {
    for (bundles, layers, has, tag) in [
        (MAX_BUNDLES, 0, "64 bundles, and 64 are read", World::new().await.digest.referrers_tag()),
        (MAX_BUNDLES + 5, 0, "69 bundles, and 64 are read", World::new().await.digest.referrers_tag()),
        (0, MAX_LAYERS, "1024 signatures, and 1024 are read", World::new().await.digest.signature_tag()),
    ] {
        let world = World::new().await;
        crowd(&world, bundles, layers);
        let error = world.sign(&world.key, None).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), ("too-many-signatures", Code::Signing), "{has}");
        assert!(error.to_string().contains(has), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains(&format!("{}:{tag}, and leave its other entries", world.repository)), "{hint}");
        assert!(!world.store.lock().unwrap().was_written(), "{has}");
    }
}

#[tokio::test]
async fn a_registrys_own_list_has_no_tag_to_name() {
    let world = World::new().await;
    world.store.lock().unwrap().lists_referrers = true;
    for n in 0..MAX_BUNDLES {
        let manifest = json!({ "subject": { "digest": world.digest }, "n": n }).to_string().into_bytes();
        world.store.lock().unwrap().manifests.insert(Digest::of(&manifest).to_string(), manifest);
    }
    let error = world.sign(&world.key, None).await.unwrap_err();
    assert_eq!(error.kind(), "too-many-signatures");
    assert!(!error.hint().unwrap().contains("sha256-"), "{:?}", error.hint());
    assert!(!world.store.lock().unwrap().was_written());
}

#[tokio::test]
async fn where_one_list_is_too_long_in_bytes_neither_is_written() {
    for (tag, kind) in [
        (World::new().await.digest.signature_tag(), "layers"),
        (World::new().await.digest.referrers_tag(), "manifests"),
    ] {
        let world = World::new().await;
        let note = "x".repeat(1024 * 1024 - 600);
        let media_type = if kind == "layers" { OCI_MANIFEST } else { OCI_INDEX };
        let list = json!({ "mediaType": media_type, kind: [], "annotations": { "note": note } });
        world.store.lock().unwrap().manifests.insert(tag.to_string(), list.to_string().into_bytes());
        let error = world.sign(&world.key, None).await.unwrap_err();
        assert_eq!(error.kind(), "too-many-signatures", "{kind}");
        assert!(error.to_string().ends_with("bytes, and 1048576 are read"), "{error}");
        assert!(!world.store.lock().unwrap().was_written(), "{kind}");
    }
}

#[tokio::test]
async fn a_good_one_among_the_last_counts_and_what_was_not_read_is_told() {
    let world = World::new().await;
    world.sign_as(only(Format::Bundle), &world.key, None).await.unwrap();
    let ours = world.store.lock().unwrap().referrers(&world.digest).remove(0);
    let insert = |at: usize| {
        let mut store = world.store.lock().unwrap();
        let tag = world.digest.referrers_tag().to_string();
        let mut index: Value = serde_json::from_slice(&store.manifests[&tag]).unwrap();
        index["manifests"].as_array_mut().unwrap().insert(at, ours.clone());
        store.manifests.insert(tag, index.to_string().into_bytes());
    };
    let place = async |at: usize, count: usize| {
        crowd(&world, count, 0);
        insert(at);
        verified(&world).await
    };
    assert!(place(MAX_BUNDLES + 40, MAX_BUNDLES + 40).await.is_ok(), "the newest");
    assert!(place(41, MAX_BUNDLES + 40).await.is_ok(), "the oldest that is read");
    let error = place(40, MAX_BUNDLES + 40).await.unwrap_err();
    assert_eq!(error.kind(), "too-many-signatures");
    let message = explain::chain(&error);
    assert!(message.contains("of the 105 bundles in its index of referrers the first 41 were not"), "{message}");
    assert!(error.hint().unwrap().contains(world.digest.referrers_tag().as_str()));
    crowd(&world, MAX_BUNDLES, 0);
    assert_eq!(verified(&world).await.unwrap_err().kind(), "no-signature", "all of them were looked at");
}

#[tokio::test]
async fn a_bundle_whose_manifest_was_exchanged_is_told() {
    let world = World::new().await;
    world.sign_as(only(Format::Bundle), &world.key, None).await.unwrap();
    let entry = world.store.lock().unwrap().referrers(&world.digest).remove(0);
    let name = entry["digest"].as_str().unwrap().to_owned();
    world.store.lock().unwrap().manifests.insert(name, br#"{"layers":[]}"#.to_vec());
    assert_eq!(verified(&world).await.unwrap_err().kind(), "tampered-payload");
}
