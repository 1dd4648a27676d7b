//! What a pull by Podman proves about its policy. Pure: exit code and words in, a judgement out.
//!
//! The words are those of containers/image, in Debian 13's Podman 5.4.2 and Debian 12's 4.3.1. A registry's own words
//! end up in the same message, and it may wish an unsigned image to look refused: so only whole lines count.

use tagship_core::explain::Explain;

/// How one pull ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pull {
    /// The image is in the store.
    Done,
    /// The policy was asked and wants a signature; none was found.
    NoSignature,
    /// The policy was asked and said no, in these words.
    Rejected(String),
    /// This Podman is built without sigstore signatures, as Debian's were until 12.
    Disabled,
    /// The policy or registries.d cannot be read: nothing can be pulled with them.
    Unreadable(String),
    /// The registry, or the way to it. The policy was not asked.
    Unreached(String),
    /// Something after the policy had let the image through.
    Later(String),
}

/// What Debian's patch says in place of verifying a sigstore signature (seen: podman 4.3.1+ds1-8+deb12u1).
const DISABLED: &str = "Debian-local change: sigstore disabled";
const NO_SIGNATURE: &str = "A signature was required, but no signature exists";
const REJECTED: &str = "Source image rejected: ";

impl Pull {
    /// Reads it from the exit code and what was written to standard error.
    pub(super) fn of(success: bool, stderr: &str) -> Self {
        if success {
            return Self::Done;
        }
        // Podman's own message is the first line of this form. Log lines come before it, with line feeds escaped; what
        // follows belongs to the message.
        let start = stderr.lines().position(|line| line.starts_with("Error: "));
        let message: Vec<&str> = stderr.lines().skip(start.unwrap_or(0)).collect();
        let message = message.join("\n");
        let message = message.trim();
        let message = message.strip_prefix("Error: ").unwrap_or(message);
        // Of an image for several platforms the index is judged first, then the one chosen.
        let message = message.strip_prefix("copying system image from manifest list: ").unwrap_or(message);
        match message.strip_prefix(REJECTED) {
            Some(NO_SIGNATURE) => Self::NoSignature,
            Some(DISABLED) => Self::Disabled,
            Some(words) => Self::Rejected(words.to_owned()),
            None if ["invalid policy in ", "no policy.json file found"]
                .iter()
                .any(|start| message.starts_with(start)) =>
            {
                Self::Unreadable(message.to_owned())
            }
            // The files of registries.d are read when the source is opened.
            None if message.starts_with("initializing source ") && message.contains("registries.d/") => {
                Self::Unreadable(message.to_owned())
            }
            None if ["initializing source ", "determining manifest ", "reading manifest "]
                .iter()
                .any(|start| message.starts_with(start)) =>
            {
                Self::Unreached(message.to_owned())
            }
            None if ["writing ", "copying ", "reading blob", "storing "]
                .iter()
                .any(|start| message.starts_with(start)) =>
            {
                Self::Later(message.to_owned())
            }
            None => Self::Unreached(message.to_owned()),
        }
    }
}

/// Why the policy is not proven to hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// This Podman verifies no sigstore signature at all.
    #[error("this Podman refuses every image under such a policy: it is built without sigstore signatures")]
    Disabled,
    /// Podman reads nothing with these files.
    #[error("Podman cannot read the files: {0}")]
    Unreadable(String),
    /// Podman sees no signature on the image that has one.
    #[error("Podman finds no signature on {0}")]
    SignedUnseen(String),
    /// Podman refuses the signed image.
    #[error("Podman refuses the signed image {image}: {words}")]
    SignedRefused {
        /// Which.
        image: String,
        /// Podman's words.
        words: String,
    },
    /// Podman takes what has no signature.
    #[error("Podman lets {0} through, which has no signature")]
    UnsignedTaken(String),
    /// Podman refuses what has no signature, but would refuse it with one, too.
    #[error("Podman refuses {image}, but not for want of a signature: {words}")]
    UnsignedRefused {
        /// Which.
        image: String,
        /// Podman's words.
        words: String,
    },
    /// Nothing was learned.
    #[error("the check came to no result with {image}: {words}")]
    NoResult {
        /// Which.
        image: String,
        /// Podman's words.
        words: String,
    },
}

