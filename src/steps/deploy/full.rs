//! The full form: one request file, a log that is followed, and an answer of its own.

use std::time::Duration;

use jiff::{Timestamp, Unit};
use tagship_core::handoff::dir::{ReadError, Stamp};
use tagship_core::handoff::fields::BootId;
use tagship_core::handoff::follow::Follower;
use tagship_core::handoff::log::LogLine;
use tagship_core::handoff::names::RequestId;
use tagship_core::handoff::request::{Received, Request};
use tagship_core::handoff::status::{self, Status};
use tagship_core::handoff::watch::Watch;
use tokio::time::Instant;

use super::{DeployError, Needs, Patience, Stop, Verdict};
use crate::log::Log;

/// Added to the budget, for the clocks of host and runner may differ a little.
const LEEWAY: Duration = Duration::from_secs(60);

/// How often the log is looked at before anything else is: 64 KiB at a time, so many make the 8 MiB that are shown of it.
const LOOKS: usize = 8 * 1024 / 64;

pub(super) async fn run(
    needs: &Needs<'_>,
    patience: Patience,
    stop: &mut Stop,
    log: &Log,
) -> Result<Verdict, DeployError> {
    let Some(host) = &needs.place.host else {
        return Err(DeployError::NoCompanion(needs.place.dir.path().to_owned()));
    };
    let id = RequestId::generate();
    // A deploy that is under way when ours comes may take the whole budget before ours begins.
    let wait = Duration::from_secs(host.budget_seconds).min(needs.timeout.unwrap_or(Duration::MAX));
    let bytes = request(needs, id, host.boot.clone(), latest_start(Timestamp::now(), wait))?;
    let mut watch = Watch::new(&needs.place.dir);
    let put = needs.place.dir.put(&id.request_name(), &bytes).map_err(DeployError::Directory)?;
    log.say(&format!("asked the host for {}@{} as {} (request {id})", needs.image, needs.digest, needs.tag));
    let now = Instant::now();
    let follower = Follower::new(id, needs.place.owners.clone());
    let mut waiting =
        Waiting { needs, patience, log, id, put, follower, asked: now, claimed: None, alive: now, unheard: None };
    loop {
        let more = waiting.listen()?;
        if let Some(status) = waiting.answer()? {
            // The host's last words come before its answer.
            waiting.listen()?;
            return Ok(Verdict::of(status));
        }
        let deadline = waiting.deadline();
        tokio::select! {
            () = stop.asked() => {
                let claimed = !waiting.withdraw()?;
                return Err(DeployError::Interrupted { claimed });
            }
            () = tokio::task::yield_now(), if more => {}
            () = watch.changed(|name| waiting.matters(name)), if !more => {}
            () = tokio::time::sleep_until(deadline) => waiting.too_late()?,
        }
    }
}

/// The request's bytes, signed if the key is at hand. Read back as the host will: what it would refuse is not sent.
fn request(needs: &Needs<'_>, id: RequestId, boot: BootId, not_after: Timestamp) -> Result<Vec<u8>, DeployError> {
    let request = Request {
        tag: needs.tag.clone(),
        id,
        image: needs.image.clone(),
        digest: *needs.digest,
        // Facts for people, of whatever runner this is: one that does not fit is left out.
        commit: needs.origin.commit.as_ref().and_then(|commit| commit.to_ascii_lowercase().parse().ok()),
        run: needs.origin.run.as_ref().and_then(|run| run.parse().ok()),
        not_after,
        boot,
        rollback: needs.rollback,
    };
    let bytes = match needs.key {
        Some(key) => request.encode_signed(|message| key.sign(message)).map_err(DeployError::Sign)?,
        None => request.encode(),
    };
    Received::parse(&bytes).map_err(DeployError::Request)?;
    Ok(bytes)
}

fn latest_start(now: Timestamp, wait: Duration) -> Timestamp {
    let latest = now.saturating_add(wait).and_then(|latest| latest.saturating_add(LEEWAY)).unwrap_or(Timestamp::MAX);
    // Whole seconds are easier to read.
    latest.round(Unit::Second).unwrap_or(latest)
}

