//! `tagship-host status`: what runs, how the last deploy ended, what waits.
//!
//! Looked at, never changed: it takes no lock and works beside a deploy.

use std::io::ErrorKind;

use jiff::Timestamp;
use serde::Serialize;
use tagship_core::{
    explain::chain,
    handoff::{
        dir::{Dir, DirError},
        names::Name,
        status::{Outcome, Status},
    },
    reference::{Digest, Tag},
    text,
};

use super::table;
use crate::{
    config::{App, ServiceName, Settings},
    deploy::{self, ContainerFacts, Containers, Failure, HealthState, ImageId, LocalName, Store, UnitFacts, Units},
    desk::{Adapters, Host},
    history::{History, Verdict},
    inbox::{Ledger, Stage},
    journal::Journal,
    requests::Requests,
    state_dir::StateError,
    trust::Release,
    verify,
};

/// All that there is to say about an app.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    app: App,
    image: String,
    running: Option<Version>,
    mark: Option<Version>,
    held: bool,
    /// What somebody should look at: why no release can be deployed, whatever it is; what runs, or would after the next
    /// start, in place of what was proven last.
    warning: Option<String>,
    services: Vec<Service>,
    waiting: usize,
    /// A deploy is under way.
    deploying: bool,
    /// A deploy was interrupted, and is ended by the companion's next run.
    interrupted: bool,
    last: Option<Last>,
}

/// A version that was proven here.
#[derive(Debug, Clone, Serialize)]
struct Version {
    tag: Tag,
    digest: Digest,
}

/// One service as it is now.
#[derive(Debug, Clone, Serialize)]
struct Service {
    name: ServiceName,
    /// systemd's word: `active`, `failed`, `inactive`…
    state: String,
    /// The container's own: `healthy`, `unhealthy`, `starting`; none without a healthcheck or a container.
    health: Option<&'static str>,
    /// The local image id.
    image: Option<String>,
    /// The version that this image was proven as, if it was.
    version: Option<Tag>,
    /// What its next start runs, where that is not what runs now.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Next>,
    /// Why no more is known.
    error: Option<String>,
}

/// What a service's local name stands for.
#[derive(Debug, Clone, Serialize)]
struct Next {
    name: String,
    /// None if it stands for nothing: then it does not start.
    image: Option<String>,
}

/// What was found of one service.
struct Facts {
    unit: UnitFacts,
    container: Option<ContainerFacts>,
    local: LocalName,
    named: Option<ImageId>,
}

/// How the last deploy ended.
#[derive(Debug, Clone, Serialize)]
struct Last {
    time: Timestamp,
    tag: Option<Tag>,
    outcome: Outcome,
    kind: String,
    reason: String,
}

/// Looks at everything. `is_locked`: a companion is at work. `journal`: the deploy in flight, which is no more than read.
pub async fn look<H: Host>(
    host: &H,
    settings: &Settings,
    history: &History,
    requests: &Requests,
    (is_locked, journal): (bool, &Result<Journal, StateError>),
) -> Result<Overview, StateError> {
    let stages: Vec<Stage> = requests.open_entries()?.into_iter().map(|entry| entry.stage).collect();
    let claimed = stages.iter().filter(|stage| matches!(stage, Stage::Waiting)).count();
    let (unclaimed, unseen) = match unclaimed(settings) {
        Ok(unclaimed) => (unclaimed, None),
        // A directory that is not there yet holds nothing.
        Err(DirError::Open { source, .. }) if source.kind() == ErrorKind::NotFound => (0, None),
        Err(error) => (0, Some(chain(&error))),
    };
    // An operator's is no request.
    let in_flight = journal.as_ref().is_ok_and(|journal| journal.current().is_some());
    let has_begun = in_flight || stages.iter().any(|stage| matches!(stage, Stage::Begun));
    let services = services(host, settings, history).await;
    // In a deploy things differ, and will not in a moment.
    let strange = if has_begun { Vec::new() } else { strange(&settings.app, &services, history) };
    let version = |release: &Release| Version { tag: release.tag.clone(), digest: release.digest };
    Ok(Overview {
        app: settings.app.clone(),
        image: settings.image.to_string(),
        running: history.trust.running().map(version),
        mark: history.trust.mark().map(version),
        held: history.trust.is_held(),
        warning: verify::doubt(&settings.verify)
            .into_iter()
            .chain(journal.as_ref().err().map(|error| format!("nothing can be deployed: {}", chain(error))))
            .chain(unseen)
            .chain(strange)
            .reduce(|one, other| format!("{one}; {other}")),
        services,
        waiting: claimed + unclaimed,
        deploying: has_begun && is_locked,
        interrupted: has_begun && !is_locked,
        last: history.last().map(last),
    })
}

