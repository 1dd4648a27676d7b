//! Genuine signatures that a careless verifier would refuse.

use tagship_tests::{Host, IMAGE, Image, Scenario};

use super::matrix::{Log, Signer, Verifier, cosign2_sign, cosign3_sign, signed, verify};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_signature_with_a_high_s_counts", a_signature_with_a_high_s_counts),
    ("an_index_counts_without_signatures_of_its_children", an_index_counts),
];

/// Half of the order of P-256, rounded down (SEC 2, section 2.4.2): an S above it is high.
const HALF_ORDER: &str = "7FFFFFFF800000007FFFFFFFFFFFFFFFDE737D56D38BCF4279DCE5617E3192A8";

/// How often is signed until S is high: that it never is has a chance of one in a million.
const TRIES: usize = 20;

/// Each of them signs with a high S every other time, and every verifier takes it.
fn a_signature_with_a_high_s_counts(host: &Host) {
    for (signer, verifiers) in [
        (Signer::Tagship("sig"), &[Verifier::Tagship, Verifier::Cosign2, Verifier::Cosign3, Verifier::Podman][..]),
        (Signer::Cosign2, &[Verifier::Tagship][..]),
        (Signer::Cosign3, &[Verifier::Tagship][..]),
    ] {
        let image = (0..TRIES)
            .map(|_| signed(host, IMAGE, signer, Log::Off))
            .find(|image| s(host, image, signer).as_str() > HALF_ORDER)
            .unwrap_or_else(|| panic!("{signer:?} never makes a high S"));
        for verifier in verifiers {
            verify(host, &image, Log::Off, *verifier).ok();
        }
    }
}

/// The S of an image's only signature, in 64 hexadecimal digits.
fn s(host: &Host, image: &Image, signer: Signer) -> String {
    let repository = &image.repository;
    let signature = match signer {
        Signer::Cosign3 => format!(
            "bundle=$(get {repository} {} | jq -r '.manifests[0].digest')
            layer=$(get {repository} $bundle | jq -r '.layers[0].digest')
            api {}/blobs/$layer | jq -r '.dsseEnvelope.signatures[0].sig'",
            image.signature_tag(""),
            repository.replacen('/', "/v2/", 1)
        ),
        _ => format!(
            r#"get {repository} {} | jq -r '.layers[0].annotations["dev.cosignproject.cosign/signature"]'"#,
            image.signature_tag(".sig")
        ),
    };
    let ran = host.ci(&format!("{{ {signature}; }} | base64 -d | openssl asn1parse -inform DER")).ok();
    let (_, s) = ran.trimmed().rsplit_once("INTEGER           :").unwrap();
    format!("{s:0>64}")
}

/// The index's digest covers its children, and `cosign sign` signs none of them.
fn an_index_counts(host: &Host) {
    for sign in [cosign2_sign, cosign3_sign] {
        let children = [host.unsigned(), host.unsigned()];
        let index = index(host, &children);
        host.ci(&sign(&index, Log::Off, "~/cosign.key")).ok();
        verify(host, &index, Log::Off, Verifier::Tagship).ok();
        // Podman wants one of the image that it chooses, too.
        verify(host, &index, Log::Off, Verifier::Podman).exits(125).says("no signature exists");
        for child in &children {
            verify(host, child, Log::Off, Verifier::Tagship).exits(5).says("it is not signed");
        }
    }
}

/// Puts an index of these images, one for each of two architectures, under a version of its own.
fn index(host: &Host, [first, second]: &[Image; 2]) -> Image {
    let tag = host.next_version();
    let entry = |image: &Image, architecture: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":'$(get {IMAGE} {} | wc -c)',"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
            image.digest, image.digest
        )
    };
    let ran = host.ci(&format!(
        r#"index='{{"schemaVersion":2,"mediaType":"'$index'","manifests":[{},{}]}}'
        printf %s "$index" | put {IMAGE} {tag} application/vnd.oci.image.index.v1+json
        printf %s "$index" | sha256sum | cut -d' ' -f1"#,
        entry(first, "amd64"),
        entry(second, "arm64")
    ));
    Image { repository: IMAGE.to_owned(), tag, digest: format!("sha256:{}", ran.ok().trimmed()) }
}
