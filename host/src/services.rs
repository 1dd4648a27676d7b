//! The user's service manager over D-Bus: what a unit is, and restarts that end with their job's real result.
//!
//! No subprocess but the log reader's in `tail`. What a restart is for is decided elsewhere.

mod tail;

use std::{
    collections::HashMap,
    env, io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use tagship_core::explain::Explain;
use tokio::sync::Mutex;
use zbus::{
    Connection, DynamicType, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant, connection::Builder,
    message,
};

use crate::{
    config::ServiceName,
    deploy::{UnitFacts, Units},
};

const MANAGER_NAME: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// The longest wait for the manager's answer to a call; jobs have no such limit, the deploy's budget bounds them.
const CALL: Duration = Duration::from_secs(25);

/// How often a job's existence is checked beside waiting for its signal: a manager that re-executes in mid-job loses
/// its subscribers, and their signals.
const LOST_SIGNAL: Duration = Duration::from_secs(2);

/// The user's service manager.
#[derive(Debug, Default)]
pub struct UserManager {
    connection: Mutex<Option<Connection>>,
    /// When each unit was last restarted here: its log is read from then on.
    restarted: std::sync::Mutex<HashMap<ServiceName, SystemTime>>,
}

/// What went wrong with the service manager.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// There is no bus to ask at.
    #[error("cannot reach the user's service manager at {address}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why not.
        source: zbus::Error,
    },
    /// The manager did not do what it was asked for.
    #[error("cannot {action} {unit}")]
    Call {
        /// What was asked.
        action: &'static str,
        /// Of which unit.
        unit: String,
        /// Why not.
        source: zbus::Error,
    },
    /// The job ended, but not well.
    #[error("{unit} did not {action}: systemd says `{result}`{detail}")]
    Job {
        /// What was asked.
        action: &'static str,
        /// Of which unit.
        unit: String,
        /// The job's result: `failed`, `canceled`, `timeout`, `dependency`…
        result: String,
        /// The service's own result, with a comma in front; empty if there is none.
        detail: String,
    },
    /// The connection ended while a job was under way.
    #[error("the connection to the service manager was lost while it was to {action} {unit}")]
    Lost {
        /// What was asked.
        action: &'static str,
        /// Of which unit.
        unit: String,
    },
}

impl Explain for ServicesError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "services-unreachable",
            Self::Call { .. } => "services-call",
            Self::Job { .. } => "service-start",
            Self::Lost { .. } => "services-lost",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => Some(
                "run it as the app's user in a user session: `loginctl enable-linger USER`, the package \
                 dbus-user-session, and XDG_RUNTIME_DIR set to /run/user/UID"
                    .into(),
            ),
            Self::Call { unit, .. } | Self::Job { unit, .. } => {
                Some(format!("`systemctl --user status {unit}` and `journalctl --user -u {unit}` say more"))
            }
            Self::Lost { .. } => None,
        }
    }
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
        let job: OwnedObjectPath = bus.read(&bus.manager(method, &(unit, "replace")).await?)?;
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
        let job: Option<(u32, OwnedObjectPath)> = unit.get("Job");
        Ok(UnitFacts {
            load: unit.text("LoadState"),
            active: unit.text("ActiveState"),
            sub: unit.text("SubState"),
            enablement: unit.text("UnitFileState"),
            needs_reload: unit.get("NeedDaemonReload").unwrap_or_default(),
            job: job.is_some_and(|(id, _)| id != 0),
            command: service
                .get::<Vec<Command>>("ExecStart")
                .unwrap_or_default()
                .into_iter()
                .flat_map(|c| c.1)
                .collect(),
            coupled: ["ConsistsOf", "RequiredBy", "BoundBy"]
                .iter()
                .flat_map(|name| unit.get::<Vec<String>>(name).unwrap_or_default())
                .collect(),
        })
    }

    async fn restart(&self, service: &ServiceName) -> Result<(), ServicesError> {
        let now = SystemTime::now();
        if let Ok(mut restarted) = self.restarted.lock() {
            restarted.insert(service.clone(), now);
        }
        self.run_job("RestartUnit", "restart", &service.unit()).await
    }

    async fn stop(&self, service: &ServiceName) -> Result<(), ServicesError> {
        self.run_job("StopUnit", "stop", &service.unit()).await
    }

    async fn tail(&self, service: &ServiceName) -> Vec<String> {
        let since = self.restarted.lock().ok().and_then(|restarted| restarted.get(service).copied());
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

/// Calls about one unit, for one purpose.
struct Bus<'a> {
    connection: &'a Connection,
    action: &'static str,
    unit: &'a str,
}