fn last(verdict: &Verdict) -> Last {
    let Status { tag, outcome, kind, reason, .. } = &verdict.status;
    Last { time: verdict.time, tag: tag.clone(), outcome: *outcome, kind: kind.to_string(), reason: reason.to_string() }
}

fn unclaimed(settings: &Settings) -> Result<usize, DirError> {
    let names = Dir::open(&settings.handoff)?.names()?;
    Ok(names.iter().filter(|name| Name::of(name.as_encoded_bytes()).is_request()).count())
}

async fn services<H: Host>(host: &H, settings: &Settings, history: &History) -> Vec<Service> {
    let adapters = host.adapters(settings).await;
    let mut services = Vec::new();
    for name in settings.all_services() {
        let facts = match &adapters {
            Ok(adapters) => facts(adapters, settings, name).await,
            Err(failure) => Err(failure.clone()),
        };
        services.push(service(name, facts, history));
    }
    services
}

async fn facts<U: Units, S: Store, C: Containers>(
    Adapters { units, store, containers }: &Adapters<U, S, C>,
    settings: &Settings,
    name: &ServiceName,
) -> Result<Facts, Failure> {
    let unit = units.inspect(name).await.map_err(|error| Failure::of(&error))?;
    let container = containers.find(name).await.map_err(|error| Failure::of(&error))?;
    let local = deploy::local_name(settings, name)?;
    let named = store.resolve(&local).await.map_err(|error| Failure::of(&error))?;
    Ok(Facts { unit, container, local, named })
}

/// What runs, or would, in place of what was proven last: a sentence each.
fn strange(app: &App, services: &[Service], history: &History) -> Vec<String> {
    let mut strange = Vec::new();
    let Some(proven) = history.running() else { return strange };
    let (version, image) = (&proven.release.tag, proven.image.to_string());
    let others = services.iter().filter(|service| service.image.as_ref().is_some_and(|runs| *runs != image));
    let others: Vec<&str> = others.map(|service| service.name.as_str()).collect();
    if !others.is_empty() {
        strange.push(format!(
            "another image than that of {version}, which was proven last, runs in {}",
            others.join(", ")
        ));
    }
    if services.iter().all(|service| matches!(service.state.as_str(), "inactive" | "failed")) {
        strange.push("no service runs".to_owned());
    }
    for Service { name, next, .. } in services {
        let Some(next) = next else { continue };
        let so = match &next.image {
            Some(image) => format!("stands for image {}, which its next start would run", short(image)),
            None => "stands for nothing, so it would not start again".to_owned(),
        };
        strange.push(format!("{name}: {} {so}: `tagship-host rollback {app} {version}` mends that", next.name));
    }
    strange
}

fn service(name: &ServiceName, facts: Result<Facts, Failure>, history: &History) -> Service {
    let unknown = Service {
        name: name.clone(),
        state: "unknown".into(),
        health: None,
        image: None,
        version: None,
        next: None,
        error: None,
    };
    match facts {
        Err(failure) => Service { error: Some(failure.words()), ..unknown },
        Ok(Facts { unit, container, local, named }) => {
            let version = container.as_ref().and_then(|container| {
                let known = history.proven().iter().find(|proven| proven.image == container.image)?;
                Some(known.release.tag.clone())
            });
            let is_same = container.as_ref().is_none_or(|container| named.as_ref() == Some(&container.image));
            let next = Next { name: local.to_string(), image: named.map(|image| image.to_string()) };
            Service {
                next: (!is_same).then_some(next),
                state: if unit.load == "loaded" { unit.active } else { unit.load },
                health: container.as_ref().and_then(|container| match container.health {
                    HealthState::None => None,
                    HealthState::Starting => Some("starting"),
                    HealthState::Healthy => Some("healthy"),
                    HealthState::Unhealthy => Some("unhealthy"),
                }),
                image: container.map(|container| container.image.to_string()),
                version,
                ..unknown
            }
        }
    }
}

