//! What Podman's policy has to demand for an app: the rule as containers-policy.json(5) has it, made of the settings.
//!
//! Pure. Where the rule goes is `document`'s.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::Value;
use tagship_core::{
    reference::Repository,
    signature::{AnnotationRule, Format, PublicKey, Rekor},
};

use super::{PolicyError, version::Version};
use crate::config::{RootFile, Settings};

/// One rule for one repository: a signature by one of these keys, recorded by one of these logs if there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Requirement {
    /// The app's image.
    pub repository: Repository,
    keys: Vec<PathBuf>,
    log: Log,
    /// What the app's settings ask for and Podman cannot.
    pub unchecked: Vec<&'static str>,
    /// Set if the settings take signatures that Podman does not see, and none that it does.
    pub unseen: bool,
}

/// Whose record of a signature Podman wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Log {
    None,
    Public,
    Own(Vec<PathBuf>),
}

/// As it is written. The order is the one in which people read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_path: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_paths: Option<&'a [PathBuf]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rekor_public_key_path: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rekor_public_key_paths: Option<&'a [PathBuf]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rekor_public_key_data: Option<String>,
    signed_identity: Identity,
}

/// cosign signs the repository's name alone, and Podman would ask for the tag as well.
#[derive(Serialize)]
struct Identity {
    #[serde(rename = "type")]
    kind: &'static str,
}

impl Requirement {
    /// What these settings ask for.
    pub(super) fn of(settings: &Settings) -> Self {
        let verify = &settings.verify;
        let log = match (verify.rekor, verify.rekor_keys.as_slice()) {
            (Rekor::Off | Rekor::WhenPresent, _) => Log::None,
            (Rekor::Required, []) => Log::Public,
            (Rekor::Required, keys) => Log::Own(paths(keys)),
        };
        let mut unchecked = Vec::new();
        if verify.rekor == Rekor::WhenPresent {
            unchecked.push("the log's record where there is one (`rekor: when-present`)");
        }
        if verify.annotations != AnnotationRule::Off {
            unchecked.push("the version that was signed with the digest");
        }
        let unseen = !verify.formats.has(Format::Sig);
        Self { repository: settings.image.clone(), keys: paths(&verify.keys), log, unchecked, unseen }
    }

    /// The image's scope in Podman's files: its name in full, Docker Hub's short names written out.
    pub(super) fn scope(&self) -> String {
        let (registry, path) = (self.repository.registry().as_str(), self.repository.path());
        match (registry, path.contains('/')) {
            ("docker.io" | "index.docker.io", false) => format!("docker.io/library/{path}"),
            ("index.docker.io", true) => format!("docker.io/{path}"),
            _ => self.repository.to_string(),
        }
    }

    /// The list of one rule that stands under the scope.
    pub(super) fn rules(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value([self.written()])
    }

    /// The same as text, each level indented by so much, without an indent before the first line.
    pub(super) fn text(&self, indent: &str) -> Result<String, serde_json::Error> {
        let mut out = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
        [self.written()].serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// The oldest Podman that reads this rule. An older one takes the whole file for broken, and pulls nothing any more.
    pub(super) fn least_podman(&self) -> Version {
        let list = self.keys.len() > 1 || matches!(&self.log, Log::Own(keys) if keys.len() > 1);
        if list { Version::LISTS } else { Version::FIRST }
    }

    /// Requires a Podman of which it is certain, without trying, that it enforces this rule.
    pub(super) fn enforced_by(&self, is: Version) -> Result<(), PolicyError> {
        let least = self.least_podman().max(Version::SURE);
        if is < least { Err(PolicyError::TooOld { is, least }) } else { Ok(()) }
    }

    fn written(&self) -> Written<'_> {
        let (key_path, key_paths) = one_or_all(&self.keys);
        let (rekor_public_key_path, rekor_public_key_paths) = match &self.log {
            Log::Own(keys) => one_or_all(keys),
            Log::None | Log::Public => (None, None),
        };
        let data = (self.log == Log::Public).then(|| STANDARD.encode(PublicKey::public_log().to_pem()));
        Written {
            kind: "sigstoreSigned",
            key_path,
            key_paths,
            rekor_public_key_path,
            rekor_public_key_paths,
            rekor_public_key_data: data,
            signed_identity: Identity { kind: "matchRepository" },
        }
    }
}

/// Each path once: a list of one needs no newer Podman.
fn paths(files: &[RootFile]) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for file in files {
        if !paths.iter().any(|path| path == file.path()) {
            paths.push(file.path().to_owned());
        }
    }
    paths
}