impl Bus<'_> {
    fn failed(&self, source: zbus::Error) -> ServicesError {
        ServicesError::Call { action: self.action, unit: self.unit.into(), source }
    }

    async fn call<B: serde::Serialize + DynamicType>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Message, ServicesError> {
        let called = self.connection.call_method(Some(MANAGER_NAME), path, Some(interface), method, body).await;
        called.map_err(|source| self.failed(source))
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

    /// The unit's object; the manager reads the unit's file first if it has to.
    async fn load(&self) -> Result<OwnedObjectPath, ServicesError> {
        self.read(&self.manager("LoadUnit", &(self.unit,)).await?)
    }

    async fn properties(&self, path: &OwnedObjectPath, interface: &str) -> Result<Properties, ServicesError> {
        let reply = self.call(path.as_str(), "org.freedesktop.DBus.Properties", "GetAll", &(interface,)).await?;
        Ok(Properties(self.read(&reply)?))
    }

    async fn states(&self) -> Result<States, ServicesError> {
        let path = self.load().await?;
        let (unit, service) = (self.properties(&path, UNIT).await?, self.properties(&path, SERVICE).await?);
        Ok(States {
            active: unit.text("ActiveState"),
            invocation: unit.get("InvocationID").unwrap_or_default(),
            result: service.text("Result"),
        })
    }

    async fn exists(&self, job: &OwnedObjectPath) -> Result<bool, ServicesError> {
        let id = job.rsplit('/').next().and_then(|id| id.parse::<u32>().ok()).unwrap_or_default();
        match self.manager("GetJob", &(id,)).await {
            Ok(_) => Ok(true),
            Err(ServicesError::Call { source: zbus::Error::MethodError(..) | zbus::Error::FDO(_), .. }) => Ok(false),
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
        let now = self.states().await?;
        let fresh = now.invocation != before.invocation;
        let well = match self.action {
            "stop" => matches!(now.active.as_str(), "inactive" | "failed"),
            _ => fresh && (now.active == "active" || now.active == "inactive" && now.result == "success"),
        };
        self.judge(if well { "done" } else { "unseen" }).await
    }
}

/// What `GetAll` tells; a property of an older or newer manager that is missing or of another type reads as nothing.
struct Properties(HashMap<String, OwnedVariant>);

impl Properties {
    fn get<T: TryFrom<OwnedVariant>>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.try_clone().ok()?.try_into().ok()
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
        let properties = Some("org.freedesktop.DBus.Properties");
        let reply = connection.call_method(Some(MANAGER_NAME), MANAGER_PATH, properties, "Get", &name).await.ok()?;
        let state: OwnedVariant = reply.body().deserialize().ok()?;
        String::try_from(state).ok()
    };
    let state = tokio::time::timeout(LOST_SIGNAL, asked).await.ok().flatten();
    state.is_none_or(|state| state == "stopping")
}

/// Connects to the session bus, where the manager is subscribed to: without a subscriber it sends no JobRemoved.
async fn connect() -> Result<Connection, ServicesError> {
    let address = env::var("DBUS_SESSION_BUS_ADDRESS").ok().filter(|address| !address.is_empty());
    let address = address.unwrap_or_else(|| {
        let runtime = env::var("XDG_RUNTIME_DIR").ok().filter(|path| !path.is_empty());
        let runtime = runtime.unwrap_or_else(|| format!("/run/user/{}", rustix::process::getuid().as_raw()));
        format!("unix:path={runtime}/bus")
    });
    let subscribed = async {
        let connection = Builder::address(address.as_str()).method_timeout(CALL).build().await?;
        connection.call_method(Some(MANAGER_NAME), MANAGER_PATH, Some(MANAGER), "Subscribe", &()).await?;
        Ok(connection)
    };
    // A bus that takes connections and says nothing would be waited for without end.
    let subscribed = tokio::time::timeout(CALL, subscribed).await.unwrap_or_else(|_| {
        Err(zbus::Error::InputOutput(Arc::new(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))))
    });
    subscribed.map_err(|source| ServicesError::Unreachable { address: address.clone(), source })
}
