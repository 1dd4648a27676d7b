//! The user's service manager over D-Bus: what a unit is, and restarts that end with their job's real result.
//!
//! No subprocess but the log reader's in `tail`. What a restart is for is decided elsewhere.

mod error;
mod manager;
mod tail;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use tokio::{sync::Mutex, time::sleep};
use zbus::{Connection, DynamicType, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant, message};

pub use error::ServicesError;

use crate::{
    config::ServiceName,
    deploy::{UnitFacts, Units},
};

use manager::{AWAY, MANAGER, MANAGER_NAME, MANAGER_PATH, PROPERTIES, ask, connect, is_away};

const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const NO_SUCH_JOB: &str = "org.freedesktop.systemd1.NoSuchJob";

/// The most units that are looked at for what a restart takes along. An app with its pods and targets has a dozen; what
/// is tied together with more than this is not an app.
const COUPLED: usize = 64;

/// The properties that name what a unit's restart restarts, or stops: whoever has it in `PartOf=`, `Requires=`, `BindsTo=`.
const TAKEN_ALONG: [&str; 3] = ["ConsistsOf", "RequiredBy", "BoundBy"];

/// How often a job's existence is checked beside waiting for its signal: a manager that re-executes in mid-job loses
/// its subscribers, and their signals.
const LOST_SIGNAL: Duration = Duration::from_secs(2);

/// The user's service manager.
#[derive(Debug, Default)]
pub struct UserManager {
    connection: Mutex<Option<Connection>>,
}

impl UserManager {
    /// A manager that is connected to when it is first asked.
    pub fn new() -> Self {
        Self::default()
    }

    /// The connection there is, or a new one: the bus may have been restarted since.
    async fn connection(&self) -> Result<Connection, ServicesError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = connect().await?;
        *kept = Some(connection.clone());
        Ok(connection)
    }

    /// Queues a job and waits until it has ended.
    async fn run_job(&self, method: &'static str, action: &'static str, unit: &str) -> Result<(), ServicesError> {
        let connection = self.connection().await?;
        let bus = Bus { connection: &connection, action, unit };
        let before = bus.states().await?;
        // Subscribed before the job exists, so that its end cannot be missed.
        let rule = MatchRule::builder().msg_type(message::Type::Signal).interface(MANAGER).member("JobRemoved");
        let rule = rule.build().map_err(|source| bus.failed(source))?;
        let mut signals =
            MessageStream::for_match_rule(rule, &connection, None).await.map_err(|source| bus.failed(source))?;
        // A service that has hit its start limit cannot be started at all, not even with the image that worked.
        let _ = bus.manager("ResetFailedUnit", &(unit,)).await;
        let Some(job) = bus.queue(method, &before).await? else { return bus.judge_unseen(&before).await };
        loop {
            match tokio::time::timeout(LOST_SIGNAL, signals.next()).await {
                Ok(Some(Ok(signal))) => {
                    let removed: Result<Removed, _> = signal.body().deserialize();
                    if let Some((.., result)) = removed.ok().filter(|removed| removed.1 == job) {
                        return bus.judge(&result).await;
                    }
                }
                Ok(Some(Err(_)) | None) => return Err(ServicesError::Lost { action, unit: unit.into() }),
                Err(_) if bus.exists(&job).await? => {}
                Err(_) => return bus.judge_unseen(&before).await,
            }
        }
    }
}

impl Units for UserManager {
    type Error = ServicesError;

    async fn inspect(&self, service: &ServiceName) -> Result<UnitFacts, ServicesError> {
        let (connection, unit) = (self.connection().await?, service.unit());
        let bus = Bus { connection: &connection, action: "inspect", unit: &unit };
        let path = bus.load().await?;
        let (unit, service) = (bus.properties(&path, UNIT).await?, bus.properties(&path, SERVICE).await?);
        let coupled = unit.taken_along();
        let beyond = bus.beyond(&coupled).await?;
        let command = service.command("ExecStart");
        let pod = if command.iter().any(|word| word == "--pod-id-file") { bus.pod(&unit).await? } else { Vec::new() };
        Ok(UnitFacts {
            load: unit.text("LoadState"),
            active: unit.text("ActiveState"),
            sub: unit.text("SubState"),
            enablement: unit.text("UnitFileState"),
            needs_reload: unit.get("NeedDaemonReload").unwrap_or_default(),
            job: unit.job().is_some(),
            command,
            pod,
            coupled,
            beyond,
        })
    }

