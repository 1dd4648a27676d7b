//! Pulls by the `podman` program into a store of its own, which goes afterwards. What they prove is `judge`'s.
//!
//! The program, and not its service: the service reads the user's files alone, and a pull by it lands among production's
//! images. The store lies beside production's, on a file system that is known to serve, and takes layers that are there
//! already from production's, which it only reads: then an image that runs here is not fetched once more.

use std::{
    env,
    ffi::OsString,
    fs,
    future::{Future, pending},
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, kill_process};
use tempfile::TempDir;
use tokio::{
    process::Command,
    signal::unix::{Signal, SignalKind, signal},
    sync::Mutex,
    time::timeout,
};

use super::{PolicyError, check::Puller, judge::Pull, version::Version};

/// The longest that one pull may take: what deploys of a large image over a slow line need.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// The longest for everything else that Podman is asked.
const QUICK: Duration = Duration::from_secs(30);
/// How long Podman may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);

/// What is asked of `podman info`, a line each. The helper that mounts overlays is not there as a rule.
const INFO: &str = "{{.Store.GraphRoot}}\n{{.Store.GraphDriverName}}\n\
                    {{with index .Store.GraphOptions \"overlay.mount_program\"}}{{.Executable}}{{end}}\n\
                    {{.Version.Version}}";

/// Podman, with room for pulls that nobody sees.
#[derive(Debug)]
pub(super) struct Program {
    room: TempDir,
    options: Vec<OsString>,
    stop: Mutex<Stop>,
    /// Its version, as it says.
    pub version: String,
}

impl Program {
    /// Asks Podman where it keeps its images, and makes a room beside them; elsewhere, if nothing can be made there.
    pub(super) async fn prepare() -> Result<Self, PolicyError> {
        let mut stop = Stop::watch().map_err(PolicyError::Run)?;
        let info = Info::of(&ask("info", INFO, &mut stop).await?)?;
        let make = |at: &Path| tempfile::Builder::new().prefix(".tagship-check-").tempdir_in(at);
        let beside = info.root.parent().unwrap_or(&info.root);
        let room = make(beside).or_else(|_| make(&env::temp_dir()));
        let room = room.map_err(|source| PolicyError::Stage { path: beside.to_owned(), source })?;
        Ok(Self { room, options: info.options(), stop: Mutex::new(stop), version: info.version })
    }

    /// Where a home can be staged.
    pub(super) fn stage(&self) -> PathBuf {
        self.room.path().join("home")
    }

    /// Leaves nothing behind. An ordinary user's store has files of his other uids, which only Podman may remove.
    pub(super) async fn clean(self) -> Result<(), PolicyError> {
        let path = self.room.keep();
        let Err(source) = fs::remove_dir_all(&path) else { return Ok(()) };
        let removed = run(command("podman").args(["unshare", "rm", "-rf", "--"]).arg(&path), QUICK, pending()).await;
        match removed {
            Ok(Some(output)) if output.status.success() && !path.exists() => Ok(()),
            _ => Err(PolicyError::Clean { path, source }),
        }
    }
}

/// Podman's version, for who tries nothing.
pub(super) async fn version() -> Result<Version, PolicyError> {
    let mut stop = Stop::watch().map_err(PolicyError::Run)?;
    let said = ask("version", "{{.Client.Version}}", &mut stop).await?;
    Version::read(&said).ok_or_else(|| unusable("version", &said))
}

/// Has Podman say something about itself.
async fn ask(question: &'static str, format: &str, stop: &mut Stop) -> Result<String, PolicyError> {
    let output = run(command("podman").args([question, "--format", format]), QUICK, stop.asked()).await?;
    let said = output.ok_or_else(|| unusable(question, "it does not end"))?;
    match said.status.success() {
        true => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
        false => Err(unusable(question, &String::from_utf8_lossy(&said.stderr))),
    }
}

fn unusable(question: &'static str, words: &str) -> PolicyError {
    PolicyError::Info { question, words: words.trim().chars().take(200).collect() }
}

impl Puller for Program {
    async fn pull(&self, home: &Path, image: &str) -> Result<Pull, PolicyError> {
        let place = |name: &str| self.room.path().join(name);
        let mut podman = command("podman");
        podman.arg("--root").arg(place("store")).arg("--runroot").arg(place("run")).arg("--tmpdir").arg(place("tmp"));
        podman.args(&self.options).args(["pull", "--quiet", image]).env("HOME", home);
        let mut stop = self.stop.lock().await;
        let output = run(&mut podman, PATIENCE, stop.asked()).await?;
        let output =
            output.ok_or_else(|| PolicyError::Endless { image: image.to_owned(), minutes: PATIENCE.as_secs() / 60 })?;
        Ok(Pull::of(output.status.success(), &String::from_utf8_lossy(&output.stderr)))
    }
}

/// What `podman info` said.
#[derive(Debug, PartialEq, Eq)]
struct Info {
    root: PathBuf,
    driver: String,
    mount_program: Option<String>,
    version: String,
}

impl Info {
    fn of(said: &str) -> Result<Self, PolicyError> {
        let none = || unusable("info", said);
        let mut lines = said.lines().map(str::trim);
        let mut next = || lines.next().ok_or_else(none);
        let (root, driver, program, version) = (PathBuf::from(next()?), next()?, next()?, next()?);
        if !root.is_absolute() || driver.is_empty() || version.is_empty() {
            return Err(none());
        }
        let mount_program = Some(program.to_owned()).filter(|program| program.starts_with('/'));
        Ok(Self { root, driver: driver.to_owned(), mount_program, version: version.to_owned() })
    }

