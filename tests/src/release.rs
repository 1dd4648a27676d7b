//! A release of the demo application, made as its user makes one on the command line.

use crate::host::{IMAGE, PASSWORD};
use crate::{Host, Ran, quoted};

/// A version in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its tag.
    pub tag: String,
    /// What the registry holds under it.
    pub digest: String,
}

/// A release to run; what is not said is as the stack's user has it.
#[must_use]
pub struct Release<'a> {
    host: &'a Host,
    tag: String,
    edits: Vec<String>,
    environment: Vec<String>,
    flags: Vec<String>,
    bare: bool,
}

impl<'a> Release<'a> {
    pub(crate) fn new(host: &'a Host, tag: String) -> Self {
        Self { host, tag, edits: vec![], environment: vec![], flags: vec![], bare: false }
    }

    /// The version that it releases.
    pub fn tag(&self) -> String {
        self.tag.clone()
    }

    /// Releases this tag instead of a new version.
    pub fn of(mut self, tag: &str) -> Self {
        tag.clone_into(&mut self.tag);
        self
    }

    /// Runs only these steps of the release.
    pub fn steps(self, steps: &str) -> Self {
        self.flag("steps", steps)
    }

    /// A shell line that changes the application's source before it is built.
    pub fn edit(mut self, line: &str) -> Self {
        self.edits.push(line.to_owned());
        self
    }

    /// An application whose healthcheck never succeeds.
    pub fn unhealthy(self) -> Self {
        self.edit("printf '#!/bin/sh\\necho database is gone; exit 1\\n' >health")
    }

    /// An application that says why and dies at once.
    pub fn crashing(self) -> Self {
        self.edit("printf '#!/bin/sh\\necho cannot read settings; exit 3\\n' >app")
    }

    /// Signs with this key of [`Host::key_pair`]'s in place of the release's.
    pub fn with_key(self, name: &str) -> Self {
        self.env("TAGSHIP_KEY", &format!("\"$(cat ~/{name}.key)\"")).env("TAGSHIP_KEY_PASSWORD", PASSWORD)
    }

    /// A further or different environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("export {name}={value}"));
        self
    }

    /// A further flag with its value; a later one of the same name replaces the stack's own.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.push(format!("--{name} {value}"));
        self
    }

    /// Leaves out the flags that the stack's user always gives.
    pub fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Runs it to its end, and waits for that of the companion's run: a build fails when an image goes that it looks at.
    pub fn run(self) -> Ran {
        let ran = self.host.app(&self.script());
        self.host.at_rest();
        ran
    }

    /// Makes a version that nobody is asked to deploy: built, pushed and signed.
    ///
    /// # Panics
    /// When that fails.
    pub fn signed(self) -> Version {
        self.made("build,push,sign")
    }

    /// The same, and not signed.
    ///
    /// # Panics
    /// As [`Self::signed`].
    pub fn unsigned(self) -> Version {
        self.made("build,push")
    }

    fn made(self, steps: &str) -> Version {
        let (host, tag) = (self.host, self.tag());
        self.steps(steps).run().ok();
        let digest = host.digest(&tag).expect("the pushed version");
        Version { tag, digest }
    }

    /// The shell command that runs it, for a script that does more.
    pub fn command(&self) -> String {
        format!("bash -c {}", quoted(&self.script()))
    }

    /// A line of shell that runs it in the background, as `$job`; what it says goes to this file, which is there before:
    /// whoever follows one that is not (`tail -F`) looks for it once a second.
    pub fn background(&self, log: &str) -> String {
        format!(": >{log}; {} >>{log} 2>&1 & job=$!", self.command())
    }

    /// The shell script that runs it.
    pub fn script(&self) -> String {
        let mut lines = vec![
            "set -eu".to_owned(),
            "context=$(mktemp -d); trap 'rm -rf \"$context\"' EXIT".to_owned(),
            "cp -a ~/src/demo/. \"$context\"; cd \"$context\"".to_owned(),
            // A layer of its own for each version, as a real change makes.
            format!("echo {} >version; echo 'COPY version /version' >>Containerfile", self.tag),
            ". ~/ci.env".to_owned(),
        ];
        lines.extend(self.edits.iter().cloned());
        lines.extend(self.environment.iter().cloned());
        let defaults = if self.bare { String::new() } else { "$TAGSHIP_FLAGS".to_owned() };
        lines.push(format!("tagship release --image {IMAGE} --tag {} {defaults} {}", self.tag, self.flags.join(" ")));
        lines.join("\n")
    }
}
