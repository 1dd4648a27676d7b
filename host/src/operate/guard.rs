//! `tagship-host guard APP SERVICE`: whether a service may start the image that its local name stands for now.
//!
//! A unit calls this before it starts (`ExecStartPre=`). Whoever works in the same image store can move or remove the
//! name, and the unit would run whatever is there. So the image has to be one that the app's state names: what was proven
//! and runs, or what a deploy under way has put there or found there. Signatures are not looked at: what the state names
//! was verified, or recorded, when it came. So a key file that is missing, a registry that is down or a configuration
//! with a mistake elsewhere stops no service from starting.
//!
//! How the store is asked is `ask`'s, how a refusal reads `error`'s.

mod ask;
mod error;
#[cfg(test)]
mod tests;

use tagship_core::{handoff::status::Service, reference::Tag, text};

pub use self::{
    ask::{Silence, ask},
    error::GuardError,
};
use super::recover;
use crate::{
    config::{App, AppUnits, ServiceName},
    deploy::{self, ImageId, InFlight, LocalName, Phase, RecordedGoal, Role},
    history::History,
    journal::Journal,
    report::Urgency,
    state_dir::StateDir,
};

/// The service may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pass {
    /// The state names the image.
    Named,
    /// The state names none for this service.
    Unrecorded {
        /// Nothing was proven here yet: the first installation, or what ran before tagship came.
        first: bool,
    },
}

/// What the state names for a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The image, if there is one.
    pub image: Option<ImageId>,
    /// The version that it was proven as, if it was.
    pub version: Option<Tag>,
}

/// The unit that is about to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Whose it is.
    pub app: App,
    /// Which.
    pub service: ServiceName,
    /// What it is in a deploy.
    pub role: Role,
    /// The local name that it runs.
    pub name: LocalName,
}

/// Decides whether a service may start. `ask` says which image a local name stands for.
///
/// The order keeps this right beside a deploy, whose lock is not waited for: the companion itself waits for the service.
/// A deploy notes in its journal what it is about to do, moves the name, and in the end notes the proof before it forgets
/// the journal. Looked at in the same order, each image that it put there is still in the journal or already proven.
pub async fn run(
    (app, units): (&App, &AppUnits),
    service: &ServiceName,
    state: &StateDir,
    ask: impl AsyncFnOnce(&LocalName) -> Result<Option<ImageId>, Silence>,
) -> Result<Pass, GuardError> {
    let unit = Unit::of(app, units, service)?;
    let named = ask(&unit.name).await;
    let unreadable = |source| GuardError::State { service: service.clone(), source };
    let journal = Journal::open(state.clone()).map_err(unreadable)?;
    let history = History::open(state).map_err(unreadable)?;
    let knows = |entry: &&InFlight| entry.services.iter().any(|recorded| recorded.name == *service);
    let in_flight = recover::left_over(&journal).filter(knows);
    let wanted = unit.wanted(&history, in_flight);
    if wanted.image.is_none() && in_flight.is_none() {
        return Ok(Pass::Unrecorded { first: history.trust.mark().is_none() });
    }
    // An engine that does not answer is no leave: see `ask`, which has tried all that the unit itself could.
    let named = named.map_err(|source| GuardError::Silent { service: service.clone(), source })?;
    let Some(image) = named else {
        // One that was left with nothing to go back to.
        let is_down = |end: &Service| end.name.as_str() == service.as_str() && end.is_down();
        let left_down = history.last().is_some_and(|last| last.status.services.iter().any(is_down));
        return Err(GuardError::Gone { unit: Box::new(unit), wanted, left_down });
    };
    if wanted.image.as_ref() == Some(&image) || unit.was_proven(&history, &image) {
        return Ok(Pass::Named);
    }
    let may = match in_flight.map_or(Standing::Foreign, |entry| unit.standing(entry, &history, &image)) {
        Standing::Foreign => return Err(GuardError::Foreign { unit: Box::new(unit), image, wanted }),
        Standing::Kept => true,
        Standing::Unproven => false,
        Standing::UnderProof => state.is_locked().map_err(unreadable)?,
    };
    if may { Ok(Pass::Named) } else { Err(GuardError::Unproven { unit: Box::new(unit), image }) }
}

