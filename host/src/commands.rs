//! From a parsed command line to a finished command: takes the lock, and makes the adapters of whatever deploys. `guard` and
//! `policy`, which deploy nothing, ask engine and Podman themselves.

mod error;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use bollard::Docker;
use tagship_core::{
    engine,
    handoff::{dir::Dir, status::Status},
};

pub use error::Error;

use crate::{
    answer,
    cli::{Cli, Command, Deploying},
    config::{App, ConfigError, Places, ServiceName, Settings},
    deploy::{Failure, ImageId},
    deploy_command::{self, Configuration},
    desk::{Adapters, AdaptersOf, Desk, Host},
    health::Engine,
    history::{History, Marked, Verdict},
    images::LocalStore,
    journal::Journal,
    journald,
    operate::{
        guard, history, mark,
        policy::{self, ContainersPlaces},
        recover, retry, rollback, status,
    },
    report::{self, Urgency},
    requests::Requests,
    services::{self, UserManager},
    state_dir::{Lock, StateDir, StateError},
    stop::Stop,
    trace::{Category, Trace, Traced},
    verify::{Denied, Remote},
};

/// Does what the command line says. The exit code is for what was done; what could not be done is an error.
pub async fn run(cli: Cli) -> Result<ExitCode, Error> {
    let host = |deploying: Deploying| RealHost::new(Trace::to(deploying.trace));
    let places = Places::of_user()?;
    match cli.command {
        Command::Deploy { app, retry: None, deploying } => deploy(&host(deploying), &app, &places).await,
        Command::Deploy { app, retry: Some(tag), deploying } => {
            operate(&host(deploying), &app, &places, async |desk, settings| {
                Ok(done(&retry::run(desk, settings, &tag).await))
            })
            .await
        }
        Command::Recover { app } => recover(&app).await,
        Command::Guard { app, service } => guard(&app, &service, &places).await,
        Command::Mark { app, set: None } => {
            let settings = places.load(&app)?;
            report::output(&mark::show(&History::open(&StateDir::open(&app)?)?, &settings))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Mark { app, set: Some(tag) } => {
            operate(&host(Deploying::default()), &app, &places, async |desk, settings| {
                let marked = mark::set(desk, settings, &tag).await?;
                if marked.is_none() {
                    report::line(Urgency::Notice, &format!("{app}: {tag} is the highest version already"));
                }
                Ok(ExitCode::SUCCESS)
            })
            .await
        }
        Command::Rollback { app, list: true, .. } => {
            places.load(&app)?;
            report::output(&rollback::list(&History::open(&StateDir::open(&app)?)?))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Rollback { app, tag, deploying, .. } => {
            let tag = tag.as_ref();
            operate(&host(deploying), &app, &places, async |desk, settings| {
                Ok(done(&rollback::run(desk, settings, tag).await?))
            })
            .await
        }
        Command::Policy { app, check, write, no_check } => {
            let settings = places.load(&app)?;
            let history = History::open(&StateDir::open(&app)?)?;
            let containers = ContainersPlaces::of_user(places.home.clone());
            let wanted = policy::Wanted { write, check: check || (write && !no_check) };
            policy::run(&settings, &history, &containers, wanted).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::History { app, json } => {
            places.load(&app)?;
            let state = StateDir::open(&app)?;
            // The journal first: what ends meanwhile is in the file by the time that is read, and is no difference there.
            let told = journald::verdicts(&app).await?;
            let (verdicts, damaged, is_cut) = History::verdicts(&state, journald::ENTRIES)?;
            let past = history::Past::new(verdicts, damaged, is_cut, &told);
            report::output(&match json {
                true => format!("{}\n", serde_json::to_string_pretty(&past).map_err(Error::Json)?),
                false => past.render(),
            })?;
            let urgency = if past.agrees() { Urgency::Notice } else { Urgency::Warning };
            past.remarks().iter().for_each(|remark| report::line(urgency, remark));
            Ok(if past.agrees() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Command::Status { app, json } => {
            let settings = places.load(&app)?;
            let state = StateDir::open(&app)?;
            let at_work = (state.is_locked()?, &Journal::open(state.clone()));
            let (history, requests) = (History::open(&state)?, Requests::open(state)?);
            let host = host(Deploying::default());
            let overview = status::look(&host, &settings, &history, &requests, at_work).await?;
            report::output(&match json {
                true => format!("{}\n", serde_json::to_string_pretty(&overview).map_err(Error::Json)?),
                false => overview.render(report::colours()),
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn deploy(host: &RealHost, app: &App, places: &Places) -> Result<ExitCode, Error> {
    let load = || places.load(app);
    let configuration = Configuration { load: &load, fallback: places.handoff(app) };
    let budget = match load() {
        Ok(settings) => settings.budget,
        // A name that nobody ever configured leaves nothing behind.
        Err(error @ ConfigError::Missing { .. }) if !configuration.fallback.is_dir() => return Err(error.into()),
        Err(_) => deploy_command::DEFAULT_BUDGET,
    };
    let state = StateDir::open(app)?;
    // For as long as another one may have the lock.
    host.stop.allow(budget);
    let _lock = lock(&state)?;
    host.heed_signals();
    let ran = tokio::select! {
        ran = deploy_command::run(host, app, &configuration, state) => ran,
        // What was not ended is still there for the next run.
        () = host.stop.at_once() => return Ok(ExitCode::SUCCESS),
    };
    host.write_trace(&format!("deploy {app}"));
    ran?;
    Ok(ExitCode::SUCCESS)
}

/// Has the operator's word done once all that was begun before has ended, by the keys and the floor of that moment.
async fn operate(
    host: &RealHost,
    app: &App,
    places: &Places,
    work: impl AsyncFnOnce(&mut Desk<'_, RealHost>, &Settings) -> Result<ExitCode, Error>,
) -> Result<ExitCode, Error> {
    // What is wrong with it is said before anything is waited for.
    places.load(app)?;
    let state = StateDir::open(app)?;
    let _lock = lock(&state)?;
    host.heed_signals();
    tokio::select! {
        code = operate_locked(host, (app, places), state, work) => code,
        () = host.stop.at_once() => Ok(ExitCode::from(1)),
    }
}

async fn operate_locked(
    host: &RealHost,
    (app, places): (&App, &Places),
    state: StateDir,
    work: impl AsyncFnOnce(&mut Desk<'_, RealHost>, &Settings) -> Result<ExitCode, Error>,
) -> Result<ExitCode, Error> {
    if Desk::open(app, state.clone(), host)?.has_left_over() {
        report::line(Urgency::Notice, "an earlier deploy was not ended; doing that first");
        let load = || places.load(app);
        let configuration = Configuration { load: &load, fallback: places.handoff(app) };
        deploy_command::run(host, app, &configuration, state.clone()).await?;
    }
    // Only now: whoever waited for another deploy may have waited for long, and a key may have been taken out since.
    let settings = &places.load(app)?;
    let mut desk = Desk::open(app, state, host)?;
    let code = work(&mut desk, settings).await?;
    desk.close();
    // Whoever reads the directory next is told what runs now. What was done stands, whether they can be or not.
    let announced = Dir::open(&settings.handoff)
        .and_then(|handoff| answer::announce(&handoff, settings, desk.history().trust.running()));
    if let Err(error) = announced {
        report::error(&error);
    }
    desk.tidy().await;
    host.write_trace(&format!("{app}, by the operator"));
    Ok(code)
}

async fn recover(app: &App) -> Result<ExitCode, Error> {
    let state = StateDir::open(app)?;
    let Some(_lock) = state.try_lock()? else {
        report::line(Urgency::Notice, "another tagship-host works for this app, and recovers it");
        return Ok(ExitCode::SUCCESS);
    };
    let journal = Journal::open(state)?;
    let Some(entry) = recover::left_over(&journal) else { return Ok(ExitCode::SUCCESS) };
    let store = async {
        let (docker, socket) = connect().await?;
        Ok(LocalStore::new(docker, socket, app))
    };
    let told = recover::run(store, entry).await;
    told.lines.iter().for_each(|(urgency, line)| report::line(*urgency, line));
    Ok(if told.all_back { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn guard(app: &App, service: &ServiceName, places: &Places) -> Result<ExitCode, Error> {
    report::speak_for(service);
    let units = places.units(app)?;
    let state = StateDir::open(app)?;
    let pass = guard::run((app, &units), service, &state, guard::ask).await?;
    if let Some((urgency, text)) = guard::remark(app, service, &pass, &state) {
        report::line(urgency, &text);
    }
    Ok(ExitCode::SUCCESS)
}

fn lock(state: &StateDir) -> Result<Lock, StateError> {
    if let Some(lock) = state.try_lock()? {
        return Ok(lock);
    }
    report::line(Urgency::Notice, "another tagship-host works for this app; waiting for it to end");
    state.lock()
}

async fn connect() -> Result<(Docker, PathBuf), Failure> {
    let failed = |error: engine::EngineError| Failure::of(&error);
    let socket = engine::locate().map_err(failed)?;
    let docker = engine::connect(Some(&socket)).await.map_err(failed)?;
    Ok((docker, socket))
}

fn done(status: &Status) -> ExitCode {
    if status.outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// The real host: the configured registry, the user's service manager, the user's engine.
struct RealHost {
    trace: Trace,
    /// Something was decided: there is a deploy to show in the trace.
    decided: AtomicBool,
    stop: Stop,
}

impl RealHost {
    fn new(trace: Trace) -> Self {
        Self { trace, decided: AtomicBool::new(false), stop: Stop::default() }
    }

    /// From here on a signal puts right what is under way. Before, nothing is, and nobody may have to wait for the lock.
    fn heed_signals(&self) {
        if let Err(error) = self.stop.heed(services::is_ending) {
            report::line(Urgency::Warning, &format!("warning: signals end the program at once: {error}"));
        }
    }

    /// Writes the trace of a run that had something to do. The others, one a minute, would only take its place.
    fn write_trace(&self, title: &str) {
        if !self.decided.load(Ordering::Relaxed) {
            return;
        }
        match self.trace.write(title) {
            Ok(None) => {}
            Ok(Some((file, sums))) => {
                let seconds = |micros: u64| format!("{}.{:03} s", micros / 1_000_000, micros / 1000 % 1000);
                let (whole, own) = (seconds(sums.whole), seconds(sums.own));
                let text = format!("the trace is in {}: {whole} in all, {own} of them tagship's own", file.display());
                report::line(Urgency::Notice, &text);
            }
            Err(error) => report::warning(&error),
        }
    }
}

impl Host for RealHost {
    type Registry = Traced<Remote>;
    type Units = Traced<UserManager>;
    type Store = Traced<LocalStore>;
    type Containers = Traced<Engine>;

    async fn registry(&self, settings: &Settings) -> Result<Self::Registry, Denied> {
        Ok(Traced::new(Remote::connect(settings).await?, &self.trace))
    }

    async fn adapters(&self, settings: &Settings) -> Result<AdaptersOf<Self>, Failure> {
        let connecting = self.trace.span(Category::Engine, || "connect".to_owned());
        let (docker, socket) = connect().await?;
        drop(connecting);
        Ok(Adapters {
            units: Traced::new(UserManager::new(), &self.trace),
            store: Traced::new(LocalStore::new(docker.clone(), socket.clone(), &settings.app), &self.trace),
            containers: Traced::new(Engine::new(docker, socket), &self.trace),
        })
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }

    fn verdict(&self, app: &App, verdict: &Verdict) {
        self.decided.store(true, Ordering::Relaxed);
        report::verdict(app, verdict);
    }

    fn marked(&self, app: &App, marked: &Marked) {
        report::marked(app, marked);
    }

    async fn tidy(
        &self,
        store: &Self::Store,
        settings: &Settings,
        running: &ImageId,
        dir: &StateDir,
    ) -> Result<usize, Failure> {
        let _span = self.trace.span(Category::Engine, || "remove old images".to_owned());
        let gone = store.inner().tidy(settings, running, || dir.others_at_work()).await;
        gone.map(|gone| gone.len()).map_err(|error| Failure::of(&error))
    }
}