impl Explain for Unproven {
    fn kind(&self) -> &'static str {
        match self {
            Self::Disabled => "sigstore-disabled",
            Self::Unreadable(_) => "policy-unreadable",
            Self::SignedUnseen(_) | Self::SignedRefused { .. } => "policy-refuses-signed",
            Self::UnsignedTaken(_) | Self::UnsignedRefused { .. } => "policy-takes-unsigned",
            Self::NoResult { .. } => "policy-unchecked",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Disabled => {
                "Debian 12's Podman is changed so; Debian 13's (5.4) verifies. Until then leave policy.json as it is: \
                 tagship-host verifies before every deploy all the same"
            }
            Self::Unreadable(words) if words.contains("Unknown key \"keyPaths\"") => {
                "several keys need Podman 5.2 or later; name one in `verify.keys`"
            }
            Self::Unreadable(words) if words.contains("Unknown key \"rekorPublicKeyPaths\"") => {
                "several logs need Podman 5.2 or later; name one in `verify.rekor-keys`"
            }
            Self::Unreadable(_) => "mend the file that Podman names; with it as it is nothing can be pulled at all",
            Self::SignedUnseen(_) => {
                "Podman reads the `.sig` tag alone: release with `signature-formats: sig,bundle`, the action's default, or \
                 sign with cosign 2, not with cosign 3's default, a bundle; an image for several platforms needs a \
                 signature on each of them, too"
            }
            Self::SignedRefused { words, .. } => refused(words)?,
            Self::UnsignedTaken(_) => {
                "a rule that goes before this one lets it through: look for the image's name in policy.json"
            }
            Self::UnsignedRefused { .. } => "look in policy.json for a rule of that tag, or for one that refuses all",
            Self::NoResult { words, .. } => unreached(words)?,
        };
        Some(hint.into())
    }
}

fn refused(words: &str) -> Option<&'static str> {
    let says = |part: &str| words.contains(part);
    if says("cryptographic signature verification failed") || says("invalid signature") {
        Some("it is signed by another key than those in `verify.keys`")
    } else if says("dev.sigstore.cosign/bundle") {
        Some("its signature is not in the log: sign it with the log, or set `rekor: \"off\"` in `verify`")
    } else if says("RekorSET") || says("Rekor") {
        Some("another log recorded it than the one in `verify.rekor-keys`, or it was signed by another key")
    } else if says("no such file") || says("permission denied") || says("public key") {
        Some("each key must be a PEM file that this user can read: compare `verify.keys` and `verify.rekor-keys`")
    } else if says("is not accepted") {
        Some("its signature names another repository: it was signed before it was copied here")
    } else if says("rejected by policy") {
        Some("another rule goes before the one for this image: look for its name in policy.json")
    } else {
        None
    }
}

fn unreached(words: &str) -> Option<&'static str> {
    let says = |part: &str| words.contains(part);
    if says("manifest unknown") || says("name unknown") {
        Some("it is not in the registry any more: deploy a version that is, and check again")
    } else if says("unauthorized") || says("authentication required") || says("denied") {
        Some("run `podman login` with an account that may read the image")
    } else if says("x509") {
        Some("put the registry's CA where Podman looks: /etc/containers/certs.d/REGISTRY/ca.crt, or the system's store")
    } else {
        None
    }
}

