//! From what was found to what may be done: a refusal by name, or the record that a deploy starts from.
//!
//! Pure: facts in, decision out. Gathering them is `run`'s work.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    outcome::Failure,
    ports::{ContainerFacts, HealthState, UnitFacts},
    record::{InFlight, Phase, Recorded, RecordedGoal, Role, Was},
    state::{Shape, Slot},
    values::{ImageId, LocalName},
};
use crate::config::{ServiceName, Settings};

/// What was found out about one service or one-shot unit.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) name: ServiceName,
    pub(crate) role: Role,
    pub(crate) local: LocalName,
    pub(crate) unit: UnitFacts,
    pub(crate) container: Option<ContainerFacts>,
    /// What the local name stands for now.
    pub(crate) named: Option<ImageId>,
}

/// A unit, what it is, and the local name that it has to run.
pub(crate) type Named = (ServiceName, Role, LocalName);

/// The names of everything that a deploy touches, one-shot units first, with the local name of each.
pub(crate) fn names(settings: &Settings) -> Result<Vec<Named>, Failure> {
    let one_shots = settings.before.iter().map(|name| Ok((name.clone(), Role::OneShot, local_name(settings, name)?)));
    let mut names: Vec<_> = one_shots.collect::<Result<_, Failure>>()?;
    names.extend(service_names(settings)?);
    Ok(names)
}

/// The same of the services alone.
pub(crate) fn service_names(settings: &Settings) -> Result<Vec<Named>, Failure> {
    settings.all_services().map(|name| Ok((name.clone(), Role::Service, local_name(settings, name)?))).collect()
}

/// The name in the local store that a service's unit has to run.
pub(crate) fn local_name(settings: &Settings, service: &ServiceName) -> Result<LocalName, Failure> {
    let shared = (&settings.image, settings.moving_tag.as_ref());
    LocalName::of(service, settings.local_image.as_ref(), shared).ok_or_else(|| {
        Failure::new("local-name", format!("there is no local name for {service} to run"))
            .at(service)
            .hint("set `local-image`, or a `moving-tag`, in the app's configuration")
    })
}

/// Refuses what cannot work, and records the rest as it is before the first effect.
pub(crate) fn record(settings: &Settings, goal: RecordedGoal, facts: &[Facts]) -> Result<InFlight, Failure> {
    for facts in facts {
        check_unit(facts)?;
    }
    check_coupling(settings, facts)?;
    let mut services: Vec<Recorded> = facts.iter().map(recorded).collect();
    if settings.local_image.is_none() {
        share(&mut services)?;
    }
    let index = |name: &ServiceName| facts.iter().position(|f| f.role == Role::Service && f.name == *name);
    let groups = settings.services.iter().map(|group| group.iter().filter_map(index).collect()).collect();
    Ok(InFlight { goal, services, groups, phase: Phase::Pulling, image: None })
}

/// What decisions need of a record.
pub(crate) fn shape(entry: &InFlight, pull: bool) -> Shape {
    Shape {
        slots: entry
            .services
            .iter()
            .map(|s| Slot { role: s.role, was: to_go_back_to(s), revoked: s.revoked })
            .collect(),
        groups: entry.groups.clone(),
        pull,
    }
}

/// What was there as far as a way back is concerned: what is revoked is as good as nothing.
fn to_go_back_to(recorded: &Recorded) -> Was {
    match recorded.was {
        Was::Running | Was::Failing if recorded.revoked => Was::Absent,
        was => was,
    }
}

/// What deserves a word though it forbids nothing: settings of a unit that work against tagship.
pub(crate) fn warnings(facts: &[Facts]) -> Vec<(ServiceName, String)> {
    let mut warnings = Vec::new();
    for facts in facts {
        let words = &facts.unit.command;
        let pull = words.windows(2).find_map(|pair| match pair {
            [flag, value] if flag == "--pull" => Some(value.as_str()),
            _ => None,
        });
        let pull = pull.or_else(|| words.iter().find_map(|word| word.strip_prefix("--pull=")));
        if let Some(policy) = pull.filter(|policy| *policy != "never") {
            warnings.push((
                facts.name.clone(),
                format!(
                    "{} has Pull={policy}: Podman may fetch an image that was never verified; use Pull=never",
                    facts.name
                ),
            ));
        }
        if words.iter().any(|word| word.contains("io.containers.autoupdate=registry")) {
            warnings.push((
                facts.name.clone(),
                format!("{} has AutoUpdate=registry: podman auto-update would replace the verified image", facts.name),
            ));
        }
        if was(facts) == Was::Failing {
            warnings.push((facts.name.clone(), format!("{} is failing before the deploy", facts.name)));
        }
    }
    warnings
}

