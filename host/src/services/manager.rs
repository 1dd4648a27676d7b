//! One call to the user's service manager, and the connection it is made on. What is asked is decided in `services`.

use std::{env, io, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use zbus::{Connection, DynamicType, Error, Message, Result, connection::Builder, fdo};

use super::ServicesError;

pub(super) const MANAGER_NAME: &str = "org.freedesktop.systemd1";
pub(super) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const ALREADY_SUBSCRIBED: &str = "org.freedesktop.systemd1.AlreadySubscribed";
pub(super) const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The longest wait for the manager's answer to a call; jobs have no such limit, the deploy's budget bounds them.
const CALL: Duration = Duration::from_secs(25);

/// The pause before a manager that is away for a moment is asked again: it re-executes in some 100 ms. The bus would say
/// when it is back, to whoever has asked for that before each call, which costs more than a few calls in vain.
pub(super) const AWAY: Duration = Duration::from_millis(100);

/// Asks the manager, also one that is away for a moment. Whether it had taken the call that it left open nobody can say,
/// so only what may be asked twice is asked here.
pub(super) async fn ask<B: serde::Serialize + DynamicType>(
    connection: &Connection,
    path: &str,
    interface: &str,
    method: &str,
    body: &B,
) -> Result<Message> {
    while_away(|| connection.call_method(Some(MANAGER_NAME), path, Some(interface), method, body)).await
}

/// Makes a call anew while the bus answers that the manager has left it: one that re-executes leaves the bus and comes
/// back, and the bus answers what it leaves open.
async fn while_away<T, F: Future<Output = Result<T>>>(call: impl Fn() -> F) -> Result<T> {
    let until = Instant::now() + CALL;
    loop {
        match call().await {
            Err(error) if is_away(&error) && Instant::now() < until => sleep(AWAY).await,
            answer => return answer,
        }
    }
}

/// Whether the bus says that the manager has left it. That the manager cannot be started is how it says so where it
/// has gone before it was asked: the manager's own bus name comes with a file that has it started by `/bin/false`.
pub(super) fn is_away(error: &Error) -> bool {
    let Error::FDO(error) = error else { return false };
    matches!(
        **error,
        fdo::Error::NoReply(_)
            | fdo::Error::ServiceUnknown(_)
            | fdo::Error::NameHasNoOwner(_)
            | fdo::Error::SpawnChildExited(_)
    )
}

/// Connects to the session bus, where the manager is subscribed to: without a subscriber it sends no JobRemoved.
pub(super) async fn connect() -> std::result::Result<Connection, ServicesError> {
    let address = env::var("DBUS_SESSION_BUS_ADDRESS").ok().filter(|address| !address.is_empty());
    let address = address.unwrap_or_else(|| {
        let runtime = env::var("XDG_RUNTIME_DIR").ok().filter(|path| !path.is_empty());
        let runtime = runtime.unwrap_or_else(|| format!("/run/user/{}", rustix::process::getuid().as_raw()));
        format!("unix:path={runtime}/bus")
    });
    let subscribed = async {
        let connection = Builder::address(address.as_str()).method_timeout(CALL).build().await?;
        match ask(&connection, MANAGER_PATH, MANAGER, "Subscribe", &()).await {
            // A first call that it left open it had taken.
            Err(Error::MethodError(name, ..)) if name == ALREADY_SUBSCRIBED => Ok(connection),
            answer => answer.map(|_| connection),
        }
    };
    // A bus that takes connections and says nothing would be waited for without end.
    let subscribed = timeout(CALL, subscribed).await.unwrap_or_else(|_| {
        Err(Error::InputOutput(Arc::new(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))))
    });
    subscribed.map_err(|source| ServicesError::Unreachable { address: address.clone(), source })
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready};

    use super::*;

    /// How a call ends that is first answered so, as often as that; and how often it was made.
    async fn asked(times: usize, error: fdo::Error) -> (Result<()>, usize) {
        let calls = Cell::new(0);
        let answer = while_away(|| {
            calls.set(calls.get() + 1);
            ready(if calls.get() <= times { Err(error.clone().into()) } else { Ok(()) })
        });
        (answer.await, calls.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_manager_that_goes_away_in_a_call_is_asked_again() {
        for error in [
            fdo::Error::NoReply("Message recipient disconnected from message bus without replying".into()),
            fdo::Error::SpawnChildExited("Process org.freedesktop.systemd1 exited with status 1".into()),
            fdo::Error::ServiceUnknown("The name is not activatable".into()),
            fdo::Error::NameHasNoOwner("Could not get owner of name".into()),
        ] {
            let (answer, calls) = asked(2, error).await;
            assert!(answer.is_ok(), "{answer:?}");
            assert_eq!(calls, 3);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_manager_itself_refuses_is_asked_once() {
        for error in [fdo::Error::AccessDenied("not yours".into()), fdo::Error::InvalidArgs("no such unit".into())] {
            let (answer, calls) = asked(2, error).await;
            assert!(matches!(answer, Err(Error::FDO(_))), "{answer:?}");
            assert_eq!(calls, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_manager_that_stays_away_is_given_up() {
        let begun = Instant::now();
        let (answer, calls) = asked(usize::MAX, fdo::Error::NoReply("gone".into())).await;
        assert!(matches!(answer, Err(Error::FDO(_))), "{answer:?}");
        assert!(calls > 2 && (CALL..CALL * 2).contains(&begun.elapsed()), "{calls} in {:?}", begun.elapsed());
    }
}