/// A request that has no answer yet.
struct Waiting<'a> {
    needs: &'a Needs<'a>,
    patience: Patience,
    log: &'a Log,
    id: RequestId,
    put: Stamp,
    follower: Follower,
    asked: Instant,
    claimed: Option<Instant>,
    alive: Instant,
    unheard: Option<ReadError>,
}

impl Waiting<'_> {
    fn matters(&self, name: &[u8]) -> bool {
        name == self.id.log_name().as_bytes() || name == self.id.status_name().as_bytes()
    }

    /// Shows what the host wrote since the last time, a part of it at once. Whether there may be more: a log may be longer
    /// than anybody has the time to read, and grow as fast as it is read.
    fn listen(&mut self) -> Result<bool, DeployError> {
        for _ in 0..LOOKS {
            let seen = match self.follower.look(&self.needs.place.dir) {
                Ok(seen) => seen,
                Err(error) => {
                    // Something was planted at the log's name. The companion replaces it, or falls silent.
                    self.unheard = Some(error);
                    return Ok(false);
                }
            };
            if self.follower.exists() && self.claimed.is_none() {
                self.log.say("the host has claimed the request");
                self.claimed = Some(Instant::now());
            }
            if !seen.lines.is_empty() {
                self.alive = Instant::now();
                self.unheard = None;
            }
            for line in seen.lines.iter().filter(|line| !line.is_heartbeat()) {
                self.log.quote(&shown(line));
            }
            if !seen.more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn answer(&self) -> Result<Option<Status>, DeployError> {
        let name = self.id.status_name();
        // What is no file of the host is not its answer. It replaces whatever stands there.
        let Ok(Some(file)) = self.needs.place.dir.open_file(name.as_ref(), &self.needs.place.owners) else {
            return Ok(None);
        };
        let Ok(bytes) = file.read(status::LIMIT) else { return Ok(None) };
        let status = Status::parse(&bytes).map_err(DeployError::Answer)?;
        if status.request != Some(self.id) {
            return Err(DeployError::OtherAnswer("request"));
        }
        if status.outcome.is_ok() && status.digest.is_some_and(|digest| digest != *self.needs.digest) {
            return Err(DeployError::OtherAnswer("digest"));
        }
        Ok(Some(status))
    }

    /// When something has to be done although nothing happened.
    fn deadline(&self) -> Instant {
        let next = match self.claimed {
            None => self.asked + self.patience.claim,
            Some(claimed) => self.alive.max(claimed) + self.patience.silence,
        };
        self.needs.timeout.map_or(next, |timeout| next.min(self.asked + timeout))
    }

    /// Nothing happened: gives up, or finds out that the request was claimed after all.
    fn too_late(&mut self) -> Result<(), DeployError> {
        let timeout = self.needs.timeout.filter(|timeout| self.asked.elapsed() >= *timeout);
        if self.claimed.is_none() {
            if self.withdraw()? {
                return Err(match timeout {
                    Some(after) => DeployError::TimedOut { after, claimed: false },
                    None => DeployError::Unclaimed(self.patience.claim),
                });
            }
            // Gone before we could take it: it was claimed, without a log so far.
            self.claimed = Some(Instant::now());
        }
        match timeout {
            // An answer that came at the last moment counts.
            _ if self.answer()?.is_some() => Ok(()),
            Some(after) => Err(DeployError::TimedOut { after, claimed: true }),
            None if Instant::now() >= self.deadline() => {
                Err(DeployError::Silent { silence: self.patience.silence, reason: self.unheard.take() })
            }
            None => Ok(()),
        }
    }

    /// Takes the request back. `false` if it was claimed.
    fn withdraw(&self) -> Result<bool, DeployError> {
        if self.claimed.is_some() {
            return Ok(false);
        }
        self.needs.place.dir.withdraw(&self.id.request_name(), &self.put).map_err(DeployError::Waiting)
    }
}

fn shown(line: &LogLine) -> String {
    let what = if line.text.is_empty() { line.event.as_str() } else { line.text.as_str() };
    match &line.service {
        Some(service) => format!("{}: {service}: {what}", line.phase),
        None => format!("{}: {what}", line.phase),
    }
}
