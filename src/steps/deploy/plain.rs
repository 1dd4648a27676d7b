//! The plain form: one trigger file and one status file, as shell scripts use them.
//!
//! All requesters share the two names, so an answer counts as ours only if it names our tag. Whoever asks for the same
//! tag at the same time gets the same answer.

use tagship_core::handoff::dir::Opened;
use tagship_core::handoff::names;
use tagship_core::handoff::status::{self, FirstLine, Outcome, Status};
use tagship_core::handoff::watch::Watch;
use tagship_core::sys;
use tokio::time::Instant;

use super::{DeployError, Needs, Patience, Stop, Verdict};
use crate::log::Log;

pub(super) async fn run(
    needs: &Needs<'_>,
    patience: Patience,
    stop: &mut Stop,
    log: &Log,
) -> Result<Verdict, DeployError> {
    let dir = &needs.place.dir;
    let timeout = needs.timeout.unwrap_or(patience.plain);
    let mut watch = Watch::new(dir);
    // An answer that is there already is somebody else's, or to an earlier request.
    dir.discard(names::STATUS.as_ref()).map_err(DeployError::Directory)?;
    let put = dir.replace(names::TRIGGER, format!("{}\n", needs.tag).as_bytes()).map_err(DeployError::Directory)?;
    log.say(&format!("asked the host for {}", needs.tag));
    let asked = Instant::now();
    let deadline = asked + timeout;
    let mut claimed = false;
    let mut remarked = false;
    loop {
        if !claimed && !dir.holds(names::TRIGGER.as_ref(), &put) {
            claimed = true;
            log.say("the host has taken the request");
        }
        if let Some(status) = answer(needs) {
            return Ok(Verdict::of(status));
        }
        let remark = if !claimed && !remarked { asked + patience.claim } else { deadline };
        tokio::select! {
            () = stop.asked() => {
                let claimed = !dir.withdraw(names::TRIGGER, &put).map_err(DeployError::Waiting)?;
                return Err(DeployError::Interrupted { claimed });
            }
            () = watch.changed(|name| name == names::STATUS.as_bytes() || name == names::TRIGGER.as_bytes()) => {}
            () = tokio::time::sleep_until(remark.min(deadline)) => {
                if Instant::now() >= deadline {
                    let claimed = !dir.withdraw(names::TRIGGER, &put).map_err(DeployError::Waiting)?;
                    return Err(DeployError::TimedOut { after: timeout, claimed });
                }
                // A host that deploys something else takes it later. Whether there is one cannot be seen.
                remarked = true;
                let (waited, left) = (patience.claim.as_secs(), (deadline - Instant::now()).as_secs());
                log.warn(&format!(
                    "nobody has taken the request for {waited} s: the host may be busy, or its path unit dead; \
                     waiting for up to {left} s more"
                ));
            }
        }
    }
}

/// The answer to our tag, once it is whole.
fn answer(needs: &Needs<'_>) -> Option<Status> {
    // What is no file of the host is not its answer.
    let file = needs.place.dir.open_file(names::STATUS.as_ref(), &needs.place.owners).ok()??;
    let bytes = file.read(status::LIMIT).ok()?;
    if !is_whole(&bytes, &file) {
        return None;
    }
    let first = FirstLine::parse(&bytes).ok().filter(|first| first.tag == *needs.tag)?;
    // A companion writes all of an answer, a script its first line, which decides.
    Some(Status::parse(&bytes).unwrap_or_else(|_| {
        let (outcome, word) = if first.ok { (Outcome::Deployed, "ok") } else { (Outcome::Failed, "fail") };
        let reason = format!("the host's script answered {word}; what it did is in the host's own log");
        Status { tag: Some(first.tag), ..Status::new(outcome, "script", &reason) }
    }))
}

/// A script opens the file first and writes later: half a tag can look like another one.
fn is_whole(bytes: &[u8], file: &Opened) -> bool {
    bytes.contains(&b'\n') || sys::no_writer(&file.file).unwrap_or(false)
}
