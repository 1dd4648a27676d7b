//! What Podman says of a container, and what its healthcheck is: its JSON to types, of which only what matters here.
//!
//! Nobody is asked here.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use serde::Deserialize;

use crate::deploy::{ContainerFacts, ContainerId, HealthState, ImageId};

/// The longest single probe, where the healthcheck does not say: Podman's own default.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// How a container is asked for its health.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) command: Vec<String>,
    pub(super) timeout: Duration,
}

/// A container in Podman's list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) id: String,
    /// Seconds since 1970; zero or less if it never was.
    #[serde(rename = "StartedAt")]
    pub(super) started: i64,
}

/// A container as Podman describes it: of its many fields those that matter here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    pub(super) id: ContainerId,
    pub(super) image: ImageId,
    #[serde(default)]
    pub(super) restart_count: u64,
    pub(super) state: State,
    #[serde(default)]
    pub(super) config: Config,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct State {
    pub(super) running: bool,
    pub(super) exit_code: Option<i64>,
    #[serde(alias = "Healthcheck")]
    pub(super) health: Option<Health>,
}

/// A container's health; also Podman's answer to a recorded run.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Health {
    #[serde(default)]
    pub(super) status: String,
    pub(super) log: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Config {
    pub(super) healthcheck: Option<Healthcheck>,
}

/// A healthcheck as the image specification writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Healthcheck {
    pub(super) test: Option<Vec<String>>,
    /// Nanoseconds; zero or less for the default.
    pub(super) timeout: Option<i64>,
}

/// Podman's answer where it refuses.
#[derive(Deserialize)]
pub(super) struct Refused {
    /// The error at the bottom, in words that are the same for all containers.
    #[serde(default)]
    cause: String,
    pub(super) message: String,
    /// The HTTP status, also where the answer has begun with another one.
    pub(super) response: u16,
}

/// One of Podman's events.
#[derive(Deserialize)]
pub(super) struct Died {
    #[serde(rename = "Actor")]
    actor: Actor,
    /// When, in nanoseconds since 1970.
    #[serde(rename = "timeNano", default)]
    time: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    attributes: HashMap<String, String>,
}

impl Refused {
    /// There is no such container, or no longer: one that goes while it is looked at is answered with status 500 and
    /// one of these errors of libpod's.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self.cause.as_str(), "no such container" | "container has already been removed")
    }
}

impl Died {
    pub(super) fn container(&self) -> &str {
        &self.actor.id
    }

    /// When it died.
    pub(super) fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.time)
    }

    /// The container's exit code.
    pub(super) fn code(&self) -> Option<i64> {
        self.actor.attributes.get("containerExitCode")?.parse().ok()
    }
}

