//! An image that is in the registry and nothing more: not built, not signed, not deployed.

use crate::Host;
use crate::host::IMAGE;

/// Shell functions that speak to the stack's registry as its client `ci` does; cosign, too, is `ci` then.
const CI: &str = r#"
set -eu
. ~/ci.env
export COSIGN_PASSWORD=$TAGSHIP_KEY_PASSWORD DOCKER_CONFIG=~/.ci-docker
mkdir -p $DOCKER_CONFIG; cp -u ~/ci-auth.json $DOCKER_CONFIG/config.json
oci=application/vnd.oci.image.manifest.v1+json
index=application/vnd.oci.image.index.v1+json
api() { path=$1; shift; curl -fsS -u "ci:$TAGSHIP_REGISTRY_TOKEN" "$@" "https://$path"; }
get() { api "${1%%/*}/v2/${1#*/}/manifests/$2" -H "Accept: $oci, $index"; }
put() { api "${1%%/*}/v2/${1#*/}/manifests/$2" -X PUT -H "Content-Type: $3" --data-binary @-; }
has() { get "$@" >/dev/null 2>&1; }
"#;

/// An image in a registry of the host.
#[derive(Debug, Clone)]
pub struct Image {
    /// Registry and repository.
    pub repository: String,
    /// Its version tag.
    pub tag: String,
    /// Its digest.
    pub digest: String,
}

impl Image {
    /// The image by its digest, as cosign and Podman are told.
    pub fn pinned(&self) -> String {
        format!("{}@{}", self.repository, self.digest)
    }

    /// The tag of its signatures: with `.sig` the list that cosign 2 reads, with nothing the index that stands for the
    /// referrers API.
    pub fn signature_tag(&self, ending: &str) -> String {
        format!("{}{ending}", self.digest.replace(':', "-"))
    }
}

impl Host {
    /// Runs a shell script as the user `app`, with the rights of CI and the functions `get`, `put` and `has`.
    pub fn ci(&self, script: &str) -> crate::Ran {
        self.app(&format!("{CI}\n{script}"))
    }

    /// Puts a new version of an image into the stack's registry, unsigned.
    pub fn unsigned(&self) -> Image {
        self.unsigned_in(IMAGE)
    }

    /// Puts a new version of an image into a repository, unsigned: the base image with a manifest of its own.
    pub fn unsigned_in(&self, repository: &str) -> Image {
        let tag = self.next_version();
        let ran = self.ci(&format!(
            r#"has {repository} base || podman push --quiet --remove-signatures --authfile ~/ci-auth.json localhost/base:1 {repository}:base
            manifest=$(get {repository} base | jq -c --arg type $oci '. + {{mediaType: $type, annotations: {{version: "{tag}"}}}}')
            printf %s "$manifest" | put {repository} {tag} $oci
            printf %s "$manifest" | sha256sum | cut -d' ' -f1"#
        ));
        let digest = format!("sha256:{}", ran.ok().trimmed());
        Image { repository: repository.to_owned(), tag, digest }
    }

    /// Whether a repository has a manifest under a tag.
    pub fn has(&self, repository: &str, tag: &str) -> bool {
        self.ci(&format!("has {repository} {tag}")).code == 0
    }
}