/// Services for which there will be no way back, though they have an image.
pub(crate) fn no_way_back(entry: &InFlight) -> Vec<(ServiceName, String)> {
    let revoked = entry.services.iter().filter(|recorded| recorded.revoked && recorded.role == Role::Service);
    let text = |Recorded { name, was, .. }: &Recorded| match was {
        Was::Stopped => format!(
            "{name} is stopped, and its image's key is revoked: if this deploy fails, it may have nothing left to start"
        ),
        _ => format!("{name} runs an image whose key is revoked: if this deploy fails, it is stopped and not put back"),
    };
    revoked.map(|recorded| (recorded.name.clone(), text(recorded))).collect()
}

/// Those that do not do now what they did when the record was made: wrong image, not running, or with a job under way.
pub(crate) fn astray(entry: &InFlight, facts: &[Facts]) -> BTreeSet<usize> {
    let stands = |recorded: &Recorded, now: &Facts| {
        !now.unit.job
            && now.unit.active == "active"
            && now.container.as_ref().is_some_and(|c| c.running && Some(&c.image) == recorded.image.as_ref())
    };
    those(entry, facts, |recorded, now| !now.is_some_and(|now| stands(recorded, now)))
}

/// Those whose image is revoked and which a deploy that was cut off never came to: the name stands for that image, and
/// nothing else runs. They go on, whatever they are doing now; at a boot they may not have started yet.
pub(crate) fn spared(entry: &InFlight, facts: &[Facts]) -> BTreeSet<usize> {
    let is_as_before = |recorded: &Recorded, now: &Facts| {
        let old = recorded.image.as_ref();
        now.named.as_ref() == old && now.container.as_ref().is_none_or(|c| Some(&c.image) == old)
    };
    those(entry, facts, |recorded, now| recorded.revoked && now.is_some_and(|now| is_as_before(recorded, now)))
}

/// The recorded ones of which this is true, by what is found of them now.
fn those(entry: &InFlight, facts: &[Facts], is: impl Fn(&Recorded, Option<&Facts>) -> bool) -> BTreeSet<usize> {
    let now = |recorded: &Recorded| facts.iter().find(|now| now.name == recorded.name);
    let all = entry.services.iter().enumerate();
    all.filter(|(_, recorded)| is(recorded, now(recorded))).map(|(index, _)| index).collect()
}

/// Whether systemd knows the unit and could load it.
pub(crate) fn check_loaded(name: &ServiceName, unit: &UnitFacts) -> Result<(), Failure> {
    let refuse = |kind: &str, reason: String, hint: String| Err(Failure::new(kind, reason).at(name).hint(hint));
    match unit.load.as_str() {
        "loaded" => Ok(()),
        "masked" => refuse(
            "service-masked",
            format!("{} is masked", name.unit()),
            format!("run `systemctl --user unmask {}`, or take it out of the app's configuration", name.unit()),
        ),
        "not-found" => refuse(
            "service-unknown",
            format!("systemd knows no {}", name.unit()),
            format!(
                "put {name}.container into ~/.config/containers/systemd and run `systemctl --user daemon-reload`; \
                     `/usr/lib/systemd/system-generators/podman-system-generator --user --dryrun` shows what is wrong \
                     with a Quadlet"
            ),
        ),
        other => refuse(
            "service-invalid",
            format!("systemd cannot load {}: {other}", name.unit()),
            format!("`systemctl --user status {}` says why", name.unit()),
        ),
    }
}

fn check_unit(facts: &Facts) -> Result<(), Failure> {
    let Facts { name, unit, local, .. } = facts;
    let refuse = |kind: &str, reason: String, hint: String| Err(Failure::new(kind, reason).at(name).hint(hint));
    check_loaded(name, unit)?;
    if unit.needs_reload {
        return refuse(
            "service-changed",
            format!("{} was edited, and systemd has not read it since", name.unit()),
            "run `systemctl --user daemon-reload`".into(),
        );
    }
    let local = local.to_string();
    if !unit.command.contains(&local) {
        return refuse(
            "service-image",
            format!("{} does not run {local}", name.unit()),
            format!(
                "write `Image={local}` and `Pull=never` into {name}.container, then `systemctl --user daemon-reload`"
            ),
        );
    }
    if facts.role == Role::Service && ends_with_its_last(&unit.pod) {
        return refuse(
            "service-pod",
            format!(
                "the pod of {name} stops when the last of its containers does, and its units with it: services that \
                 restart at the same time, as all do to go back, would not start again"
            ),
            "write `PodmanArgs=--exit-policy=continue` into the .pod file, `systemctl --user daemon-reload`, and restart \
             the pod"
                .into(),
        );
    }
    if facts.role == Role::Service && unit.active == "active" && facts.container.is_none() {
        return refuse(
            "service-container",
            format!("{} is active, but no container of it is there", name.unit()),
            "tagship deploys Quadlets: their containers carry the label PODMAN_SYSTEMD_UNIT".into(),
        );
    }
    Ok(())
}