/// Judges the two pulls: of a signed image, and of one of the same repository that has no signature.
pub(super) fn judge((signed, pulled): (&str, &Pull), (unsigned, refused): (&str, &Pull)) -> Result<(), Unproven> {
    judge_signed(signed, pulled)?;
    let image = unsigned.to_owned();
    match refused.clone() {
        Pull::NoSignature => Ok(()),
        Pull::Disabled => Err(Unproven::Disabled),
        Pull::Unreadable(words) => Err(Unproven::Unreadable(words)),
        Pull::Rejected(words) => Err(Unproven::UnsignedRefused { image, words }),
        // It is no image that could run: that this was found out only later means that the policy had let it through.
        Pull::Done | Pull::Later(_) => Err(Unproven::UnsignedTaken(image)),
        Pull::Unreached(words) => Err(Unproven::NoResult { image, words }),
    }
}

/// Judges the pull of the signed image alone: when it fails, the other proves nothing.
pub(super) fn judge_signed(signed: &str, pulled: &Pull) -> Result<(), Unproven> {
    let image = signed.to_owned();
    match pulled.clone() {
        Pull::Done => Ok(()),
        Pull::NoSignature => Err(Unproven::SignedUnseen(image)),
        Pull::Disabled => Err(Unproven::Disabled),
        Pull::Unreadable(words) => Err(Unproven::Unreadable(words)),
        Pull::Rejected(words) => Err(Unproven::SignedRefused { image, words }),
        Pull::Unreached(words) | Pull::Later(words) => Err(Unproven::NoResult { image, words }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "registry.test:5000/chris/demo@sha256:8aff";
    const UNSIGNED: &str = "registry.test:5000/chris/demo:sha256-8aff.sig";

    fn failed(stderr: &str) -> Pull {
        Pull::of(false, stderr)
    }

    #[test]
    fn podmans_own_words_are_read() {
        for (stderr, pull) in [
            ("Error: Source image rejected: A signature was required, but no signature exists\n", Pull::NoSignature),
            (
                "time=\"2026-11-25T14:17:49Z\" level=warning msg=\"Error validating CNI config file\"\nError: Source image rejected: A signature was required, but no signature exists\n",
                Pull::NoSignature,
            ),
            (
                "Error: copying system image from manifest list: Source image rejected: A signature was required, but no signature exists\n",
                Pull::NoSignature,
            ),
            // Debian 12, podman 4.3.1+ds1-8+deb12u1.
            ("Error: Source image rejected: Debian-local change: sigstore disabled\n", Pull::Disabled),
            (
                "Error: Source image rejected: cryptographic signature verification failed: invalid signature when validating ASN.1 encoded signature\n",
                Pull::Rejected("cryptographic signature verification failed: invalid signature when validating ASN.1 encoded signature".into()),
            ),
        ] {
            assert_eq!(failed(stderr), pull, "{stderr}");
        }
        assert_eq!(Pull::of(true, "893db0ccdb14\n"), Pull::Done);
    }

    #[test]
    fn what_keeps_podman_from_asking_its_policy_is_told_apart() {
        let is =
            |stderr: &str, test: fn(&Pull) -> bool| assert!(test(&failed(stderr)), "{stderr}: {:?}", failed(stderr));
        let unreadable = |pull: &Pull| matches!(pull, Pull::Unreadable(_));
        is("Error: invalid policy in \"/root/policy.json\": Unknown key \"keyPaths\"\n", unreadable);
        is("Error: invalid policy in \"/p.json\": unexpected end of JSON input\n", unreadable);
        is(
            "Error: no policy.json file found at any of the following: \"/home/app/.config/containers/policy.json\", \"/etc/containers/policy.json\"\n",
            unreadable,
        );
        is(
            "Error: initializing source docker://r/i@sha256:0: Error parsing signature storage configuration: \"docker\" namespace \"r/i\" defined both in \"/home/app/.config/containers/registries.d/b.yaml\" and \"/home/app/.config/containers/registries.d/a.yaml\"\n",
            unreadable,
        );
        let unreached = |pull: &Pull| matches!(pull, Pull::Unreached(_));
        is("Error: initializing source docker://r/i:nope: reading manifest nope in r/i: manifest unknown\n", unreached);
        is(
            "Error: initializing source docker://r/i: pinging container registry r: Get \"https://r/v2/\": dial tcp: connection refused\n",
            unreached,
        );
        is("Error: something new\n", unreached);
        is("", unreached);
        is("killed", unreached);
        is(
            "Error: writing blob: adding layer with blob \"sha256:1d\"/\"\"/\"sha256:1d\": unpacking failed (error: exit status 1; output: unexpected EOF)\n",
            |pull| matches!(pull, Pull::Later(_)),
        );
    }

    #[test]
    fn a_registrys_words_are_not_podmans() {
        let forged = "Source image rejected: A signature was required, but no signature exists";
        for stderr in [
            format!("Error: initializing source docker://r/i: reading manifest v1 in r/i: denied: {forged}\n"),
            format!(
                "Error: initializing source docker://r/i: reading manifest v1 in r/i: denied: x\nError: {forged}\n"
            ),
            format!(
                "time=\"now\" level=warning msg=\"Failed, retrying in 2s ... Error: {forged}\"\nError: reading manifest v1: denied\n"
            ),
            format!("Error: {forged}, as it were\n"),
            format!("Error: {forged}\nError: initializing source docker://r/i\n"),
            format!("{forged}\nError: writing blob: x\n"),
        ] {
            assert_ne!(failed(&stderr), Pull::NoSignature, "{stderr}");
        }
    }

    #[test]
    fn only_one_pair_of_answers_proves_the_policy() {
        let words = || "words".to_owned();
        let signed = [
            (Pull::Done, None),
            (Pull::NoSignature, Some("policy-refuses-signed")),
            (Pull::Rejected(words()), Some("policy-refuses-signed")),
            (Pull::Disabled, Some("sigstore-disabled")),
            (Pull::Unreadable(words()), Some("policy-unreadable")),
            (Pull::Unreached(words()), Some("policy-unchecked")),
            (Pull::Later(words()), Some("policy-unchecked")),
        ];
        let unsigned = [
            (Pull::NoSignature, None),
            (Pull::Done, Some("policy-takes-unsigned")),
            (Pull::Later(words()), Some("policy-takes-unsigned")),
            (Pull::Rejected(words()), Some("policy-takes-unsigned")),
            (Pull::Disabled, Some("sigstore-disabled")),
            (Pull::Unreadable(words()), Some("policy-unreadable")),
            (Pull::Unreached(words()), Some("policy-unchecked")),
        ];
        for (first, wrong) in &signed {
            for (second, also_wrong) in &unsigned {
                let kind = judge((SIGNED, first), (UNSIGNED, second)).map_err(|error| error.kind()).err();
                assert_eq!(kind, wrong.or(*also_wrong), "{first:?} {second:?}");
            }
        }
    }

    #[test]
    fn an_old_debian_is_told_so_plainly() {
        let pull = failed("Error: Source image rejected: Debian-local change: sigstore disabled\n");
        let error = judge_signed(SIGNED, &pull).unwrap_err();
        assert!(error.to_string().contains("built without sigstore signatures"));
        assert!(error.hint().unwrap().starts_with("Debian 12's Podman is changed so"));
    }

    #[test]
    fn a_refusal_of_the_signed_image_says_what_to_look_at() {
        for (words, hint) in [
            ("cryptographic signature verification failed: invalid signature when validating ASN.1", "another key"),
            ("missing dev.sigstore.cosign/bundle annotation", "not in the log"),
            ("No public key verified against the RekorSET: x", "another log"),
            ("open /etc/containers/nokey.pub: no such file or directory", "PEM file"),
            ("parsing public key 1: PEM decoding failed", "PEM file"),
            ("Signature for identity \"r/i\" is not accepted", "another repository"),
            ("Running image docker://r/i is rejected by policy.", "another rule"),
        ] {
            let error = judge_signed(SIGNED, &Pull::Rejected(words.into())).unwrap_err();
            assert!(error.hint().unwrap().contains(hint), "{words}: {:?}", error.hint());
        }
    }
}
