//! The user's YAML as it is written: keys, defaults and shapes. Whether the values make sense together is `load`'s.

use std::{fmt, path::Path, path::PathBuf, time::Duration};

use jiff::SignedDuration;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, SeqAccess, Visitor},
};
use serde_yaml::Error as YamlError;
use tagship_core::{
    reference::{Repository, Tag},
    signature::{AnnotationRule, Format, Rekor},
};

use super::{ConfigError, Downgrade, Missing, RequestPolicy, ServiceName, error::Place, words};

/// One app's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AppFile {
    pub image: Option<Repository>,
    #[serde(default = "stable", deserialize_with = "tag_or_empty")]
    pub moving_tag: Option<Tag>,
    pub handoff: Option<PathBuf>,
    pub local_image: Option<Repository>,
    #[serde(default)]
    pub requesters: Vec<u32>,
    pub verify: Option<VerifyBlock>,
    #[serde(default)]
    pub before: Vec<ServiceName>,
    #[serde(default)]
    pub services: Vec<Group>,
    #[serde(default)]
    pub health: HealthBlock,
    #[serde(default = "ten_minutes", deserialize_with = "duration")]
    pub budget: Duration,
    #[serde(default)]
    pub rollback: Rollback,
    #[serde(default = "three")]
    pub keep_images: usize,
    #[serde(default = "reserve", deserialize_with = "size")]
    pub reserve_space: u64,
}

/// The `verify` block, in the user's file and in the administrator's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct VerifyBlock {
    #[serde(default)]
    pub keys: Vec<PathBuf>,
    #[serde(default)]
    pub rekor: Rekor,
    #[serde(default)]
    pub rekor_keys: Vec<PathBuf>,
    #[serde(default = "both")]
    pub formats: Vec<Format>,
    #[serde(default)]
    pub annotations: AnnotationRule,
    #[serde(default = "any")]
    pub requests: RequestPolicy,
    #[serde(default = "refuse")]
    pub downgrade: Downgrade,
}

/// The `health` block.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct HealthBlock {
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    #[serde(deserialize_with = "duration")]
    pub settle: Duration,
    pub missing: Missing,
}

/// What happens after a failed deploy: there is one answer, which may be spelled out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Rollback {
    #[default]
    Automatic,
}

/// One entry of `services`: a name, or a list of names that restart together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group(pub Vec<ServiceName>);

/// What another app's file says about things that only one app may have. All else in it is that app's own matter.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Belongings {
    pub handoff: Option<PathBuf>,
    pub before: Vec<ServiceName>,
    pub services: Vec<Group>,
}

/// What the app's units run. Whether the rest of the file is right is no matter of theirs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct NamesOnly {
    pub image: Option<Repository>,
    #[serde(default = "stable", deserialize_with = "tag_or_empty")]
    pub moving_tag: Option<Tag>,
    pub local_image: Option<Repository>,
    #[serde(default)]
    pub before: Vec<ServiceName>,
    #[serde(default)]
    pub services: Vec<Group>,
}

/// The one key that is needed before the rest is known to be right: where answers go.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HandoffOnly {
    pub handoff: Option<PathBuf>,
}

impl Default for HealthBlock {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(120), settle: Duration::from_millis(500), missing: Missing::Running }
    }
}

fn stable() -> Option<Tag> {
    "stable".parse().ok()
}

fn ten_minutes() -> Duration {
    Duration::from_secs(10 * 60)
}

/// 512 MiB: what a small database writes until somebody looks.
fn reserve() -> u64 {
    512 << 20
}

fn three() -> usize {
    3
}

fn both() -> Vec<Format> {
    Format::ALL.to_vec()
}

fn any() -> RequestPolicy {
    RequestPolicy::Any
}

fn refuse() -> Downgrade {
    Downgrade::Refuse
}

/// Reads one YAML document of this shape; a key twice, an unknown one or anything after the document is an error.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    let options = serde_yaml::options! { with_snippet: false };
    serde_yaml::from_str_with_options(text, options).map_err(|error| explain(path, error.without_snippet()))
}

