//! `tagship-host deploy`: claims what waits, lets each be decided and deployed, answers, until nothing waits.
//!
//! Deciding is `verify`'s and `trust`'s, deploying `desk`'s; here is only the order of things: everything claimed ends
//! answered, also when the configuration cannot be read.

mod damaged;
mod error;

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use sd_notify::NotifyState;
use tagship_core::{
    explain::Explain,
    handoff::{
        dir::{Dir, DirError, Owners},
        status::{Outcome, Status},
    },
    text,
};
use tokio::sync::Mutex;

use crate::{
    answer::{self, Progress},
    config::{App, ConfigError, Settings},
    desk::{self, Desk, Host, Order},
    history::By,
    inbox::{Arrival, Inbox, Ledger, Rules},
    report::{self, Told, Urgency},
    requests::Requests,
    state_dir::StateDir,
    trust::TrustState,
    verify::{self, Denied},
};

pub use error::CommandError;

/// The budget by which requests are held while the configuration does not say one: the default.
pub(crate) const DEFAULT_BUDGET: Duration = Duration::from_secs(600);

/// Where the app's configuration comes from.
pub struct Configuration<'a> {
    /// Reads it, anew each time.
    pub load: &'a dyn Fn() -> Result<Settings, ConfigError>,
    /// The hand-off directory while it cannot be read.
    pub fallback: PathBuf,
}

/// Does everything that waits for this app. It does not matter whether anything does. The caller holds the app's lock.
pub async fn run<H: Host>(
    host: &H,
    app: &App,
    configuration: &Configuration<'_>,
    state: StateDir,
) -> Result<(), CommandError> {
    let loaded = (configuration.load)();
    let requests = match Requests::open(state.clone()) {
        Ok(requests) => requests,
        // Nothing can be claimed for good without it, and whoever asks is told so.
        Err(error) => {
            damaged::without_requests(&loaded, configuration, state, &error).await?;
            return Err(error.into());
        }
    };
    let handoff = open_handoff(&loaded, &configuration.fallback, &requests)?;
    let Some(handoff) = handoff else { return loaded.map(|_| ()).map_err(CommandError::Config) };
    let rules = rules(&loaded)?;
    let budget = rules.budget;
    let inbox = Inbox::open(Dir::open(handoff.path())?, rules, requests).await?;
    let mut desk = match Desk::open(app, state.clone(), host) {
        Ok(desk) => desk,
        // Nothing can be decided without what is known here, and whoever asks is told so.
        Err(error) => {
            damaged::without_history(&inbox, state, &error).await;
            return Err(error.into());
        }
    };
    let round = Round { app, configuration, at_first: &loaded, inbox: &inbox, handoff: &handoff };
    // Requests are claimed, and their logs kept alive, for as long as anything is being done.
    host.stop().allow(budget);
    let mut answered = inbox.beside(round.end_interrupted(&mut desk)).await;
    let announced = round.announce(&desk, &loaded);
    let desk = Mutex::new((&mut desk, &mut answered));
    // What goes wrong with one request leaves nothing undone: it is said in the end.
    let mut worked = Ok(());
    loop {
        let round_worked = inbox.work(|arrival, progress| async {
            let (desk, answered) = &mut *desk.lock().await;
            **answered = true;
            round.decide(desk, arrival, progress).await
        });
        worked = worked.and(round_worked.await);
        let (desk, _) = &mut *desk.lock().await;
        desk.close();
        // What came meanwhile is claimed and deployed as if nothing had been left to do. Also what came while nothing was:
        // its file is gone, so nobody would start another run for it.
        if !inbox.beside(desk.tidy()).await && !inbox.is_waiting() {
            break;
        }
    }
    let (desk, _) = desk.into_inner();
    // Last, and only if there was nothing else to tell: no request waits for it.
    if let (Ok(settings), Ok(news), false) = (&loaded, &announced, answered)
        && (*news || report::is_watched())
    {
        round.introduce(desk, settings).await;
    }
    if let Err(error) = answer::sweep(&handoff, Timestamp::now()) {
        report::error(&error);
    }
    worked?;
    ended(loaded, announced, answered)
}

