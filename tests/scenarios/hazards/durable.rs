//! In which order the companion brings things to the disk and acts: what it does as the kernel sees it.

use std::collections::HashMap;

use tagship_tests::{Host, SERVICES, Scenario};

use super::{Versions, any_order, id, shell};

pub(crate) const SCENARIOS: &[Scenario] =
    &[("h11_what_is_acted_upon_is_on_the_disk_before", h11_what_is_acted_upon_is_on_the_disk_before)];

const STATE: &str = "/home/app/.local/state/tagship/demo";
const HANDOFF: &str = "/home/app/tagship/demo";

/// What a run does, as far as the order of it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    /// A file or directory is on the disk.
    Synced(String),
    /// A file has its name, and had this one before.
    Named { from: String, to: String },
    /// A file is gone.
    Removed(String),
    /// The engine is told to give an image a name, or systemd to restart a service.
    Effect(String),
}

fn h11_what_is_acted_upon_is_on_the_disk_before(host: &Host) {
    host.baseline();
    let (_order, other) = (any_order(host), Versions::of(host).other(host));
    // Nobody else begins with the request.
    let _alone = host.changed(
        "systemctl --user stop tagship@demo.path tagship@demo.timer",
        "systemctl --user start tagship@demo.path tagship@demo.timer",
    );
    host.at_rest();
    let request = id();
    let _trace = host.changed("rm -f ~/strace", "rm -f ~/strace");
    let ran = shell(
        host,
        &format!(
            "put {request} {} {}
             strace -f -y -s 400 -e trace=fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,write,writev,sendto,sendmsg \
                 -o ~/strace tagship-host deploy demo >/dev/null
             grep ^Outcome: deploy-status.{request}; cat ~/strace",
            other.tag, other.digest
        ),
    );
    let events = events(&ran.ok().says("Outcome: deployed").text);
    let at = |what: &dyn Fn(&Event) -> bool| events.iter().position(what);
    let named = |path: String| move |event: &Event| matches!(event, Event::Named { to, .. } if *to == path);
    let synced = |path: &str| {
        let path = path.to_owned();
        move |event: &Event| *event == Event::Synced(path.clone())
    };
    let text = || format!("{events:#?}");

    // Claimed requests are in the list before their files are gone from the directory.
    let list = at(&named(format!("{STATE}/requests.json"))).unwrap_or_else(|| panic!("{}", text()));
    let gone =
        at(&|event| matches!(event, Event::Removed(path) if path.starts_with(HANDOFF) && path.contains(&request)));
    assert!(gone.is_some_and(|gone| list < gone), "{}", text());
    // Each state file's name stands on the disk, the file before it and the directory after it, before anything follows.
    let mut names = 0;
    for (at, event) in events.iter().enumerate() {
        let Event::Named { from, to: path } = event else { continue };
        let directory = if path.starts_with(STATE) { STATE } else { HANDOFF };
        // A claim is no file that the companion wrote, and what it claims is in the list before it is gone.
        if path.contains("/.tagship-request.") {
            continue;
        }
        names += 1;
        assert!(
            events[..at].contains(&Event::Synced(from.clone())),
            "{path} was not on the disk when it got its name: {}",
            text()
        );
        // Whoever writes into the hand-off directory removes the name that the file had.
        let next =
            events[at + 1..].iter().position(|event| !matches!(event, Event::Removed(removed) if removed == from));
        let next = next.map(|next| &events[at + 1 + next]);
        assert!(next.is_some_and(synced(directory)), "{path} was not sure to keep its name: {}", text());
    }
    assert!(names > 5, "{}", text());
    // The journal is there before the first effect, and each service has both effects of its own.
    let first = at(&|event| matches!(event, Event::Effect(_))).unwrap_or_else(|| panic!("{}", text()));
    let journal = at(&named(format!("{STATE}/journal.json"))).unwrap_or_else(|| panic!("{}", text()));
    assert!(journal < first, "{}", text());
    // Between two groups the journal is written, which says how far it came.
    let second =
        at(&|event| *event == Event::Effect("names demo-worker".to_owned())).unwrap_or_else(|| panic!("{}", text()));
    assert!(events[first..second].iter().any(synced(STATE)), "{}", text());
    for service in SERVICES {
        for effect in [format!("names {service}"), format!("restarts {service}")] {
            assert!(events.contains(&Event::Effect(effect.clone())), "{effect}: {}", text());
        }
    }
    // What was proven is there before the answer that says so, and the answer comes after the last effect.
    let last = events.iter().rposition(|event| matches!(event, Event::Effect(_))).unwrap();
    let proven = events.iter().rposition(named(format!("{STATE}/trust.json"))).unwrap_or_else(|| panic!("{}", text()));
    let verdict =
        events.iter().rposition(synced(&format!("{STATE}/history.jsonl"))).unwrap_or_else(|| panic!("{}", text()));
    let answer = at(&named(format!("{HANDOFF}/deploy-status.{request}"))).unwrap_or_else(|| panic!("{}", text()));
    assert!(last < proven && proven < answer && verdict < answer, "{}", text());
}

/// The events in what strace wrote: a call that another thread's came in between is put together again.
fn events(text: &str) -> Vec<Event> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut events = Vec::new();
    for line in text.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(first) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(pid, first);
            continue;
        }
        let call = match (call.starts_with("<... "), begun.remove(pid)) {
            (true, Some(first)) => format!("{first}{}", call.split_once("resumed>").map_or("", |(_, rest)| rest)),
            _ => call.to_owned(),
        };
        events.extend(event(&call));
    }
    events
}

/// What a whole call means, if it was done and means anything here.
fn event(call: &str) -> Option<Event> {
    let (name, arguments) = call.split_once('(')?;
    let done = !arguments.contains(") = -1 ");
    // The directory that a name is relative to stands before it, with its path in angle brackets.
    let paths = || {
        let mut directory = "";
        let mut paths = Vec::new();
        for part in arguments.split(", ") {
            if let Some((_, path)) = part.split_once('<') {
                directory = path.split('>').next().unwrap_or_default();
            } else if let Some(path) = part.strip_prefix('"').and_then(|path| path.split('"').next()) {
                paths.push(if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") });
            }
        }
        paths
    };
    match name {
        "fsync" | "fdatasync" if done => {
            let path = arguments.split_once('<')?.1.split('>').next()?;
            Some(Event::Synced(path.trim_end_matches(" (deleted)").to_owned()))
        }
        "rename" | "renameat" | "renameat2" if done => {
            let mut paths = paths().into_iter();
            Some(Event::Named { from: paths.next()?, to: paths.next()? })
        }
        "unlink" | "unlinkat" if done => paths().pop().map(Event::Removed),
        "write" | "writev" | "sendto" | "sendmsg" if done => {
            let service = |before: &str, after: &str| {
                let rest = call.split_once(before)?.1.split(after).next()?;
                SERVICES.into_iter().find(|service| rest.contains(service))
            };
            let names = service("/tag?", " HTTP").map(|service| format!("names {service}"));
            let restarts = || service("RestartUnit", ".service").map(|service| format!("restarts {service}"));
            names.or_else(restarts).map(Event::Effect)
        }
        _ => None,
    }
}