fn explain(path: &Path, error: &YamlError) -> ConfigError {
    let position = error.location().map(|at| (at.line(), at.column())).filter(|(line, _)| *line > 0);
    let at = Place { path: path.to_owned(), position };
    match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            ConfigError::UnknownKey { at, key: tagship_core::text::escape(field), known: expected.clone() }
        }
        YamlError::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map(|key| format!(" `{key}`")).unwrap_or_default();
            ConfigError::Yaml { at, message: tagship_core::text::escape(&format!("the key{key} is there twice")) }
        }
        other => ConfigError::Yaml { at, message: tagship_core::text::escape(&words::of(other)) },
    }
}

fn tag_or_empty<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Tag>, D::Error> {
    match Option::<String>::deserialize(input)?.as_deref() {
        None | Some("") => Ok(None),
        Some(tag) => tag.parse().map(Some).map_err(de::Error::custom),
    }
}

/// A duration as people write it: `120s`, `500ms`, `1m 30s`.
fn duration<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(input)?;
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(de::Error::custom(format!("{text:?} lacks a unit; write 120s, 500ms or 10m")));
    }
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|parsed| Duration::try_from(parsed).ok())
        .ok_or_else(|| de::Error::custom(format!("{text:?} is no duration; write 120s, 500ms or 10m")))
}

