//! A workflow's step as its runner makes it: a container with its inputs in the environment. Held at its very beginning.

use std::path::{Path, PathBuf};

use super::{End, Memory, Needles, Traced};
use crate::Host;

/// A step to run.
#[must_use]
pub struct Job<'a> {
    host: &'a Host,
    image: String,
    command: String,
    environment: Vec<(String, String)>,
    options: Vec<String>,
}

/// A step that runs. Dropping it ends and removes the container.
pub struct Running<'a> {
    host: &'a Host,
    id: String,
    process: Option<Traced>,
}

impl<'a> Job<'a> {
    /// A container of an image, in the network of its host.
    pub fn new(host: &'a Host, image: &str, command: &str) -> Self {
        let options = vec!["--network host".to_owned()];
        Self { host, image: image.to_owned(), command: command.to_owned(), environment: Vec::new(), options }
    }

    /// An environment variable of the container. It is passed by name: an engine keeps the command line of its client,
    /// too, and no runner has one.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Further options of `podman create`, such as a volume.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Makes the container, and starts it. Its program has been loaded and has not run an instruction yet.
    ///
    /// # Panics
    /// When there is no container or no process.
    pub fn begin(self) -> Running<'a> {
        let assignments: String =
            self.environment.iter().map(|(name, value)| quoted(&format!("{name}={value}")) + " ").collect();
        let names: String = self.environment.iter().map(|(name, _)| format!("--env {} ", quoted(name))).collect();
        let (options, image, command) = (self.options.join(" "), &self.image, &self.command);
        let made = self.host.app(&format!("env {assignments} podman create {names} {options} {image} {command}")).ok();
        let id = made.trimmed().lines().last().unwrap().to_owned();
        let mut running = Running { host: self.host, id, process: None };
        // So there is a process, whose program is the engine's runtime still, before it becomes the step's.
        self.host.app(&format!("podman init {}", running.id)).ok();
        let mut process = Traced::seize(running.pid());
        self.host.app(&format!("podman start {}", running.id)).ok();
        process.until_exec();
        running.process = Some(process);
        running
    }
}

impl Running<'_> {
    /// The process, to let it go on.
    ///
    /// # Panics
    /// When it has ended.
    pub fn process(&mut self) -> &mut Traced {
        self.process.as_mut().expect("a process that has not ended")
    }

    /// The held process's id in the host's eyes.
    ///
    /// # Panics
    /// When it has ended.
    pub fn pid_in_host(&mut self) -> i32 {
        let status = String::from_utf8(self.proc("status")).unwrap();
        // Here, in the host, in the container.
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
        pids.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Lets it go on to its end. The container stays.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn end(&mut self) -> End {
        let end = self.process.take().expect("a process that has not ended").end();
        self.host.app(&format!("podman wait {}", self.id)).ok();
        end
    }

    /// What is in the held process's memory.
    pub fn memory(&mut self, needles: &Needles) -> Memory {
        Memory::of(self.process().pid(), needles)
    }

    /// A file of the held process below /proc.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn proc(&mut self, name: &str) -> Vec<u8> {
        std::fs::read(format!("/proc/{}/{name}", self.process().pid())).unwrap()
    }

    /// The contents of each regular file that the held process has open, with or without a name.
    ///
    /// # Panics
    /// When one cannot be read.
    pub fn open_files(&mut self) -> Vec<(PathBuf, Vec<u8>)> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.process().pid())).unwrap();
        let regular = open.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        regular.map(|path| (std::fs::read_link(&path).unwrap(), std::fs::read(&path).unwrap())).collect()
    }

    /// Everything that the step has printed, as its runner gets it.
    pub fn log(&self) -> String {
        self.host.root("journalctl --sync").ok();
        self.host.app(&format!("podman logs {}", self.id)).ok().text
    }

    /// Removes the container, as the runner does.
    pub fn remove(self) {}

    /// The container's process in the machine's eyes: the only one in its cgroup.
    fn pid(&self) -> i32 {
        let scope = format!("libpod-{}.scope", self.id);
        let processes =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        let cgroup = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let found: Vec<i32> =
            processes.filter_map(|name| name.parse().ok()).filter(|pid| cgroup(pid).contains(&scope)).collect();
        let [pid] = found[..] else { panic!("the processes of {scope}: {found:?}") };
        pid
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        drop(self.process.take());
        let removed = self.host.app(&format!("podman rm --force --time 0 {}", self.id));
        assert!(removed.code == 0 || std::thread::panicking(), "{}", removed.text);
    }
}

/// Builds an image of nothing but these files, the first of which is its program.
///
/// # Panics
/// When a file is missing or the engine cannot build.
pub fn image(host: &Host, name: &str, files: &[(&Path, &str)]) {
    let context = host.directory().join("home/app/image");
    let mut recipe = "FROM scratch\nCOPY root/ /\n".to_owned();
    for (from, to) in files {
        let place = context.join("root").join(to.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(from, place).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
    recipe.push_str(&format!("ENTRYPOINT [\"{}\"]\n", files[0].1));
    std::fs::write(context.join("Containerfile"), recipe).unwrap();
    host.app(&format!("podman build --quiet --tag {name} ~/image")).ok();
    std::fs::remove_dir_all(context).unwrap();
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