    /// Options of the store. One that is given replaces all that storage.conf has, so what is needed is given again.
    fn options(&self) -> Vec<OsString> {
        if self.driver != "overlay" {
            return Vec::new();
        }
        let mut options = vec![format!("additionalimagestore={}", self.root.display())];
        options.extend(self.mount_program.iter().map(|program| format!("overlay.mount_program={program}")));
        options.into_iter().flat_map(|option| ["--storage-opt".into(), option.into()]).collect()
    }
}

/// A program that reads nothing, speaks to no other machine's Podman, and ends with this one.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    for name in ["CONTAINER_HOST", "CONTAINER_CONNECTION"] {
        command.env_remove(name);
    }
    // Podman does not start in a directory that is gone, or that this user may not enter.
    command.current_dir("/");
    command
}

/// The signals that ask this program to end. Watched from before the first effect to after the last, so that one which
/// comes between two pulls is not lost.
#[derive(Debug)]
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal is closed.
    hangup: Signal,
}

impl Stop {
    fn watch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Runs it to its end; `None` if that does not come in time. When this program is asked to stop, the other is, too, and
/// it is waited for: what was begun can only be undone once nobody goes on with it.
async fn run(
    command: &mut Command,
    patience: Duration,
    stop: impl Future<Output = ()>,
) -> Result<Option<Output>, PolicyError> {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(PolicyError::Run)?;
    let process = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let output = child.wait_with_output();
    tokio::pin!(output);
    let stopped = tokio::select! {
        biased;
        () = stop => true,
        output = timeout(patience, &mut output) => match output {
            Ok(output) => return output.map(Some).map_err(PolicyError::Run),
            Err(_) => false,
        },
    };
    if let Some(process) = process {
        // It may have ended by itself.
        let _ = kill_process(process, rustix::process::Signal::TERM);
        let _ = timeout(GRACE, output).await;
    }
    if stopped { Err(PolicyError::Interrupted) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode};
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn podmans_answer_is_read() {
        let said = "/home/app/.local/share/containers/storage\noverlay\n\n5.4.2\n";
        let info = Info::of(said).unwrap();
        assert_eq!(
            (info.root.to_str(), info.version.as_str()),
            (Some("/home/app/.local/share/containers/storage"), "5.4.2")
        );
        let options = info.options();
        assert_eq!(options, ["--storage-opt", "additionalimagestore=/home/app/.local/share/containers/storage"]);
        let helper = Info::of("/s\noverlay\n/usr/bin/fuse-overlayfs\n5.4.2\n").unwrap();
        assert!(helper.options().contains(&"overlay.mount_program=/usr/bin/fuse-overlayfs".into()));
        assert_eq!(Info::of("/s\nvfs\n\n5.4.2\n").unwrap().options(), Vec::<OsString>::new());
    }

    #[test]
    fn another_answer_is_none() {
        for said in
            ["", "storage\noverlay\n\n5.4.2\n", "/s\n\n\n5.4.2\n", "/s\noverlay\n", "/s\noverlay\n\n\n", "Error: x\n"]
        {
            assert!(matches!(Info::of(said), Err(PolicyError::Info { .. })), "{said:?}");
        }
    }

    #[tokio::test]
    async fn it_does_not_matter_where_it_is_started() {
        let output = run(&mut command("pwd"), QUICK, pending()).await.unwrap().unwrap();
        assert_eq!(output.stdout, b"/\n");
    }

    #[tokio::test]
    async fn what_does_not_end_is_ended() {
        let ended = run(command("sleep").arg("600"), Duration::from_millis(20), pending()).await.unwrap();
        assert!(ended.is_none());
    }

    #[tokio::test]
    async fn who_is_asked_to_stop_asks_the_other_and_waits() {
        let temp = tempfile::tempdir().unwrap();
        let [begun, held, ended] = ["begun", "held", "ended"].map(|name| temp.path().join(name));
        for fifo in [&begun, &held] {
            rustix::fs::mknodat(CWD, fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        // Nothing is ever written to the one that it reads.
        let script = format!(
            "trap 'echo >{}; exit' TERM; exec 3<>{}; echo >{}; read -r _ <&3",
            ended.display(),
            held.display(),
            begun.display()
        );
        let mut begins = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&begun).unwrap();
        let asked = async { drop(begins.read_u8().await) };
        let error = run(command("sh").args(["-c", &script]), QUICK, asked).await.unwrap_err();
        assert!(matches!(error, PolicyError::Interrupted));
        assert!(ended.exists(), "it had its time to end");
    }

    #[tokio::test]
    async fn every_signal_that_asks_for_an_end_is_heard() {
        for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM, rustix::process::Signal::HUP] {
            let mut stop = Stop::watch().unwrap();
            kill_process(rustix::process::getpid(), signal).unwrap();
            timeout(QUICK, stop.asked()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_named() {
        let error = run(&mut command("/nonexistent/podman"), QUICK, pending()).await.unwrap_err();
        assert!(matches!(&error, PolicyError::Run(source) if source.kind() == io::ErrorKind::NotFound));
    }
}
