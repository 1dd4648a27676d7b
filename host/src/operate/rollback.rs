//! `tagship-host rollback`: which version is gone back to. How that is done is the same as for every deploy.

use jiff::Timestamp;
use tagship_core::{
    explain::{Explain, chain},
    handoff::status::Status,
    reference::Tag,
};

use super::table;
use crate::{
    answer::Progress,
    config::{App, Settings},
    desk::{self, Desk, Host, Order},
    history::{History, Proven},
    report::Told,
    trust::judge::Authority,
    verify::{self, Approved, Denied},
};

/// There is nothing to go back to.
#[derive(Debug, thiserror::Error)]
#[error("nothing older than what runs is remembered here")]
pub struct NothingEarlier {
    app: App,
}

impl Explain for NothingEarlier {
    fn kind(&self) -> &'static str {
        "nothing-earlier"
    }

    fn hint(&self) -> Option<String> {
        Some(format!(
            "name a version: one of those that `tagship-host rollback {} --list` shows, or any that is signed in the registry",
            self.app
        ))
    }
}

/// Goes back, and returns how that ended.
pub async fn run<H: Host>(
    desk: &mut Desk<'_, H>,
    settings: &Settings,
    tag: Option<&Tag>,
) -> Result<Status, NothingEarlier> {
    let settings = &settings.for_rollback();
    let told = Told::new(Progress::none());
    let started = Timestamp::now();
    let order = |asked| Order { started, ..Order::of_operator(asked) };
    if let Err(refusal) = desk.make_way(settings, &told).await {
        let known = [desk.history().trust.running(), desk.history().trust.mark()].into_iter().flatten().next();
        let Some(asked) = tag.or(known.map(|release| &release.tag)).cloned() else {
            // A verdict needs a tag, and there is none to be had.
            told.tell("verify", "refused", refusal.reason.as_str());
            return Err(NothingEarlier { app: settings.app.clone() });
        };
        return Ok(desk.refuse(&order(asked), refusal));
    }
    let known = match tag {
        Some(tag) => desk.history().of_tag(tag).cloned(),
        None => desk.history().previous().cloned(),
    };
    let (order, approved) = match (known, tag) {
        (Some(proven), _) => {
            told.tell("verify", "start", &format!("going back to {}, proven {:.0}", proven.release.tag, proven.at));
            (order(proven.release.tag.clone()), proven_again(desk, settings, &proven, &told, started).await)
        }
        (None, Some(tag)) => {
            told.tell("verify", "start", &format!("{tag} was never proven here; asking the registry"));
            (order(tag.clone()), from_registry(desk, settings, tag, started).await)
        }
        // The first version that was ever deployed here has only what ran before it behind it.
        (None, None) => {
            let (Some(earlier), Some(running)) = (desk.history().incumbent().cloned(), desk.history().trust.running())
            else {
                return Err(NothingEarlier { app: settings.app.clone() });
            };
            let running = running.tag.clone();
            let text = format!("going back to what ran before {running}, which was never proven here");
            told.tell("verify", "unverified", &text);
            return Ok(desk.put_back(settings, &order(running), &earlier, &told).await);
        }
    };
    Ok(match approved {
        Ok(approved) => {
            // It binds no operator, who should know all the same.
            if let Some(rejected) = desk.history().trust.rejection(approved.release.digest) {
                let text = format!("{} was rejected here at {:.0}: {}", rejected.tag, rejected.at, rejected.reason);
                told.tell("verify", "warning", &text);
            }
            desk.deploy(settings, &order, (approved, None), &told).await
        }
        Err(denied) => desk.refuse(&order, desk::refusal(&denied)),
    })
}

/// What can be gone back to, as a table.
pub fn list(history: &History) -> String {
    let running = history.trust.running().map(|release| release.digest);
    let mut rows = vec![["TAG", "DIGEST", "PROVEN", ""].map(str::to_owned)];
    for proven in history.proven() {
        let mut notes = Vec::new();
        if Some(proven.release.digest) == running {
            notes.push("runs now");
        }
        if history.trust.mark().is_some_and(|mark| mark.digest == proven.release.digest) {
            notes.push("highest");
        }
        if history.previous().is_some_and(|previous| previous == proven) {
            notes.push("the default");
        }
        rows.push([
            proven.release.tag.to_string(),
            proven.release.digest.short(),
            format!("{:.0}", proven.at),
            notes.join(", "),
        ]);
    }
    match rows.len() {
        1 => "Nothing was proven here yet.\n".to_owned(),
        _ => table::columns(&rows),
    }
}

/// Verifies anew what was proven here: from what was kept of it, or by a newer signature.
pub(super) async fn proven_again<H: Host>(
    desk: &Desk<'_, H>,
    settings: &Settings,
    proven: &Proven,
    told: &Told,
    now: Timestamp,
) -> Result<Approved, Denied> {
    let kept = (&proven.release, &proven.evidence);
    match verify::approve_proven(settings, &desk.history().trust, kept, now) {
        Err(denied @ (Denied::Check(_) | Denied::KeyRevoked { .. })) => {
            signed_anew(desk, settings, proven, denied, told, now).await
        }
        approved => approved,
    }
}

/// The signature that was kept does not count any more; its key may have been taken out of use. The same image may have
/// been signed again since then.
async fn signed_anew<H: Host>(
    desk: &Desk<'_, H>,
    settings: &Settings,
    proven: &Proven,
    denied: Denied,
    told: &Told,
    now: Timestamp,
) -> Result<Approved, Denied> {
    told.tell("verify", "again", &format!("{}; asking the registry for another signature", chain(&denied)));
    let approved = match desk.host().registry(settings).await {
        Ok(registry) => {
            verify::approve_signed_anew(settings, &desk.history().trust, &registry, &proven.release, now).await
        }
        Err(error) => Err(error),
    };
    match approved {
        // What is wrong with the one that was proven says more.
        Err(error) if !matches!(error, Denied::Refusal(_)) => {
            told.tell("verify", "again", &chain(&error));
            Err(denied)
        }
        approved => approved,
    }
}

/// Verifies what was never proven here, by the registry's word for its tag and its signatures.
pub(super) async fn from_registry<H: Host>(
    desk: &Desk<'_, H>,
    settings: &Settings,
    tag: &Tag,
    now: Timestamp,
) -> Result<Approved, Denied> {
    let registry = desk.host().registry(settings).await?;
    verify::approve_tag(settings, &desk.history().trust, &registry, (tag, Authority::Rollback), now).await
}