    async fn restart(&self, service: &ServiceName) -> Result<(), ServicesError> {
        self.run_job("RestartUnit", "restart", &service.unit()).await
    }

    async fn stop(&self, service: &ServiceName) -> Result<(), ServicesError> {
        self.run_job("StopUnit", "stop", &service.unit()).await
    }

    async fn tail(&self, service: &ServiceName, since: Option<SystemTime>) -> Vec<String> {
        tail::read(service, since).await
    }
}

/// The signal's content: the job's number and object, its unit, its result.
type Removed = (u32, OwnedObjectPath, String, String);

/// systemd's `ExecStart` entry: path, words, ignore failure, four times, pid, code, status.
type Command = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

/// What tells one run of a unit from another, and how it went.
#[derive(Debug, PartialEq, Eq)]
struct States {
    active: String,
    invocation: Vec<u8>,
    result: String,
}

impl States {
    /// Whether a job whose end nobody saw has ended well, by what the unit was before it and is now.
    fn ended_well(&self, action: &str, now: &States) -> bool {
        let fresh = now.invocation != self.invocation;
        match action {
            "stop" => matches!(now.active.as_str(), "inactive" | "failed"),
            // A one-shot unit is inactive when it has ended.
            _ => fresh && (now.active == "active" || now.active == "inactive" && now.result == "success"),
        }
    }
}

/// Calls about one unit, for one purpose.
struct Bus<'a> {
    connection: &'a Connection,
    action: &'static str,
    unit: &'a str,
}