/// The events in Podman's answer, one a line, the oldest first; what is none is left out.
pub(super) fn deaths(answer: &[u8]) -> impl Iterator<Item = Died> {
    answer.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

impl Test {
    /// The image specification's forms: `CMD` with words, `CMD-SHELL` with a line for the shell, `NONE` for none.
    pub(super) fn of(config: Healthcheck) -> Option<Self> {
        let words = config.test?;
        let (form, rest) = words.split_first()?;
        let command = match form.as_str() {
            "NONE" | "" => return None,
            "CMD" => rest.to_vec(),
            "CMD-SHELL" => vec!["/bin/sh".into(), "-c".into(), rest.join(" ")],
            _ => words,
        };
        let own = config.timeout.and_then(|nanos| u64::try_from(nanos).ok()).filter(|nanos| *nanos > 0);
        let timeout = own.map_or(PROBE_TIMEOUT, Duration::from_nanos);
        (!command.is_empty()).then_some(Self { command, timeout })
    }
}

impl Inspected {
    pub(super) fn facts(&self) -> ContainerFacts {
        ContainerFacts {
            id: self.id.clone(),
            image: self.image.clone(),
            running: self.state.running,
            restarts: self.restart_count,
            health: self.health(),
        }
    }

    pub(super) fn health(&self) -> HealthState {
        self.state.health.as_ref().map_or(HealthState::None, Health::state)
    }
}

impl Health {
    pub(super) fn state(&self) -> HealthState {
        match self.status.as_str() {
            "" | "none" => HealthState::None,
            "healthy" => HealthState::Healthy,
            "unhealthy" => HealthState::Unhealthy,
            _ => HealthState::Starting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_of(words: &[&str], timeout: Option<i64>) -> Option<Test> {
        let test = Some(words.iter().map(|word| (*word).to_owned()).collect());
        Test::of(Healthcheck { test, timeout })
    }

    #[test]
    fn the_forms_of_a_test() {
        let test = test_of(&["CMD", "curl", "-f", "http://localhost/"], Some(3_000_000_000)).unwrap();
        assert_eq!(test.command, ["curl", "-f", "http://localhost/"]);
        assert_eq!(test.timeout, Duration::from_secs(3));
        let test = test_of(&["CMD-SHELL", "test -e /ok || exit 1"], None).unwrap();
        assert_eq!(test.command, ["/bin/sh", "-c", "test -e /ok || exit 1"]);
        assert_eq!(test.timeout, PROBE_TIMEOUT);
    }

    #[test]
    fn what_is_no_test() {
        for (defect, words) in
            [("none", &["NONE"][..]), ("nothing", &[]), ("an empty form", &[""]), ("CMD without words", &["CMD"])]
        {
            assert_eq!(test_of(words, None), None, "{defect}");
        }
        assert_eq!(Test::of(Healthcheck::default()), None);
        assert_eq!(test_of(&["CMD", "true"], Some(-1)).unwrap().timeout, PROBE_TIMEOUT);
    }

    fn inspected(state: &str) -> Result<ContainerFacts, serde_json::Error> {
        let (id, image) = ("ab".repeat(32), "cd".repeat(32));
        let json = format!(r#"{{"Id":"{id}","Image":"{image}","Name":"x","State":{state}}}"#);
        serde_json::from_str::<Inspected>(&json).map(|found| found.facts())
    }

    #[test]
    fn a_container_is_read() {
        let facts =
            inspected(r#"{"Running":true,"Status":"running","Health":{"Status":"healthy","Log":null}}"#).unwrap();
        assert_eq!((facts.running, facts.health, facts.restarts), (true, HealthState::Healthy, 0));
        // A state that no list of ours names.
        assert!(!inspected(r#"{"Running":false,"Status":"stopped"}"#).unwrap().running);
        let health = |status: &str| {
            inspected(&format!(r#"{{"Running":true,"Health":{{"Status":"{status}"}}}}"#)).unwrap().health
        };
        assert_eq!(health(""), HealthState::None);
        assert_eq!(health("starting"), HealthState::Starting);
        assert_eq!(health("unhealthy"), HealthState::Unhealthy);
    }

    #[test]
    fn a_container_that_goes_while_it_is_looked_at_is_absent() {
        let refused = |cause: &str| {
            let json = format!(r#"{{"cause":"{cause}","message":"no container with ID 4f found","response":500}}"#);
            serde_json::from_str::<Refused>(&json).unwrap().is_absence()
        };
        assert!(refused("no such container") && refused("container has already been removed"));
        assert!(!refused("") && !refused("database is locked"));
    }

    #[test]
    fn an_exit_code_is_found_among_events() {
        let line = |id: &str, attributes: &str| {
            format!(
                r#"{{"Type":"container","Action":"died","Actor":{{"ID":"{id}","Attributes":{attributes}}},"timeNano":1000000001}}"#
            )
        };
        let answer = [
            line("a", r#"{"containerExitCode":"3","name":"web"}"#),
            "no event".into(),
            line("b", r#"{"containerExitCode":"many"}"#),
            line("c", "{}"),
            r#"{"Action":"died"}"#.into(),
            line("d", r#"{"containerExitCode":"137"}"#),
            String::new(),
        ];
        let answer = answer.join("\n");
        let at = SystemTime::UNIX_EPOCH + Duration::new(1, 1);
        assert!(deaths(answer.as_bytes()).all(|died| died.at() == at));
        let found: Vec<_> = deaths(answer.as_bytes()).map(|died| (died.container().to_owned(), died.code())).collect();
        let expected = [("a", Some(3)), ("b", None), ("c", None), ("d", Some(137))];
        assert_eq!(found, expected.map(|(id, code)| (id.to_owned(), code)));
    }

    #[test]
    fn what_is_no_container_is_refused() {
        for (defect, json) in [
            ("no state", r#"{"Id":"a","Image":"b"}"#),
            ("short ids", r#"{"Id":"a","Image":"b","State":{"Running":true}}"#),
            ("a list", "[]"),
        ] {
            assert!(serde_json::from_str::<Inspected>(json).is_err(), "{defect}");
        }
        assert!(inspected(r#"{"Running":"yes"}"#).is_err(), "not a truth value");
    }
}
