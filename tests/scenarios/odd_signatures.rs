//! Genuine signatures that a careless verifier would refuse.

use tagship_tests::{Host, IMAGE, Image, Scenario};

use super::matrix::{Log, Signer, Verifier, cosign2_sign, cosign3_sign, signed, tagship_sign, verify};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("a_signature_with_a_high_s_counts", a_signature_with_a_high_s_counts),
    ("an_index_counts_without_signatures_of_its_children", an_index_counts),
    ("a_newline_that_was_signed_counts_as_for_the_others", a_newline_that_was_signed_counts),
    ("keys_of_other_kinds_count_where_cosign_takes_them", keys_of_other_kinds),
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
    let signers: [fn(&Image) -> String; 3] = [
        |index| tagship_sign(index, Log::Off, "sig,bundle"),
        |index| cosign2_sign(index, Log::Off, "~/cosign.key"),
        |index| cosign3_sign(index, Log::Off, "~/cosign.key"),
    ];
    let mut made = Vec::new();
    for sign in signers {
        let children = [host.unsigned(), host.unsigned()];
        let index = index(host, &children);
        host.ci(&sign(&index)).ok();
        verify(host, &index, Log::Off, Verifier::Tagship).ok();
        // Podman wants one of the image that it chooses, too.
        verify(host, &index, Log::Off, Verifier::Podman).exits(125).says("no signature exists");
        for child in &children {
            verify(host, child, Log::Off, Verifier::Tagship).exits(5).says("it is not signed");
        }
        made.push((index, children));
    }
    // What tagship-host accepts it refuses for being older than what runs, and for nothing else.
    host.release().run().ok();
    let before = host.state().healthy();
    for (index, [child, _]) in made {
        host.ask(&index.tag, &index.digest).ok().says("Outcome: refused").says("Kind: downgrade");
        host.ask(&child.tag, &child.digest).ok().says("Outcome: refused").says("Kind: no-signature");
    }
    assert_eq!(before, host.state());
}

/// A key that OpenSSL made, and a policy of Podman's that asks for it. cosign 3 has it, too, with a password.
fn key(host: &Host, name: &str, options: &str) -> String {
    let public = format!("/etc/containers/{name}.pub");
    host.ci(&format!(
        r#"cd; rm -f {name}.*; openssl genpkey {options} -out {name}.pem; openssl pkey -in {name}.pem -pubout -out {name}.spki
        cosign3 import-key-pair --key {name}.pem --output-key-prefix {name}
        printf '{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{IMAGE}":[{{"type":"sigstoreSigned","keyPath":"{public}","signedIdentity":{{"type":"matchRepository"}}}}]}}}}}}' >{name}.policy.json"#
    ))
    .ok();
    host.root(&format!("install -m 644 /home/app/{name}.spki {public}")).ok();
    public
}

/// Signs a new image as cosign's payload asks, with OpenSSL, and attaches that as a `.sig`.
fn attached(host: &Host, payload: &str, sign: &str) -> Image {
    let image = host.unsigned();
    let pinned = image.pinned();
    host.ci(&format!(
        "cd $(mktemp -d)
        payload=$(cosign generate -a tag={} -a repository={IMAGE} {pinned})
        {payload} >payload
        openssl {sign}; base64 -w0 signature >signature.txt
        cosign attach signature --payload payload --signature signature.txt {pinned}",
        image.tag
    ))
    .ok();
    image
}

/// Who accepts it: tagship, cosign 2, cosign 3 and Podman, and what each of them said.
fn accepted(host: &Host, image: &Image, name: &str) -> ([bool; 4], String) {
    let (pinned, digest) = (image.pinned(), &image.digest);
    let key = format!("/etc/containers/{name}.pub");
    let ran = [
        format!("tagship verify --image {IMAGE} --digest {digest} --public-key {key} --tlog false"),
        format!("cosign verify --insecure-ignore-tlog --key {key} {pinned}"),
        format!("cosign3 verify --insecure-ignore-tlog --key {key} {pinned}"),
        format!("podman pull --quiet --signature-policy ~/{name}.policy.json {pinned}"),
    ]
    .map(|command| host.app(&command));
    let said = ran.iter().map(|ran| format!("$ {}\n{}\n", ran.what, ran.text)).collect();
    (ran.map(|ran| ran.code == 0), said)
}

/// White space is free in a payload: the signature covers it, and it has no meaning.
fn a_newline_that_was_signed_counts(host: &Host) {
    key(host, "newline", "-algorithm ec -pkeyopt ec_paramgen_curve:P-256");
    let sign = "dgst -sha256 -sign ~/newline.pem -out signature payload";
    for payload in ["printf %s \"$payload\"", "printf '%s\\n' \"$payload\""] {
        let (accepted, said) = accepted(host, &attached(host, payload, sign), "newline");
        assert_eq!(accepted, [true; 4], "{payload}\n{said}");
    }
}

/// What docs/host.md says of keys that are not on P-256.
fn keys_of_other_kinds(host: &Host) {
    key(host, "p384", "-algorithm ec -pkeyopt ec_paramgen_curve:P-384");
    key(host, "ed25519", "-algorithm ed25519");
    let sig = |sign: &str| attached(host, "printf %s \"$payload\"", sign);
    let bundled = host.unsigned();
    host.ci(&cosign3_sign(&bundled, Log::Off, "~/p384.key")).ok();
    // Of Ed25519 cosign 3 makes the prehashed form, which its own check of what it made refuses.
    let never = host.unsigned();
    host.ci(&cosign3_sign(&never, Log::Off, "~/ed25519.key")).exits(1).says("failed to verify signature");
    assert!(!host.has(IMAGE, &never.signature_tag("")));
    let mut wrong = String::new();
    for (what, name, image, expected) in [
        ("a .sig over SHA-256", "p384", sig("dgst -sha256 -sign ~/p384.pem -out signature payload"), [true; 4]),
        (
            "a .sig over SHA-384",
            "p384",
            sig("dgst -sha384 -sign ~/p384.pem -out signature payload"),
            [true, false, false, false],
        ),
        ("a bundle", "p384", bundled, [true, false, false, false]),
        ("a .sig", "ed25519", sig("pkeyutl -sign -rawin -inkey ~/ed25519.pem -in payload -out signature"), [true; 4]),
    ] {
        let (accepted, said) = accepted(host, &image, name);
        if accepted != expected {
            wrong.push_str(&format!("{what} by {name}: {accepted:?} instead of {expected:?}\n{said}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
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