/// One key in the form that every Podman reads, several in the one that newer ones read.
fn one_or_all(keys: &[PathBuf]) -> (Option<&Path>, Option<&[PathBuf]>) {
    match keys {
        [key] => (Some(key), None),
        keys => (None, Some(keys)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tagship_core::{explain::Explain, signature::Formats};

    use super::*;

    /// A rule for this image with these keys and no log.
    pub(in super::super) fn requirement(image: &str, keys: &[&str]) -> Requirement {
        Requirement {
            repository: image.parse().unwrap(),
            keys: keys.iter().map(PathBuf::from).collect(),
            log: Log::None,
            unchecked: Vec::new(),
            unseen: false,
        }
    }

    fn json(requirement: &Requirement) -> String {
        serde_json::to_string(&requirement.rules().unwrap()).unwrap()
    }

    #[test]
    fn one_key_is_written_as_every_podman_reads_it() {
        let one = requirement("git.example.org/chris/app", &["/etc/a.pub"]);
        let expected =
            r#"[{"keyPath":"/etc/a.pub","signedIdentity":{"type":"matchRepository"},"type":"sigstoreSigned"}]"#;
        assert_eq!(json(&one), expected);
        assert_eq!(one.least_podman(), Version::FIRST);
    }

    #[test]
    fn several_keys_are_a_list_and_need_a_newer_podman() {
        let several = requirement("git.example.org/chris/app", &["/etc/a.pub", "/etc/b.pub"]);
        assert!(json(&several).contains(r#""keyPaths":["/etc/a.pub","/etc/b.pub"]"#));
        assert!(!json(&several).contains(r#""keyPath":"#));
        assert_eq!(several.least_podman(), Version::LISTS);
    }

    #[test]
    fn without_a_trial_only_versions_that_certainly_verify_will_do() {
        let least = |keys: &[&str], version: &str| match requirement("git.example.org/chris/app", keys)
            .enforced_by(Version::read(version).unwrap())
        {
            Ok(()) => None,
            Err(error @ PolicyError::TooOld { .. }) => error.hint(),
            Err(error) => panic!("{error}"),
        };
        for version in ["3.4.4", "4.3.1", "4.3.1+ds1"] {
            assert!(least(&["/etc/a.pub"], version).unwrap().contains("leave out --no-check"), "{version}");
        }
        assert_eq!(least(&["/etc/a.pub"], "4.4.0"), None);
        for version in ["4.3.1", "4.9.3", "5.1.2"] {
            assert!(least(&["/etc/a.pub", "/etc/b.pub"], version).unwrap().contains("one key"), "{version}");
        }
        assert_eq!(least(&["/etc/a.pub", "/etc/b.pub"], "5.2.0"), None);
    }

    #[test]
    fn a_log_of_ones_own_is_named_by_its_file_and_the_public_one_is_written_out() {
        let with = |log| Requirement { log, ..requirement("git.example.org/chris/app", &["/etc/a.pub"]) };
        let own = with(Log::Own(vec!["/etc/rekor.pub".into()]));
        assert!(json(&own).contains(r#""rekorPublicKeyPath":"/etc/rekor.pub""#));
        let two = with(Log::Own(vec!["/etc/r.pub".into(), "/etc/s.pub".into()]));
        assert!(json(&two).contains(r#""rekorPublicKeyPaths":["/etc/r.pub","/etc/s.pub"]"#));
        assert_eq!(two.least_podman(), Version::LISTS);
        let public = with(Log::Public).rules().unwrap();
        let data = STANDARD.decode(public[0]["rekorPublicKeyData"].as_str().unwrap()).unwrap();
        assert_eq!(PublicKey::from_pem("log", &data).unwrap(), PublicKey::public_log());
    }

    #[test]
    fn settings_decide_which_log_and_what_podman_leaves_unchecked() {
        let mut settings = crate::testing::settings(&crate::testing::Signer::new(), Path::new("/handoff"));
        for (rekor, keys, log, unchecked) in [
            (Rekor::Off, vec![], Log::None, 0),
            (Rekor::WhenPresent, vec![], Log::None, 1),
            (Rekor::Required, vec![], Log::Public, 0),
            (Rekor::Required, vec!["/etc/r.pub"], Log::Own(vec!["/etc/r.pub".into()]), 0),
        ] {
            settings.verify.rekor = rekor;
            settings.verify.rekor_keys = keys.iter().map(|path| RootFile::for_test(path, b"")).collect();
            settings.verify.annotations = AnnotationRule::Off;
            let requirement = Requirement::of(&settings);
            assert_eq!((requirement.log, requirement.unchecked.len()), (log, unchecked), "{rekor:?}");
        }
        assert!(!Requirement::of(&settings).unseen);
        settings.verify.formats = Formats::among(&[Format::Bundle]).unwrap();
        assert!(Requirement::of(&settings).unseen);
        settings.verify.annotations = AnnotationRule::Required;
        assert!(Requirement::of(&settings).unchecked.iter().any(|what| what.contains("version")));
    }

    #[test]
    fn a_key_that_is_named_twice_is_one() {
        let files = ["/etc/a.pub", "/etc/b.pub", "/etc/a.pub"].map(|path| RootFile::for_test(path, b""));
        assert_eq!(paths(&files), ["/etc/a.pub", "/etc/b.pub"].map(PathBuf::from));
    }

    #[test]
    fn the_scope_is_the_name_that_podman_looks_up() {
        for (image, scope) in [
            ("git.example.org/chris/app", "git.example.org/chris/app"),
            ("registry.test:5000/app", "registry.test:5000/app"),
            ("docker.io/app", "docker.io/library/app"),
            ("index.docker.io/chris/app", "docker.io/chris/app"),
        ] {
            assert_eq!(requirement(image, &["/etc/a.pub"]).scope(), scope);
        }
    }

    #[test]
    fn text_and_value_are_one_rule() {
        let rule = requirement("git.example.org/chris/app", &["/etc/a.pub"]);
        let text = rule.text("  ").unwrap();
        assert!(text.starts_with("[\n  {\n    \"type\": \"sigstoreSigned\",\n    \"keyPath\""), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), rule.rules().unwrap());
    }
}