/// What is to be said about a service that may start: nothing where everything is as it should be.
pub fn remark(app: &App, service: &ServiceName, pass: &Pass, state: &StateDir) -> Option<(Urgency, String)> {
    let place = text::escape(&state.file("").display().to_string());
    match pass {
        Pass::Named => None,
        Pass::Unrecorded { first: true } => Some((
            Urgency::Notice,
            format!("{app}: nothing was proven here yet, as far as {place} says: {service} starts unchecked"),
        )),
        Pass::Unrecorded { first: false } => Some((
            Urgency::Warning,
            format!(
                "warning: {place} does not say what {service} runs, so it starts unchecked; the next good deploy of \
                 {app} mends that"
            ),
        )),
    }
}

/// How an image that is not the proven one stands to the deploy under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The deploy does not know it.
    Foreign,
    /// It ran before the deploy, and may have to be gone back to; or it is proven, and that is not noted elsewhere yet.
    Kept,
    /// It is the new one, and it is this service's turn: good for as long as somebody is there to watch over it.
    UnderProof,
    /// It is the new one, and nobody has found it good for this service, or it is on the way out.
    Unproven,
}

impl Unit {
    fn of(app: &App, units: &AppUnits, service: &ServiceName) -> Result<Self, GuardError> {
        let role = match () {
            () if units.services.contains(service) => Role::Service,
            () if units.before.contains(service) => Role::OneShot,
            () => {
                let known = units.services.iter().chain(&units.before).cloned().collect();
                return Err(GuardError::NoSuchUnit { app: app.clone(), service: service.clone(), known });
            }
        };
        let shared = (&units.image, units.moving_tag.as_ref());
        let name = LocalName::of(service, units.local_image.as_ref(), shared)
            .ok_or_else(|| GuardError::Nameless { service: service.clone() })?;
        Ok(Self { app: app.clone(), service: service.clone(), role, name })
    }

    /// What the service runs, or, where nothing was proven yet, what the deploy under way has found.
    fn wanted(&self, history: &History, in_flight: Option<&InFlight>) -> Wanted {
        let found = || in_flight?.restorable(&self.service).map(|restorable| restorable.image().clone());
        let image = history.image_of(&self.service).or_else(found);
        let known = |image: &ImageId| history.proven().iter().find(|proven| proven.image == *image);
        let version = image.as_ref().and_then(known).map(|proven| proven.release.tag.clone());
        Wanted { image, version }
    }

    /// A one-shot unit's name stays where it is on the way back by the operator: it may stand for any proven version.
    fn was_proven(&self, history: &History, image: &ImageId) -> bool {
        self.role == Role::OneShot && history.proven().iter().any(|proven| proven.image == *image)
    }

    fn standing(&self, entry: &InFlight, history: &History, image: &ImageId) -> Standing {
        let is = |other: Option<&ImageId>| other == Some(image);
        if is(entry.restorable(&self.service).as_ref().map(|found| found.image())) {
            return Standing::Kept;
        }
        let new = match entry.goal {
            RecordedGoal::Deploy { .. } => entry.image.clone(),
            RecordedGoal::PutBack => {
                history.incumbent().and_then(|found| Some(found.restorable(&self.service)?.image().clone()))
            }
        };
        if !is(new.as_ref()) {
            return Standing::Foreign;
        }
        match entry.phase {
            Phase::Proven => Standing::Kept,
            Phase::Preparing | Phase::Replacing(_) if deploy::has_moved(entry, &self.name) => Standing::UnderProof,
            Phase::Pulling | Phase::Preparing | Phase::Replacing(_) | Phase::RollingBack { .. } => Standing::Unproven,
        }
    }
}