/// Whether a pod, by the command that makes it, stops with its last container; Quadlet says so unless it is told otherwise.
fn ends_with_its_last(pod: &[String]) -> bool {
    let mut values = pod.iter().enumerate().filter_map(|(index, word)| match word.strip_prefix("--exit-policy") {
        Some("") => pod.get(index + 1).map(String::as_str),
        Some(value) => value.strip_prefix('='),
        None => None,
    });
    // The last one counts. Podman's own default is to go on.
    values.next_back() == Some("stop")
}

/// Units that restart each other must be one group: a restart would otherwise take along one whose turn has not come. So
/// must those that do it by way of a unit that is not tagship's, such as a target.
fn check_coupling(settings: &Settings, facts: &[Facts]) -> Result<(), Failure> {
    let group_of = |name: &ServiceName| settings.services.iter().position(|group| group.contains(name));
    for one in facts.iter().filter(|one| one.role == Role::Service) {
        let taken = taken_along(&one.unit);
        for other in facts.iter().filter(|other| other.role == Role::Service && other.name != one.name) {
            if let Some(way) = taken.get(other.name.unit().as_str())
                && group_of(&one.name) != group_of(&other.name)
            {
                let way = way.map(|unit| format!(", by way of {unit}")).unwrap_or_default();
                return Err(Failure::new(
                    "services-coupled",
                    format!("a restart of {} restarts or stops {}, too{way}", one.name, other.name),
                )
                .at(&one.name)
                .hint(format!("put both into one nested list: [{}, {}]", one.name, other.name)));
            }
        }
    }
    Ok(())
}

/// All that a restart of this unit takes along, each with the unit that ties it in, unless that is this one itself.
fn taken_along(unit: &UnitFacts) -> BTreeMap<&str, Option<&str>> {
    let mut taken = BTreeMap::new();
    let mut next: Vec<(&str, Option<&str>)> = unit.coupled.iter().map(|name| (name.as_str(), None)).collect();
    while let Some((name, way)) = next.pop() {
        if taken.contains_key(name) {
            continue;
        }
        taken.insert(name, way);
        next.extend(unit.beyond.get(name).into_iter().flatten().map(|further| (further.as_str(), Some(name))));
    }
    taken
}

fn recorded(facts: &Facts) -> Recorded {
    let running = facts.container.as_ref().filter(|_| facts.role == Role::Service);
    Recorded {
        name: facts.name.clone(),
        role: facts.role,
        local: facts.local.clone(),
        was: was(facts),
        enablement: facts.unit.enablement.clone(),
        own_healthcheck: facts.unit.command.iter().any(|word| word.starts_with("--health-cmd")),
        container: running.map(|container| container.id.clone()),
        image: running.map(|container| container.image.clone()).or_else(|| facts.named.clone()),
        revoked: false,
    }
}

fn was(facts: &Facts) -> Was {
    let container = facts.container.as_ref();
    if facts.role == Role::OneShot {
        return if facts.named.is_some() { Was::Stopped } else { Was::Absent };
    }
    let has_image = container.is_some() || facts.named.is_some();
    match (facts.unit.active.as_str(), container) {
        _ if !has_image => Was::Absent,
        ("inactive" | "deactivating", _) => Was::Stopped,
        ("active" | "activating" | "reloading", Some(container))
            if container.running && container.health != HealthState::Unhealthy && facts.unit.sub != "auto-restart" =>
        {
            Was::Running
        }
        _ => Was::Failing,
    }
}

/// With one name for all services there is one image to go back to: that of those that run.
fn share(services: &mut [Recorded]) -> Result<(), Failure> {
    let running: BTreeSet<&ImageId> =
        services.iter().filter(|s| s.container.is_some()).filter_map(|s| s.image.as_ref()).collect();
    if running.len() > 1 {
        return Err(Failure::new(
            "services-differ",
            "the services share one local name, but run different images: there is no one image to go back to",
        )
        .hint("restart them all once, or give each a name of its own with `local-image`"));
    }
    let Some(one) = running.into_iter().next().cloned() else { return Ok(()) };
    for service in services {
        if service.image.is_none() && service.was == Was::Absent {
            service.was = Was::Stopped;
        }
        service.image = Some(one.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