impl Overview {
    /// The same for a reader.
    pub fn render(&self, colours: bool) -> String {
        let paint = |code: &str, text: &str| match colours {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        };
        let named = |version: &Version| format!("{} ({})", version.tag, version.digest.short());
        let mut facts = vec![
            ["app", self.app.as_str()].map(str::to_owned),
            ["image".to_owned(), self.image.clone()],
            ["runs".to_owned(), self.running.as_ref().map_or("nothing that was proven here".into(), named)],
        ];
        if let Some(mark) = &self.mark {
            let held = if self.held { ", held until a newer version: something else runs" } else { "" };
            facts.push(["highest".to_owned(), format!("{}{held}", named(mark))]);
        }
        if let Some(last) = &self.last {
            let tag = last.tag.as_ref().map_or("invalid", Tag::as_str);
            let outcome = paint(if last.outcome.is_ok() { "32" } else { "31" }, last.outcome.as_str());
            facts.push(["last".to_owned(), format!("{tag} {outcome} at {:.0}", last.time)]);
            if !last.outcome.is_ok() {
                facts.push([String::new(), text::escape(&last.reason)]);
            }
        }
        let waiting = match (self.deploying, self.waiting) {
            (true, 0) => "a deploy is under way".to_owned(),
            (true, waiting) => format!("a deploy is under way, {waiting} waiting"),
            (false, 0) if self.interrupted => {
                "an interrupted deploy, for the companion's next run to end it".to_owned()
            }
            (false, 0) => "nothing".to_owned(),
            (false, waiting) => waiting.to_string(),
        };
        facts.push(["waits".to_owned(), waiting]);
        if let Some(warning) = &self.warning {
            facts.push(["warning".to_owned(), text::escape(warning)]);
        }

        let mut rows = vec![["SERVICE", "STATE", "HEALTH", "VERSION", "IMAGE"].map(str::to_owned)];
        for service in &self.services {
            let cell = |text: Option<&str>| text.unwrap_or("-").to_owned();
            rows.push([
                service.name.to_string(),
                service.state.clone(),
                cell(service.health),
                cell(service.version.as_ref().map(Tag::as_str)),
                cell(service.image.as_deref().map(short).or(service.error.as_deref())),
            ]);
        }
        // Only words that stand alone are coloured, after the columns were measured.
        let mut services = text_lines(&table::columns(&rows));
        for (line, service) in services.iter_mut().skip(1).zip(&self.services) {
            let well = service.state == "active" && service.health != Some("unhealthy");
            if !well {
                *line = paint("31", line);
            }
        }
        format!("{}\n{}\n", table::columns(&facts), services.join("\n"))
    }
}

fn text_lines(text: &str) -> Vec<String> {
    text.lines().map(text::escape).collect()
}

/// The first twelve digits, as the engine's own lists show them.
fn short(hex: &str) -> &str {
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::digest;

    fn overview() -> Overview {
        let version = |name: &str| Version { tag: name.parse().unwrap(), digest: digest(name) };
        let service = |name: &str, state: &str, health| Service {
            name: name.parse().unwrap(),
            state: state.into(),
            health,
            image: Some("ab".repeat(32)),
            version: Some("v0.1.0".parse().unwrap()),
            next: None,
            error: None,
        };
        Overview {
            app: "app".parse().unwrap(),
            image: "git.example.org/chris/app".into(),
            running: Some(version("v0.1.0")),
            mark: Some(version("v0.2.0")),
            held: true,
            warning: None,
            services: vec![service("web", "active", Some("healthy")), service("worker", "failed", None)],
            waiting: 1,
            deploying: false,
            interrupted: false,
            last: Some(Last {
                time: Timestamp::UNIX_EPOCH,
                tag: Some("v0.2.0".parse().unwrap()),
                outcome: Outcome::Refused,
                kind: "held".into(),
                reason: "v0.2.0 was rolled back from\u{1b}[2J".into(),
            }),
        }
    }

    #[test]
    fn a_reader_sees_columns_and_nothing_that_moves_the_cursor() {
        let digits = |name: &str| digest(name).hex()[..12].to_owned();
        let expected = format!(
            "app      app\n\
             image    git.example.org/chris/app\n\
             runs     v0.1.0 ({})\n\
             highest  v0.2.0 ({}), held until a newer version: something else runs\n\
             last     v0.2.0 refused at 1970-01-01T00:00:00Z\n         v0.2.0 was rolled back from\\u{{1b}}[2J\n\
             waits    1\n\
             \n\
             SERVICE  STATE   HEALTH   VERSION  IMAGE\n\
             web      active  healthy  v0.1.0   abababababab\n\
             worker   failed  -        v0.1.0   abababababab\n",
            digits("v0.1.0"),
            digits("v0.2.0")
        );
        assert_eq!(overview().render(false), expected);
    }

    #[test]
    fn what_keeps_every_release_from_counting_is_shown() {
        let text = Overview { warning: Some("no signature can count".into()), ..overview() }.render(false);
        assert!(text.contains("\nwarning  no signature can count\n"), "{text}");
    }

    #[test]
    fn colours_mark_what_is_wrong() {
        let text = overview().render(true);
        assert!(text.contains("\u{1b}[31mrefused\u{1b}[0m"));
        assert!(text.contains("\u{1b}[31mworker   failed"));
        assert!(!text.contains("\u{1b}[31mweb"));
    }

    #[test]
    fn programs_get_all_of_it() {
        let json = serde_json::to_value(overview()).unwrap();
        assert_eq!(json["running"]["tag"], "v0.1.0");
        assert_eq!(json["services"][1]["state"], "failed");
        assert_eq!(json["last"]["outcome"], "refused");
    }
}
