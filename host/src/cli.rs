//! The command line: what can be asked for, and how it is spelled.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tagship_core::reference::Tag;

use crate::config::{App, ServiceName};

/// Deploys what tagship's action hands over, verified, and answers.
#[derive(Debug, Parser)]
#[command(name = "tagship-host", version, about, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 refused or failed, 2 wrong use or configuration. What `deploy` refuses is done: the answer says so.

Each command has more to say with --help.";

/// The flags of the commands that deploy.
#[derive(Debug, Default, Args)]
pub struct Deploying {
    /// Write where a deploy's time went, for a trace viewer
    #[arg(long, env = "TAGSHIP_TRACE", value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Do everything that waits in the app's hand-off directory, and answer; the units call this
    Deploy {
        /// The app: the name of its file in ~/.config/tagship
        app: App,
        /// Deploy this version now although it was rolled back here before: something else was to blame
        #[arg(long, value_name = "TAG")]
        retry: Option<Tag>,
        /// The flags of each command that deploys.
        #[command(flatten)]
        deploying: Deploying,
    },
    /// After a crash, put the local names back before the services start; a unit calls this at boot
    ///
    /// Needs no network and starts nothing: `deploy` ends the rest, and answers.
    Recover {
        /// The app: the name of its file in ~/.config/tagship
        app: App,
    },
    /// Whether a service may start what its local name stands for now; the service calls this before it starts
    ///
    /// As ExecStartPre= in a drop-in. Exits with 0 if the image is the one that was proven here or that a deploy under
    /// way has put there, or if nothing was proven yet.
    Guard {
        /// The app: the name of its file in ~/.config/tagship
        app: App,
        /// The service, or a one-shot unit of `before`
        service: ServiceName,
    },
    /// Go back to a version that was proven healthy here, or to any signed one by its tag
    Rollback {
        /// The app: the name of its file in ~/.config/tagship
        app: App,
        /// The version to go back to; without it, the one before the running one
        tag: Option<Tag>,
        /// Show what can be gone back to, and do nothing
        #[arg(long, conflicts_with = "tag")]
        list: bool,
        /// The flags of each command that deploys.
        #[command(flatten)]
        deploying: Deploying,
    },
    /// Show the highest version that was proven here and what is accepted next, or set it to a version that verifies
    Mark {
        /// The app: the name of its file in ~/.config/tagship
        app: App,
        /// Verify this version anew and set the mark to it, up or down; nothing is deployed
        #[arg(long, value_name = "TAG")]
        set: Option<Tag>,
    },
    /// Show how every deploy ended, and whether the system's journal says the same
    History {
        /// The app: the name of its file in ~/.config/tagship
        app: App,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show what runs, how the last deploy ended, and what waits
    Status {
        /// The app: the name of its file in ~/.config/tagship
        app: App,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Make `podman pull` enforce the app's signature: show the policy.json and registries.d that do
    ///
    /// Shows what would change in the files that Podman reads for this user, and writes nothing unless it is told to.
    /// `--write` proves it by real pulls first, and once more with what it wrote; with `--no-check` it does neither, for a
    /// host where nothing was signed yet.
    Policy {
        /// The app: the name of its file in ~/.config/tagship
        app: App,
        /// Prove it by real pulls, of a signed and of an unsigned image, before anything is written
        #[arg(long)]
        check: bool,
        /// Write the files, after the check, and check once more
        #[arg(long)]
        write: bool,
        /// Write without any check
        #[arg(long, requires = "write", conflicts_with = "check")]
        no_check: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROP_IN: &str = include_str!("../../examples/quadlets/guard.conf");

    #[test]
    fn the_drop_in_asks_what_can_be_asked_and_is_in_the_manual() {
        let command = DROP_IN.lines().find_map(|line| line.strip_prefix("ExecStartPre=")).unwrap();
        let words = command.split(' ').map(|word| if word == "%N" { "demo-web" } else { word });
        let Cli { command: Command::Guard { app, service }, .. } = Cli::try_parse_from(words).unwrap() else {
            panic!("{command}")
        };
        assert_eq!((app.as_str(), service.as_str()), ("demo", "demo-web"));
        assert!(include_str!("../../docs/host.md").contains(DROP_IN));
    }
}