impl Bus<'_> {
    fn failed(&self, source: zbus::Error) -> ServicesError {
        ServicesError::of_call(self.action, self.unit, source)
    }

    async fn call<B: serde::Serialize + DynamicType>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Message, ServicesError> {
        ask(self.connection, path, interface, method, body).await.map_err(|source| self.failed(source))
    }

    async fn manager<B: serde::Serialize + DynamicType>(
        &self,
        method: &str,
        body: &B,
    ) -> Result<Message, ServicesError> {
        self.call(MANAGER_PATH, MANAGER, method, body).await
    }

    fn read<T>(&self, reply: &Message) -> Result<T, ServicesError>
    where
        T: for<'d> serde::Deserialize<'d> + zbus::zvariant::Type,
    {
        reply.body().deserialize().map_err(|source| self.failed(source))
    }

    /// Queues the job, and asks for that once: a one-shot unit must not do its work twice. A manager that goes away in the
    /// call may have taken it; the unit has a job then, or, in place of that, a new run: none is returned.
    async fn queue(&self, method: &str, before: &States) -> Result<Option<OwnedObjectPath>, ServicesError> {
        loop {
            let body = (self.unit, "replace");
            match self.connection.call_method(Some(MANAGER_NAME), MANAGER_PATH, Some(MANAGER), method, &body).await {
                Ok(reply) => return self.read(&reply).map(Some),
                Err(error) if is_away(&error) => sleep(AWAY).await,
                Err(error) => return Err(self.failed(error)),
            }
            let unit = self.properties(&self.load().await?, UNIT).await?;
            if let Some(job) = unit.job() {
                return Ok(Some(job));
            }
            if unit.invocation() != before.invocation {
                return Ok(None);
            }
        }
    }

    /// The unit's object; the manager reads the unit's file first if it has to.
    async fn load(&self) -> Result<OwnedObjectPath, ServicesError> {
        self.read(&self.manager("LoadUnit", &(self.unit,)).await?)
    }

    async fn properties(&self, path: &OwnedObjectPath, interface: &str) -> Result<Properties, ServicesError> {
        let reply = self.call(path.as_str(), PROPERTIES, "GetAll", &(interface,)).await?;
        Ok(Properties(self.read(&reply)?))
    }

    /// What these units take along, each for itself, and what those do. A unit that is not up takes nothing along.
    async fn beyond(&self, coupled: &[String]) -> Result<BTreeMap<String, Vec<String>>, ServicesError> {
        let mut beyond = BTreeMap::new();
        let mut next = coupled.to_vec();
        while let Some(name) = next.pop().filter(|_| beyond.len() < COUPLED) {
            if beyond.contains_key(&name) {
                continue;
            }
            let path = Bus { unit: &name, ..*self }.load().await?;
            let unit = self.properties(&path, UNIT).await?;
            let up = !matches!(unit.text("ActiveState").as_str(), "inactive" | "failed");
            let taken = if up { unit.taken_along() } else { Vec::new() };
            next.extend(taken.iter().cloned());
            beyond.insert(name, taken);
        }
        Ok(beyond)
    }

    /// The command that makes the pod which this unit, a container's, is bound to: Quadlet's pods are units of their own.
    async fn pod(&self, unit: &Properties) -> Result<Vec<String>, ServicesError> {
        for name in unit.get::<Vec<String>>("BindsTo").unwrap_or_default() {
            let path = Bus { unit: &name, ..*self }.load().await?;
            let command = match self.properties(&path, SERVICE).await {
                Ok(service) => service.command("ExecStartPre"),
                // It is no service: a container can be bound to a unit of any kind.
                Err(ServicesError::Call { .. }) => continue,
                Err(error) => return Err(error),
            };
            if command.iter().any(|word| word == "pod") {
                return Ok(command);
            }
        }
        Ok(Vec::new())
    }

    async fn states(&self) -> Result<States, ServicesError> {
        let path = self.load().await?;
        let (unit, service) = (self.properties(&path, UNIT).await?, self.properties(&path, SERVICE).await?);
        Ok(States { active: unit.text("ActiveState"), invocation: unit.invocation(), result: service.text("Result") })
    }

    async fn exists(&self, job: &OwnedObjectPath) -> Result<bool, ServicesError> {
        let id = job.rsplit('/').next().and_then(|id| id.parse::<u32>().ok()).unwrap_or_default();
        match self.manager("GetJob", &(id,)).await {
            Ok(_) => Ok(true),
            Err(ServicesError::Call { source: zbus::Error::MethodError(name, ..), .. }) if name == NO_SUCH_JOB => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn judge(&self, result: &str) -> Result<(), ServicesError> {
        if result == "done" {
            return Ok(());
        }
        let own = self.states().await.map(|states| states.result).unwrap_or_default();
        let detail = if own.is_empty() || own == "success" { String::new() } else { format!(", the service `{own}`") };
        Err(ServicesError::Job { action: self.action, unit: self.unit.into(), result: result.into(), detail })
    }

    /// The job is gone and its signal was never seen: only the unit itself can tell how it went.
    async fn judge_unseen(&self, before: &States) -> Result<(), ServicesError> {
        let well = before.ended_well(self.action, &self.states().await?);
        self.judge(if well { "done" } else { "unseen" }).await
    }
}

/// What `GetAll` tells; a property of an older or newer manager that is missing or of another type reads as nothing.
struct Properties(HashMap<String, OwnedVariant>);

impl Properties {
    fn get<T: TryFrom<OwnedVariant>>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.try_clone().ok()?.try_into().ok()
    }

    /// Of a service's properties: the words of its commands of this kind.
    fn command(&self, kind: &str) -> Vec<String> {
        self.get::<Vec<Command>>(kind).unwrap_or_default().into_iter().flat_map(|command| command.1).collect()
    }

    /// Of a unit's properties: what its restart takes along.
    fn taken_along(&self) -> Vec<String> {
        TAKEN_ALONG.iter().flat_map(|name| self.get::<Vec<String>>(name).unwrap_or_default()).collect()
    }

    /// Of a unit's properties: the job that it has, which has a number.
    fn job(&self) -> Option<OwnedObjectPath> {
        self.get::<(u32, OwnedObjectPath)>("Job").filter(|(number, _)| *number != 0).map(|(_, job)| job)
    }

    /// Of a unit's properties: which of its runs this is.
    fn invocation(&self) -> Vec<u8> {
        self.get("InvocationID").unwrap_or_default()
    }

    fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default()
    }
}

/// Whether the whole session ends, so that nothing will be restarted any more; also where nobody can say.
pub async fn is_ending() -> bool {
    let asked = async {
        let connection = connect().await.ok()?;
        let name = (MANAGER, "SystemState");
        let reply = ask(&connection, MANAGER_PATH, PROPERTIES, "Get", &name).await.ok()?;
        let state: OwnedVariant = reply.body().deserialize().ok()?;
        String::try_from(state).ok()
    };
    let state = tokio::time::timeout(LOST_SIGNAL, asked).await.ok().flatten();
    state.is_none_or(|state| state == "stopping")
}
