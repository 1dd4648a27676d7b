//! Every input by name: what it is for, its default, which steps use it.
//!
//! One table feeds the flags, the action's environment and their help. Values are parsed elsewhere.

use super::Step;

/// How an input may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// As the action's input and as a flag.
    Anywhere,
    /// A secret: as the action's input, and in the named environment variable for the tool. Never a flag, because
    /// every process of the machine can read a command line.
    Secret(&'static str),
    /// Known, and refused with a clear message: this version cannot do it.
    NotYet,
}

/// One input.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    /// The name, as in `with:` and after `--`.
    pub name: &'static str,
    /// What it is for, a sentence.
    pub help: &'static str,
    /// The value used when none is given, where a plain value can say it.
    pub default: Option<&'static str>,
    /// How it may be given.
    pub given: Given,
    /// The steps that use it.
    pub steps: &'static [Step],
}

use Given::{Anywhere, NotYet, Secret};
use Step::{Build, Deploy, Promote, Push, Sign};

const ALL: &[Step] = &[Build, Push, Sign, Deploy, Promote];
/// The steps that need to know what is trusted: a signature is made, or one is required.
const TRUST: &[Step] = &[Push, Sign, Deploy, Promote];

/// All inputs, in the order in which help shows them.
pub const INPUTS: &[Input] = &[
    Input {
        name: "image",
        help: "The image's repository with its registry and without a tag, such as git.example.org/chris/app.",
        default: None,
        given: Anywhere,
        steps: ALL,
    },
    Input {
        name: "tag",
        help: "The version tag to release. By default the git tag that was pushed.",
        default: None,
        given: Anywhere,
        steps: ALL,
    },
    Input {
        name: "moving-tag",
        help: "The tag that follows the newest proven release. Empty for none.",
        default: Some("stable"),
        given: Anywhere,
        steps: &[Deploy, Promote],
    },
    Input {
        name: "steps",
        help: "Which of build, push, sign, deploy and promote to run, separated by commas. By default all.",
        default: None,
        given: Anywhere,
        steps: &[],
    },
    Input {
        name: "digest",
        help: "The image's digest in the registry, for a run that does not push. By default what the tag names there.",
        default: None,
        given: Anywhere,
        steps: &[Sign, Deploy, Promote],
    },
    Input {
        name: "force",
        help: "Build and push although the version tag exists in the registry: true or false.",
        default: Some("false"),
        given: Anywhere,
        steps: &[Build, Push],
    },
    Input {
        name: "rollback",
        help: "Go back to an older version, on purpose: true or false. Needs the key; runs deploy and promote alone.",
        default: Some("false"),
        given: Anywhere,
        steps: &[Deploy],
    },
    Input {
        name: "context",
        help: "The directory to build from.",
        default: Some("."),
        given: Anywhere,
        steps: &[Build],
    },
    Input {
        name: "file",
        help: "The Containerfile. By default Containerfile, else Dockerfile, in the context.",
        default: None,
        given: Anywhere,
        steps: &[Build],
    },
    Input {
        name: "target",
        help: "The stage to build, where the Containerfile has several. By default the last.",
        default: None,
        given: Anywhere,
        steps: &[Build],
    },
    Input {
        name: "build-args",
        help: "Build arguments, a line NAME=VALUE each. GIT_HASH is given by itself: seven digits of the commit.",
        default: None,
        given: Anywhere,
        steps: &[Build],
    },
    Input {
        name: "labels",
        help: "Labels, a line NAME=VALUE each. The OCI labels revision, version, source and created come by themselves.",
        default: None,
        given: Anywhere,
        steps: &[Build],
    },
    Input {
        name: "platforms",
        help: "The platform to build for, such as linux/amd64. By default the engine's. Only one is supported.",
        default: None,
        given: Anywhere,
        steps: &[Build],
    },
    Input {
        name: "registry-user",
        help: "The user name for the registry.",
        default: None,
        given: Anywhere,
        steps: ALL,
    },
    Input {
        name: "registry-token",
        help: "The password or access token for the registry. Forgejo: a personal access token with write:package.",
        default: None,
        given: Secret("TAGSHIP_REGISTRY_TOKEN"),
        steps: ALL,
    },
    Input {
        name: "registry-token-file",
        help: "A file that holds the registry's password or access token.",
        default: None,
        given: Anywhere,
        steps: ALL,
    },
    Input {
        name: "registry-auth-file",
        help: "A containers auth.json or docker config.json, also used for private base images. By default the user's.",
        default: None,
        given: Anywhere,
        steps: ALL,
    },
    Input {
        name: "ca",
        help: "A private certificate authority to trust beside the usual ones: PEM text, or the path of a PEM file.",
        default: None,
        given: Anywhere,
        steps: ALL,
    },
    Input {
        name: "key",
        help: "The private key, as made by tagship keygen or cosign generate-key-pair.",
        default: None,
        given: Secret("TAGSHIP_KEY"),
        steps: TRUST,
    },
    Input {
        name: "key-file",
        help: "A file that holds the private key.",
        default: None,
        given: Anywhere,
        steps: TRUST,
    },
    Input {
        name: "key-password",
        help: "The private key's password.",
        default: None,
        given: Secret("TAGSHIP_KEY_PASSWORD"),
        steps: TRUST,
    },
    Input {
        name: "key-password-file",
        help: "A file that holds the private key's password; one line end after it is ignored.",
        default: None,
        given: Anywhere,
        steps: TRUST,
    },
    Input {
        name: "public-key",
        help: "The public key to verify with where no private key is at hand: PEM text, or the path of a PEM file.",
        default: None,
        given: Anywhere,
        steps: &[Push, Deploy, Promote],
    },
    Input {
        name: "annotations",
        help: "Further annotations to sign, a line NAME=VALUE each. tag, repository, commit, created and run come by \
               themselves.",
        default: None,
        given: Anywhere,
        steps: &[Sign],
    },
    Input {
        name: "signature-formats",
        help: "The formats of the signature: sig, which cosign 2 and Podman read, and bundle, which cosign 3 reads.",
        default: Some("sig,bundle"),
        given: Anywhere,
        steps: &[Sign],
    },
    Input {
        name: "tlog",
        help: "Record the signature in the transparency log, and require a record of it: true or false.",
        default: Some("true"),
        given: Anywhere,
        steps: TRUST,
    },
    Input {
        name: "rekor-url",
        help: "The transparency log's address.",
        default: Some("https://rekor.sigstore.dev"),
        given: Anywhere,
        steps: &[Sign],
    },
    Input {
        name: "rekor-public-key",
        help: "The transparency log's public key, where it is not the public log: PEM text, or the path of a PEM file.",
        default: None,
        given: Anywhere,
        steps: TRUST,
    },
    Input {
        name: "handoff",
        help: "The directory shared with the host.",
        default: Some("/data"),
        given: Anywhere,
        steps: &[Deploy],
    },
    Input {
        name: "handoff-form",
        help: "full for tagship's companion on the host, plain for a host that runs a shell script.",
        default: Some("full"),
        given: Anywhere,
        steps: &[Deploy],
    },
    Input {
        name: "timeout",
        help: "The longest to wait for the host, such as 90s or 10m. By default as long as it shows life.",
        default: None,
        given: Anywhere,
        steps: &[Deploy],
    },
    Input { name: "allowed-signers", help: "Who may sign the git tag.", default: None, given: NotYet, steps: &[] },
];

/// The input of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Input> {
    INPUTS.iter().find(|input| input.name == name)
}

/// How hints name an input, for the user of the action and that of the tool: a secret is no flag.
#[must_use]
pub fn ways(name: &str) -> String {
    match find(name).map(|input| input.given) {
        Some(Secret(variable)) => format!("{name} (for the tool: {variable} in the environment)"),
        _ => name.to_owned(),
    }
}

/// The variable in which a runner passes an input to an action: its dashes are kept.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("INPUT_{}", name.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_plain() {
        let names: BTreeSet<_> = INPUTS.iter().map(|input| input.name).collect();
        assert_eq!(names.len(), INPUTS.len());
        for name in names {
            assert!(name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-'), "{name}");
        }
    }

    #[test]
    fn help_is_a_sentence() {
        for input in INPUTS {
            assert!(input.help.ends_with('.') && !input.help.contains("  "), "{}: {}", input.name, input.help);
        }
    }
}
