//! `tagship-host policy`: has `podman pull` itself enforce the app's signature, and proves that it does.
//!
//! What is decided is in the pure modules below; what Podman does with it in `check`. Nothing here decides whether an
//! image may be deployed: that is `verify`'s, with or without a policy.

mod attachments;
mod check;
mod document;
mod error;
mod files;
mod judge;
mod meaning;
mod plan;
mod podman;
mod requirement;
mod splice;
mod version;
mod write;

use crate::{
    config::Settings,
    history::History,
    report::{self, Urgency},
    verify::{self, Registry, Remote},
};

pub use attachments::Fault as AttachmentsFault;
pub use document::Fault as DocumentFault;
pub use error::PolicyError;
pub use files::ContainersPlaces;
pub use judge::Unproven;
pub use version::{Doubt, Version};

use check::Probe;
use plan::Plan;
use podman::Program;
use requirement::Requirement;

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Write the files.
    pub write: bool,
    /// Prove them by pulls.
    pub check: bool,
}

/// Does it.
pub async fn run(
    settings: &Settings,
    history: &History,
    places: &ContainersPlaces,
    wanted: Wanted,
) -> Result<(), PolicyError> {
    let requirement = Requirement::of(settings);
    let plan = Plan::of(&places.look()?, &requirement)?;
    if let Some(doubt) = verify::doubt(&settings.verify) {
        report::line(Urgency::Warning, &format!("warning: {doubt}"));
    }
    tell(&plan, wanted)?;
    let writes = wanted.write && !plan.is_none();
    if writes {
        // Before the long check.
        write::refuse_read_only(&plan)?;
    }
    let cleaned = match wanted.check {
        true => {
            let probe = probe(settings, history).await?;
            let podman = Program::prepare().await?;
            let proven = prove(&podman, (places, &plan), &probe, writes).await;
            let cleaned = podman.clean().await;
            if let Err(error) = proven {
                // What is left behind is the smaller of the two.
                cleaned.unwrap_or_else(|left| report::warning(&left));
                return Err(error);
            }
            cleaned
        }
        false if writes => {
            requirement.enforced_by(podman::version().await?)?;
            write::write(places, &plan).map(drop)?;
            Ok(())
        }
        false => {
            // What is only shown is copied by hand, and this Podman may be the one that refuses everything then. One that
            // does not answer changes nothing about what was shown.
            if let Some(doubt) = podman::version().await.ok().and_then(Doubt::of) {
                report::warning(&doubt);
            }
            Ok(())
        }
    };
    if writes {
        report::line(Urgency::Notice, &format!("wrote {}", plan.written()));
    } else if !wanted.check && !wanted.write && !plan.is_none() {
        report::line(Urgency::Notice, "nothing was written: --check tries it first, --write does both");
    }
    // The policy is as it should be, whatever is left behind.
    cleaned.unwrap_or_else(|left| report::warning(&left));
    Ok(())
}

async fn prove(
    podman: &Program,
    (places, plan): (&ContainersPlaces, &Plan),
    probe: &Probe,
    writes: bool,
) -> Result<(), PolicyError> {
    report::line(Urgency::Notice, &format!("this is Podman {}", podman.version));
    check::rehearse(podman, (places, plan), &podman.stage(), probe).await?;
    match writes {
        true => check::write(podman, (places, plan), probe).await,
        false => Ok(()),
    }
}

/// Shows the files where nothing else is asked for, the difference, and what it means. What is to be written must have
/// been there to be read, so nobody may have stopped reading.
fn tell(plan: &Plan, wanted: Wanted) -> Result<(), PolicyError> {
    if !wanted.write && !wanted.check {
        report::output(&plan.files())?;
    }
    let difference = match plan.is_none() {
        true => "nothing would change\n".to_owned(),
        false => plan.diff(report::colours()),
    };
    match wanted.write {
        true => report::shown(&difference)?,
        false => report::output(&difference)?,
    }
    for note in &plan.notes {
        report::line(Urgency::Notice, note);
    }
    for warning in &plan.warnings {
        report::line(Urgency::Warning, &format!("warning: {warning}"));
    }
    Ok(())
}

/// What runs here, else what the registry's moving tag names: it should be signed as the settings ask.
async fn probe(settings: &Settings, history: &History) -> Result<Probe, PolicyError> {
    if let Some(release) = history.trust.running() {
        return Ok(Probe::running(&settings.image, &release.digest, &release.tag));
    }
    let none = || PolicyError::NothingSigned { image: settings.image.clone() };
    let moving = settings.moving_tag.as_ref().ok_or_else(none)?;
    let registry = Remote::connect(settings).await.map_err(|denied| PolicyError::Registry(Box::new(denied)))?;
    let digest = registry.resolve(moving).await.map_err(|error| PolicyError::Registry(Box::new(error.into())))?;
    let digest = digest.ok_or_else(none)?;
    Ok(Probe::of(&settings.image, &digest, format!("what the registry's {moving} names")))
}
