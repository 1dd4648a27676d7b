//! What the registry holds: whether an image there is this very release, or what an earlier run of it left.

use bollard::Docker;
use tagship_core::reference::{Digest, ImageRef, Repository, Tag};
use tagship_core::registry::{Client, RegistryError};
use tagship_core::signature::{self, CheckError, Expectation, Policy, Verified};

use super::error::ReleaseError;
use crate::failure::{Code, Failure};
use crate::inputs::Inputs;
use crate::steps::{build, push};

/// Judges the signatures of an image under the version tag.
pub(super) async fn check(
    client: &Client,
    inputs: &Inputs,
    digest: Digest,
    policy: &Policy,
) -> Result<Verified, CheckError> {
    let expected = Expectation { repository: inputs.image.clone(), digest, tag: Some(inputs.tag.clone()) };
    signature::check(client, &expected, policy).await
}

/// A signature that names no tag counts under the tag only if the registry ties the two together.
pub(super) async fn same_as_tag(
    client: &Client,
    repository: &Repository,
    tag: &Tag,
    digest: Digest,
) -> Result<(), Failure> {
    let image = Box::new(ImageRef::tagged(repository, tag));
    match client.resolve(repository, tag).await {
        Ok(Some(held)) if held == digest => Ok(()),
        Ok(held) => Err(Failure::new(Code::Signing, ReleaseError::OtherImage { image, digest, held })),
        Err(source) => Err(Failure::new(Code::Registry, ReleaseError::LookUp { image, source })),
    }
}

/// Whether an image in the registry is the one that this engine built from this very commit under this tag: then a run
/// that stopped between push and signature is gone on with. The registry's word alone would let anybody who may push
/// have their image signed.
pub(super) async fn made_here(
    engine: &Docker,
    client: &Client,
    image: &ImageRef,
    commit: &str,
    digest: Digest,
) -> Result<bool, RegistryError> {
    match build::built_before(engine, image, commit).await {
        Some(built) => push::is_of(client, &image.repository, digest, &built).await,
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{engine, registry};

    const ID: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const BUILT: &str = r#"{"Id":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","Config":{"Labels":{"org.opencontainers.image.revision":"0123abc"}}}"#;

    fn of(config: &str) -> String {
        format!(r#"{{"schemaVersion":2,"config":{{"digest":"{config}"}},"layers":[]}}"#)
    }

    /// Judges a registry with this manifest, and an engine that describes its image `v1` so.
    async fn judged(manifest: &str, described: &'static str, tag: &str, commit: &str) -> bool {
        let (store, client, repository) = registry().await;
        let digest = Digest::of(manifest.as_bytes());
        store.lock().unwrap().manifests.insert(digest.to_string(), manifest.into());
        let (_socket, engine) = engine(described);
        let image = ImageRef::tagged(&repository, &tag.parse().unwrap());
        made_here(&engine, &client, &image, commit, digest).await.unwrap()
    }

    #[tokio::test]
    async fn a_registry_that_does_not_answer_decides_nothing() {
        let (store, client, repository) = registry().await;
        store.lock().unwrap().manifests.insert(Digest::of(b"asked for").to_string(), b"another".to_vec());
        let (_socket, engine) = engine(BUILT);
        let image = ImageRef::tagged(&repository, &"v1".parse().unwrap());
        let judged = made_here(&engine, &client, &image, "0123abc", Digest::of(b"asked for")).await;
        assert!(matches!(judged, Err(RegistryError::Protocol { .. } | RegistryError::Corrupt { .. })), "{judged:?}");
        assert!(!made_here(&engine, &client, &image, "0123abc", Digest::of(b"gone")).await.unwrap());
    }

    #[tokio::test]
    async fn only_this_commits_image_of_this_engine_is_gone_on_with() {
        let ours = of(ID);
        assert!(judged(&ours, BUILT, "v1", "0123abc").await);
        let other = of(&ID.replace("aaaaa", "bbbbb"));
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        for (difference, manifest, described, tag, commit) in [
            ("another image", other.as_str(), BUILT, "v1", "0123abc"),
            ("another commit", &ours, BUILT, "v1", "4567def"),
            ("no commit", &ours, r#"{"Id":"x"}"#, "v1", ""),
            ("another tag", &ours, BUILT, "v2", "0123abc"),
            (
                "no id",
                &ours,
                r#"{"Config":{"Labels":{"org.opencontainers.image.revision":"0123abc"}}}"#,
                "v1",
                "0123abc",
            ),
            ("an index", index, BUILT, "v1", "0123abc"),
            ("no digest", &of("latest"), BUILT, "v1", "0123abc"),
            ("no description", &ours, "[]", "v1", "0123abc"),
        ] {
            assert!(!judged(manifest, described, tag, commit).await, "{difference}");
        }
    }
}