/// A number of bytes as systemd writes it: `512M`, `2G`, the units being powers of 1024.
fn size<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    let text = String::deserialize(input)?;
    let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let unit = units.iter().find_map(|&(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let (number, shift) = unit.unwrap_or((&text, 0));
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|_| digits);
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if unit.is_some() || bytes == 0 => Ok(bytes),
        Some(_) => Err(de::Error::custom(format!("{text:?} lacks a unit; write 512M or 2G"))),
        None => Err(de::Error::custom(format!("{text:?} is no size; write 512M or 2G"))),
    }
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Group;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a service's name, or a list of names that restart together")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Group, E> {
                name.parse().map(|name| Group(vec![name])).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Group, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element::<ServiceName>()? {
                    names.push(name);
                }
                if names.is_empty() {
                    return Err(de::Error::custom("an empty list among the services"));
                }
                Ok(Group(names))
            }
        }

        input.deserialize_any(Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(text: &str) -> Result<AppFile, ConfigError> {
        parse(Path::new("app.yaml"), text)
    }

    fn fault(text: &str) -> String {
        app(text).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let file = app("image: git.example.org/chris/app\nservices: [web]\nverify: {keys: [/etc/a.pub]}").unwrap();
        assert_eq!(file.moving_tag.unwrap().to_string(), "stable");
        assert_eq!(file.budget, Duration::from_secs(600));
        assert_eq!(file.health.timeout, Duration::from_secs(120));
        assert_eq!(file.health.settle, Duration::from_millis(500));
        assert_eq!(file.health.missing, Missing::Running);
        assert_eq!(file.keep_images, 3);
        let verify = file.verify.unwrap();
        assert_eq!(verify.rekor, Rekor::Required);
        assert_eq!(verify.annotations, AnnotationRule::WhenPresent);
        assert_eq!(verify.downgrade, Downgrade::Refuse);
        assert_eq!(verify.requests, RequestPolicy::Any);
    }

    #[test]
    fn off_needs_no_quotes() {
        for text in ["verify: {rekor: off, annotations: off}", "verify: {rekor: 'off', annotations: \"off\"}"] {
            let verify = app(text).unwrap().verify.unwrap();
            assert_eq!((verify.rekor, verify.annotations), (Rekor::Off, AnnotationRule::Off), "{text}");
        }
    }

    #[test]
    fn an_empty_moving_tag_is_none() {
        for text in ["moving-tag: ''", "moving-tag:", "moving-tag: ~"] {
            assert_eq!(app(text).unwrap().moving_tag, None, "{text}");
        }
    }

    #[test]
    fn nested_lists_are_groups() {
        let file = app("services:\n  - web\n  - [worker.service, beat]\n").unwrap();
        let names: Vec<Vec<&str>> =
            file.services.iter().map(|group| group.0.iter().map(ServiceName::as_str).collect()).collect();
        assert_eq!(names, [vec!["web"], vec!["worker", "beat"]]);
    }

    #[test]
    fn durations_are_those_of_people() {
        for (text, expected) in [("90s", 90_000), ("1m 30s", 90_000), ("500ms", 500), ("1h", 3_600_000), ("0s", 0)] {
            let file = app(&format!("budget: {text}")).unwrap();
            assert_eq!(file.budget, Duration::from_millis(expected), "{text}");
        }
        for text in ["120", "-5s", "soon", "''", "[]", "1e9h", "99999999999999999999s"] {
            assert!(app(&format!("budget: {text}")).is_err(), "{text}");
        }
        for text in ["120", "-5s", "soon", "''", "1e9h"] {
            let fault = fault(&format!("image: a.example/b\nhealth:\n  timeout: {text}\n"));
            assert!(fault.starts_with("app.yaml:3:12: ") && fault.contains("write 120s, 500ms or 10m"), "{fault}");
        }
    }

    #[test]
    fn sizes_are_those_of_systemd() {
        for (text, expected) in [("512M", 512 << 20), ("2G", 2 << 30), ("1T", 1 << 40), ("7K", 7 << 10), ("0", 0)] {
            assert_eq!(app(&format!("reserve-space: {text}")).unwrap().reserve_space, expected, "{text}");
        }
        assert_eq!(app("image: a.example/b").unwrap().reserve_space, 512 << 20);
        for text in ["512", "M", "-1M", "+1M", "1.5G", "1g", "16777216T", "99999999999999999999", "''", "[]"] {
            assert!(app(&format!("reserve-space: {text}")).is_err(), "{text}");
        }
        assert!(fault("reserve-space: 512").contains("lacks a unit"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let unknown = app("image: a.example/b\nimge: x\n").unwrap_err();
        assert!(matches!(&unknown, ConfigError::UnknownKey { key, at, .. }
            if key == "imge" && at.position == Some((2, 1))));
        assert_eq!(tagship_core::explain::Explain::hint(&unknown).unwrap(), "did you mean `image`?");
        assert!(fault("image: a.example/b\nimage: a.example/c\n").contains("twice"));
        assert!(fault("services: [web\n").starts_with("app.yaml:"));
        assert!(fault("verify:\n  keys: /etc/a.pub\n  rekor: sometimes\n").starts_with("app.yaml:2:"));
        assert!(fault("health: {timeout: 120}").contains("lacks a unit"));
        assert!(fault("health: {timout: 120s}").contains("timout"));
        assert!(fault("services: [[]]").contains("empty list"));
        assert!(fault("services: ['../web']").contains("service name"));
        assert!(fault("services: [web.target]").contains("service name"));
        assert!(fault("image: nothing").starts_with("app.yaml:1:"));
        assert!(fault("requesters: [-1]").starts_with("app.yaml:1:"));
        assert!(fault("rollback: never").starts_with("app.yaml:1:"));
        assert!(fault("- web").starts_with("app.yaml:1:"));
        assert!(fault("a: 1\n---\nb: 2\n").starts_with("app.yaml:"));
    }

    #[test]
    fn what_belongs_there_is_said_in_plain_words() {
        for (text, expected) in [
            ("- web", "1:1: keys belong here, each with its value: `key: value`"),
            ("verify: [x]", "1:9: keys belong here, each with its value: `key: value`"),
            ("services: web", "1:11: a list belongs here, in brackets: `[a, b]`"),
            ("verify: {keys: }", "1:14: a list belongs here, in brackets: `[a, b]`"),
            ("image: [a]", "1:8: a single value belongs here"),
            ("health: {timeout: {a: b}}", "1:19: a single value belongs here"),
            ("verify: {keys: [~]}", "1:17: there is no value"),
            ("health: {timeout: }", "1:17: there is no value"),
            ("keep-images: x", "1:14: a whole number, not negative, belongs here"),
            ("requesters: [-1]", "1:14: a whole number from 0 to 4294967295 belongs here"),
            ("health: {missing: x}", "1:19: `x` means nothing here; it is running or refuse"),
            ("verify: {rekor: x}", "1:17: `x` means nothing here; it is required, when-present or off"),
            ("verify: {rekor: }", "1:15: there is no value; it is required, when-present or off"),
            ("rollback: never", "1:11: `never` means nothing here; it is automatic"),
            ("health: {missing: [x]}", "1:19: a single word belongs here"),
            (
                "services: [1]",
                "1:12: this is integer `1`, but a service's name, or a list of names that restart together, belongs here",
            ),
        ] {
            assert_eq!(fault(text), format!("app.yaml:{expected}"), "{text}");
        }
    }

    #[test]
    fn yaml_bombs_end_as_errors() {
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\n";
        assert!(app(bomb).is_err());
        assert!(app(&"[".repeat(50_000)).is_err());
        assert!(app(&format!("image: {}", "a: ".repeat(5_000))).is_err());
    }
}