/// How a run ends in which nothing went wrong with a request: what is missing is no success where nobody else is told.
fn ended(
    loaded: Result<Settings, ConfigError>,
    announced: Result<bool, DirError>,
    answered: bool,
) -> Result<(), CommandError> {
    match (loaded, announced) {
        (Err(error), _) if !answered => Err(error.into()),
        // Requesters are turned away by what is missing there, so this is no success.
        (_, Err(error)) if !answered => Err(error.into()),
        (_, Err(error)) => {
            report::error(&error);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn rules(loaded: &Result<Settings, ConfigError>) -> Result<Rules, CommandError> {
    let (owners, budget) = match loaded {
        Ok(settings) => (Owners::own_and(&settings.requesters), settings.budget),
        // Whose requests count is not known, but all of them can be told what is wrong.
        Err(_) => (Owners::Anyone, DEFAULT_BUDGET),
    };
    Rules::here(owners, budget).map_err(CommandError::Boot)
}

/// One run over everything that waits.
struct Round<'a> {
    app: &'a App,
    configuration: &'a Configuration<'a>,
    /// What the configuration was when the round began.
    at_first: &'a Result<Settings, ConfigError>,
    inbox: &'a Inbox,
    handoff: &'a Dir,
}

impl Round<'_> {
    /// Ends what an earlier run left in the middle, and answers whoever waits for it. Whether there was anybody.
    async fn end_interrupted<H: Host>(&self, desk: &mut Desk<'_, H>) -> bool {
        let waiting = self.inbox.interrupted();
        let progress = waiting.first().map_or_else(Progress::none, |arrival| self.inbox.progress(arrival));
        // As it is before what was interrupted gets its own: killed between verdict and answer, a run leaves one to tell.
        let untold = waiting.iter().find_map(|arrival| Some((arrival.id(), desk.verdict_of(arrival.id())?.clone())));
        // Nobody waits for it any more: that it would be ended later was the answer of a run that could not write so in the
        // journal.
        if let Some(request) = desk.unended()
            && waiting.iter().all(|arrival| arrival.id() != request)
        {
            desk.postpone(Some(request));
        }
        let recovered = match (desk.conclude_ended(), self.at_first) {
            (Some(ended), _) => Ok(Some(ended)),
            (None, Ok(settings)) => desk.recover(settings, &Told::new(progress)).await.map_err(|failure| {
                Status::new(Outcome::Interrupted, &failure.kind, &format!("{}; it will be ended later", failure.reason))
            }),
            (None, Err(_)) if !desk.has_left_over() => Ok(None),
            (None, Err(error)) => Err(damaged::ended_later(error)),
        };
        let in_flight = desk.in_flight();
        let mut told = true;
        for arrival in &waiting {
            let order = order(arrival);
            let status = match (&untold, &recovered) {
                (Some((request, status)), _) if *request == arrival.id() => status.clone(),
                (_, Ok(Some((request, status)))) if *request == Some(arrival.id()) => status.clone(),
                (_, Err(status)) if in_flight == order.request => {
                    let status = desk.refuse(&order, status.clone());
                    // Before it is told, or a run that is killed now would leave a second verdict to the next one.
                    desk.postpone(order.request);
                    status
                }
                // It was not this one's deploy, or was none yet.
                (_, Ok(_) | Err(_)) => {
                    let status = desk.untouched(&order, None);
                    desk.refuse(&order, status)
                }
            };
            // One that cannot be written now is written later, and keeps no other one back.
            if let Err(error) = self.inbox.answer(arrival, status) {
                report::error(&error);
                told = false;
            }
        }
        match recovered {
            Ok(Some(_)) if told => desk.close(),
            Ok(_) => {}
            Err(status) => report::line(Urgency::Error, status.reason.as_str()),
        }
        !waiting.is_empty()
    }

    /// Decides on one request, does what was decided, and tells what runs now.
    async fn decide<H: Host>(&self, desk: &mut Desk<'_, H>, arrival: Arrival, progress: Progress) -> Status {
        let order = order(&arrival);
        let told = Told::new(progress);
        // The request before this one has its answer by now.
        desk.close();
        // A word for `systemctl status`; without a service manager nobody asks.
        let _ = sd_notify::notify(&[NotifyState::Status(&format!("deploying {}", order.asked))]);
        told.tell("claim", "claimed", &format!("{}: {} was asked for", self.app, order.asked));
        // Read anew for each request, after its claim: it may have been broken since the last one. If it was mended,
        // that counts from the next run on: this one has claimed without knowing whose requests are accepted.
        let read = self.at_first.is_ok().then(|| (self.configuration.load)());
        let settings = read.as_ref().unwrap_or(self.at_first);
        let status = match settings {
            Ok(settings) => self.deploy(desk, settings, (&arrival, &order), &told).await,
            Err(error) => desk.refuse(&order, told_no(&told, "config", error)),
        };
        if let Err(error) = self.announce(desk, settings) {
            report::error(&error);
        }
        status
    }

    async fn deploy<H: Host>(
        &self,
        desk: &mut Desk<'_, H>,
        settings: &Settings,
        (arrival, order): (&Arrival, &Order),
        told: &Told,
    ) -> Status {
        let stop = desk.host().stop();
        stop.allow(settings.budget);
        if verify::permits_rollback(settings, arrival.asked())
            && let Err(error) = self.inbox.spend(arrival)
        {
            return desk.refuse(order, told_no(told, "claim", &error));
        }
        if let Err(refusal) = desk.make_way(settings, told).await {
            return desk.refuse(order, refusal);
        }
        // What had to be ended first has taken nothing from this one's time.
        stop.allow(settings.budget);
        let approved = async {
            let registry = desk.host().registry(settings).await?;
            let approve = async |trust: &TrustState| {
                let approved = verify::approve(settings, trust, &registry, arrival.asked(), order.started).await?;
                told.tell("verify", "verified", &proof(&approved));
                Ok::<_, Denied>(approved)
            };
            let mut approved = approve(&desk.history().trust).await?;
            // Only for what counts: to find out what runs costs the engine time, which a refusal must not depend on.
            match desk.reconsider(settings, told).await {
                Ok(false) => {}
                Ok(true) => approved = approve(&desk.history().trust).await?,
                Err(refusal) => return Ok(Err(refusal)),
            }
            Ok::<_, Denied>(Ok((approved, registry)))
        };
        // Whoever waited for another one's deploy is told at once, too, that there will be none.
        let approved = tokio::select! {
            biased;
            () = stop.asked() => None,
            approved = approved => Some(approved),
        };
        match approved {
            None => desk.refuse(order, desk.untouched(order, None)),
            Some(Err(denied)) => desk.refuse(order, told_no(told, "verify", &denied)),
            Some(Ok(Err(refusal))) => desk.refuse(order, refusal),
            Some(Ok(Ok((approved, registry)))) => {
                let back = arrival.asked().is_rollback().then(|| settings.for_rollback());
                desk.deploy(back.as_ref().unwrap_or(settings), order, (approved, Some(&registry)), told).await
            }
        }
    }

    /// Tells whoever set it up that it works, or what is still missing.
    async fn introduce<H: Host>(&self, desk: &Desk<'_, H>, settings: &Settings) {
        let count = match settings.all_services().count() {
            1 => "1 service".to_owned(),
            count => format!("{count} services"),
        };
        let (app, image, place) = (self.app, &settings.image, settings.handoff.display());
        let obstacles = desk.obstacles(settings).await;
        let word = if obstacles.is_empty() { "ready" } else { "not ready yet" };
        report::line(Urgency::Notice, &format!("{app}: {word}: {image}, {count}, hand-off in {place}"));
        for obstacle in obstacles {
            report::line(Urgency::Warning, &format!("{app}: {obstacle}"));
        }
    }

    fn announce<H: Host>(
        &self,
        desk: &Desk<'_, H>,
        settings: &Result<Settings, ConfigError>,
    ) -> Result<bool, DirError> {
        let Ok(settings) = settings else { return Ok(false) };
        answer::announce(self.handoff, settings, desk.history().trust.running())
    }
}

fn order(arrival: &Arrival) -> Order {
    Order { request: Some(arrival.id()), by: By::Request, asked: arrival.tag().clone(), started: Timestamp::now() }
}

fn told_no(told: &Told, phase: &str, error: &dyn Explain) -> Status {
    let status = desk::refusal(error);
    told.tell_requester(phase, "refused", status.reason.as_str());
    status
}

fn proof(approved: &verify::Approved) -> String {
    let verify::Approved { release, verified } = approved;
    let logged = verified.logged().map(|logged| format!(", log entry {}", logged.index())).unwrap_or_default();
    let key = text::escape(verified.key_name());
    format!("{} is {}, signed with {key}{logged}", release.tag, release.digest)
}

/// Opens the hand-off directory; makes it if the configuration is good and it is not there. None if the configuration
/// is not, and there is no directory either, nor one that an open request came from: nobody can be waiting.
///
/// Of several that open requests came from, the first that is there: this is where new requests are claimed from, for
/// which one is enough while nothing can be deployed. The others are answered all the same, each in its own directory,
/// as the inbox takes up every open request.
fn open_handoff(
    settings: &Result<Settings, ConfigError>,
    otherwise: &Path,
    requests: &dyn Ledger,
) -> Result<Option<Dir>, CommandError> {
    match settings {
        Ok(settings) => {
            let path = &settings.handoff;
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|source| CommandError::Create { path: path.clone(), source })?;
            Ok(Some(Dir::open(path)?))
        }
        Err(_) if otherwise.is_dir() => Ok(Some(Dir::open(otherwise)?)),
        Err(_) => {
            let came_from = requests.open_entries()?.into_iter().filter_map(|entry| entry.handoff);
            Ok(came_from.filter(|path| path.is_dir()).map(|path| Dir::open(&path)).next().transpose()?)
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
