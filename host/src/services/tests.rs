//! What a restart comes to, with a manager that leaves the bus in the middle.

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
};

use futures_util::future::try_join;
use tagship_core::explain::Explain;
use zbus::{Connection, Guid, ObjectPath, Variant, connection::Builder};

use super::*;

/// A manager that leaves the bus in a call, as one that re-executes does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// Before it has taken the call.
    Before,
    /// When it has queued the job.
    Queued,
    /// When the job has ended, too.
    Ended,
}

/// What the manager knows of the one unit that there is.
#[derive(Debug, Default)]
struct Unit {
    /// How the next calls to restart it go; then one is answered.
    leaves: Vec<Leaves>,
    /// How often it was told to restart it, and did.
    restarts: u8,
    has_job: bool,
}

const JOB: &str = "/org/freedesktop/systemd1/job/7";

/// Serves the calls that a restart takes, on one end of a connection whose other end is returned.
async fn manager(unit: Arc<Mutex<Unit>>) -> Connection {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = Builder::unix_stream(theirs).server(Guid::generate()).p2p().build();
    let (server, client) = try_join(server, Builder::unix_stream(ours).p2p().build()).await.unwrap();
    tokio::spawn(async move {
        let mut calls = MessageStream::from(&server);
        while let Some(Ok(call)) = calls.next().await {
            let header = call.header();
            let path = |text: &'static str| ObjectPath::from_static_str(text).unwrap();
            match header.member().map(|member| member.as_str()) {
                Some("LoadUnit") => server.reply(&header, &path("/unit")).await.unwrap(),
                Some("GetAll") => {
                    let known = {
                        let unit = unit.lock().unwrap();
                        let job = if unit.has_job { (7u32, path(JOB)) } else { (0, path("/")) };
                        HashMap::from([
                            ("Job", Variant::from(job)),
                            ("InvocationID", Variant::from(vec![unit.restarts; 16])),
                            ("ActiveState", Variant::from("inactive")),
                            ("Result", Variant::from("success")),
                        ])
                    };
                    server.reply(&header, &known).await.unwrap();
                }
                Some("RestartUnit") => {
                    let leaves = {
                        let mut unit = unit.lock().unwrap();
                        let leaves = (!unit.leaves.is_empty()).then(|| unit.leaves.remove(0));
                        unit.has_job = matches!(leaves, None | Some(Leaves::Queued));
                        unit.restarts += u8::from(leaves != Some(Leaves::Before));
                        leaves
                    };
                    match leaves {
                        None => server.reply(&header, &path(JOB)).await.unwrap(),
                        Some(_) => server
                            .reply_error(&header, "org.freedesktop.DBus.Error.NoReply", &"it has left the bus")
                            .await
                            .unwrap(),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    });
    client
}

/// A one-shot unit must not do its work twice.
#[tokio::test]
async fn a_job_that_was_taken_is_not_asked_for_again() {
    use Leaves::{Before, Ended, Queued};

    for (leaves, has_job) in [
        (vec![], true),
        (vec![Before], true),
        (vec![Before, Before], true),
        (vec![Queued], true),
        (vec![Before, Queued], true),
        (vec![Ended], false),
        (vec![Before, Ended], false),
    ] {
        let unit = Arc::new(Mutex::new(Unit { leaves: leaves.clone(), ..Unit::default() }));
        let connection = manager(unit.clone()).await;
        let bus = Bus { connection: &connection, action: "restart", unit: "migrate.service" };
        let before = bus.states().await.unwrap();
        let job = bus.queue("RestartUnit", &before).await.unwrap();
        assert_eq!(job.as_deref().map(ObjectPath::as_str), has_job.then_some(JOB), "{leaves:?}");
        assert_eq!(unit.lock().unwrap().restarts, 1, "{leaves:?}");
        if !has_job {
            bus.judge_unseen(&before).await.unwrap();
        }
    }
}

fn states(active: &str, invocation: u8, result: &str) -> States {
    States { active: active.into(), invocation: vec![invocation; 16], result: result.into() }
}

#[test]
fn a_connection_that_breaks_in_a_call_is_lost() {
    let broken = |kind: io::ErrorKind| zbus::Error::InputOutput(Arc::new(kind.into()));
    for (source, kind) in [
        (broken(io::ErrorKind::BrokenPipe), "services-lost"),
        (broken(io::ErrorKind::ConnectionReset), "services-lost"),
        (broken(io::ErrorKind::UnexpectedEof), "services-lost"),
        (zbus::fdo::Error::NoReply("it has left the bus".into()).into(), "services-lost"),
        (broken(io::ErrorKind::TimedOut), "services-silent"),
        (zbus::Error::Failure("no such unit".into()), "services-call"),
    ] {
        let text = source.to_string();
        assert_eq!(ServicesError::of_call("restart", "web.service", source).kind(), kind, "{text}");
    }
}

#[test]
fn what_an_unseen_end_means() {
    let before = states("active", 1, "success");
    for (action, now, well) in [
        ("restart", states("active", 2, "success"), true),
        ("restart", states("inactive", 2, "success"), true),
        // The very run that was there before: it was never restarted.
        ("restart", states("active", 1, "success"), false),
        ("restart", states("inactive", 1, "success"), false),
        ("restart", states("inactive", 2, "exit-code"), false),
        ("restart", states("failed", 2, "exit-code"), false),
        ("restart", states("failed", 2, "success"), false),
        ("restart", states("activating", 2, "success"), false),
        ("restart", states("deactivating", 2, "success"), false),
        ("restart", states("", 2, ""), false),
        ("stop", states("inactive", 1, "success"), true),
        ("stop", states("failed", 1, "timeout"), true),
        ("stop", states("active", 1, "success"), false),
        ("stop", states("active", 2, "success"), false),
        ("stop", states("deactivating", 1, "success"), false),
    ] {
        assert_eq!(before.ended_well(action, &now), well, "{action}: {now:?}");
    }
}
