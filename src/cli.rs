//! The command line: subcommands, and each input as a flag of the same name.
//!
//! What a value means is parsed in `inputs`. The flags come from its table, so that no input can be forgotten here.

mod value;
mod withhold;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::OsStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::inputs::Step;
use crate::inputs::table::{Given, INPUTS, Input};

/// What to do.
pub enum Asked {
    /// What the action's inputs say.
    Action,
    /// The steps of the inputs, or a single one.
    Release(Option<Step>, ArgMatches),
    /// Check an image's signature.
    Verify(ArgMatches),
    /// Make a key pair.
    Keygen {
        /// The files' name without its ending.
        output: PathBuf,
        /// The other flags.
        flags: ArgMatches,
    },
}

/// Inputs that may be several lines: their flags may be repeated, a line each.
const LINES: [&str; 3] = ["annotations", "build-args", "labels"];

/// Inputs that are true or false: their flags alone mean true.
const BOOLEANS: [&str; 3] = ["force", "rollback", "tlog"];

const VERIFY: [&str; 10] = [
    "image",
    "tag",
    "digest",
    "public-key",
    "tlog",
    "rekor-public-key",
    "registry-user",
    "registry-token-file",
    "registry-auth-file",
    "ca",
];

/// Inputs whose value may be a PEM text, which begins with dashes, or where such a text is given by mistake: then the
/// error can say what belongs there.
const DASHES: [&str; 6] =
    ["ca", "key-file", "key-password-file", "public-key", "registry-token-file", "rekor-public-key"];

/// The exit codes, and what can end with each.
const EXIT_CODES: [(&str, &[&str]); 9] = [
    ("0 done", &[]),
    ("1 the host said no", &["action", "release", "deploy"]),
    ("2 wrong use or configuration", &[]),
    ("3 build", &["action", "release", "build", "push"]),
    ("4 registry", &["action", "release", "build", "push", "sign", "deploy", "promote", "verify"]),
    ("5 signing or verification", &["action", "release", "push", "sign", "deploy", "promote", "verify", "keygen"]),
    ("6 hand-off", &["action", "release", "deploy"]),
    ("7 done but not told: outputs or log could not be written", &[]),
    ("143 interrupted", &[]),
];

/// Reads the command line. Help was shown, and so was what is wrong with a command line that is none: then there is
/// nothing to do but to end with the code that is returned. (To end the program here would leave secrets in memory.)
/// Nothing that is one of the secrets is shown, nor what may be one.
///
/// # Errors
/// The exit code, 0 after help.
pub fn parse(is_secret: impl Fn(&str) -> bool) -> Result<Asked, ExitCode> {
    let mut matches = matches(std::env::args_os().collect()).map_err(|error| {
        let error = withhold::withhold(error, is_secret);
        // Nowhere is left to say that it could not be said.
        let _ = error.print();
        u8::try_from(error.exit_code()).unwrap_or(u8::MAX)
    })?;
    Ok(match matches.remove_subcommand() {
        Some((name, flags)) if name == "release" => Asked::Release(None, flags),
        Some((name, flags)) if name == "verify" => Asked::Verify(flags),
        Some((name, mut flags)) if name == "keygen" => {
            Asked::Keygen { output: flags.remove_one("output").unwrap_or_default(), flags }
        }
        Some((name, flags)) => match Step::ALL.into_iter().find(|step| step.name() == name) {
            Some(step) => Asked::Release(Some(step), flags),
            None => Asked::Action,
        },
        None => Asked::Action,
    })
}

fn matches(line: Vec<OsString>) -> Result<ArgMatches, clap::Error> {
    match value::forgotten(command(), &line) {
        Some(error) => Err(error),
        None => command().try_get_matches_from(line),
    }
}

/// The whole command line.
#[must_use]
pub fn command() -> Command {
    let steps = [
        (Step::Build, "Build the image with the container engine"),
        (Step::Push, "Push the version tag and read it back"),
        (Step::Sign, "Sign the image in the registry and verify the signature"),
        (Step::Deploy, "Hand the image to the host and wait for its verdict"),
        (Step::Promote, "Put the verified image at the moving tag"),
    ];
    Command::new("tagship")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Builds, pushes, signs, hands off and promotes a container image")
        .after_help(after_help(""))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(subcommand("release", "All steps, or those of --steps"))
        .subcommands(steps.map(|(step, about)| subcommand(step.name(), about)))
        .subcommand(subcommand("verify", "Check an image's signature as the host does, with the same code"))
        .subcommand(subcommand(
            "keygen",
            "Make a key pair, which cosign can use as well; the password is TAGSHIP_KEY_PASSWORD, or in --key-password-file",
        ))
        .subcommand(subcommand("action", "All steps as a workflow's step: every input comes as INPUT_NAME"))
}

/// A subcommand, which gets its flags once it is the one that was asked for: to make those of all would take longer
/// than to read the command line.
fn subcommand(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).after_help(after_help(name)).defer(with_flags)
}

/// What a command's help ends with: where its secrets come from, and how it ends. Of all commands without a name.
fn after_help(name: &str) -> String {
    let secrets = match name {
        "action" => "The secrets are inputs as all others, and taken out of the environment.",
        "keygen" => {
            "Secrets are never flags: the password comes from TAGSHIP_KEY_PASSWORD in the environment, or from the file \
             that --key-password-file names."
        }
        "build" => {
            "Secrets are never flags: the registry's token comes from TAGSHIP_REGISTRY_TOKEN in the environment, from the \
             file that --registry-token-file names, or from the user's own auth.json."
        }
        "verify" => {
            "Secrets are never flags: the registry's token comes from TAGSHIP_REGISTRY_TOKEN in the environment, from the \
             file that --registry-token-file names, or from the user's own auth.json. Without --public-key the key in \
             TAGSHIP_KEY counts, which TAGSHIP_KEY_PASSWORD opens."
        }
        _ => {
            "Secrets are never flags. They come from TAGSHIP_KEY, TAGSHIP_KEY_PASSWORD and TAGSHIP_REGISTRY_TOKEN in the \
             environment, from the files that --key-file, --key-password-file and --registry-token-file name, or, for \
             registries, from the user's own auth.json."
        }
    };
    let codes = EXIT_CODES.iter().filter(|(_, of)| name.is_empty() || of.is_empty() || of.contains(&name));
    let codes: Vec<&str> = codes.map(|(code, _)| *code).collect();
    format!("{secrets}\n\nExit codes: {}.", codes.join(", "))
}

/// What an input means to `tagship verify`, where that is not what it means to a release.
fn help_of_verify(name: &str) -> Option<&'static str> {
    Some(match name {
        "tag" => "The tag whose image is verified. This or the digest.",
        "digest" => "The digest of the image that is verified.",
        "public-key" => "The public key that must have signed: PEM text, or the path of a PEM file.",
        "tlog" => "Require a record of the signature in the transparency log: true or false. [default: true]",
        _ => return None,
    })
}

fn with_flags(command: Command) -> Command {
    let output = Arg::new("output")
        .long("output")
        .value_name("PREFIX")
        .value_parser(clap::value_parser!(PathBuf))
        .default_value("tagship")
        .help("Write PREFIX.key and PREFIX.pub; neither is overwritten.");
    match command.get_name() {
        "release" => command.args(flags(|_| true)),
        "verify" => {
            command.args(flags(|input| VERIFY.contains(&input.name)).into_iter().map(|flag| {
                match help_of_verify(flag.get_id().as_str()) {
                    Some(help) => flag.help(help),
                    None => flag,
                }
            }))
        }
        "keygen" => command.arg(output).args(flags(|input| input.name == "key-password-file")),
        name => match Step::ALL.into_iter().find(|step| step.name() == name) {
            Some(step) => command.args(flags(|input| input.steps.contains(&step))),
            None => command,
        },
    }
}

/// The flags of the inputs that a subcommand uses.
fn flags(used: impl Fn(&Input) -> bool) -> Vec<Arg> {
    INPUTS.iter().filter(|input| input.given == Given::Anywhere && used(input)).map(flag).collect()
}

fn flag(input: &'static Input) -> Arg {
    let flag = Arg::new(input.name)
        .long(input.name)
        .value_parser(OsStringValueParser::new())
        .value_name(value_name(input.name))
        .allow_hyphen_values(DASHES.contains(&input.name))
        .help(match input.default {
            Some(default) => format!("{} [default: {default}]", input.help),
            None => input.help.to_owned(),
        });
    if LINES.contains(&input.name) {
        return flag.action(ArgAction::Append);
    }
    // The last one counts, so that a script can add to the flags of another.
    let flag = flag.overrides_with(input.name);
    match BOOLEANS.contains(&input.name) {
        true => flag.num_args(0..=1).default_missing_value("true"),
        false => flag,
    }
}

fn value_name(name: &str) -> &'static str {
    match name {
        _ if LINES.contains(&name) => "NAME=VALUE",
        _ if name.ends_with("file") => "FILE",
        "image" => "REPOSITORY",
        "context" | "handoff" => "DIRECTORY",
        "ca" | "public-key" | "rekor-public-key" => "PEM",
        _ if BOOLEANS.contains(&name) => "BOOL",
        "rekor-url" => "URL",
        "timeout" => "TIME",
        _ => "VALUE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    fn parsed(line: &str) -> Result<ArgMatches, clap::Error> {
        matches(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn secrets_are_no_flags() {
        for name in ["key", "key-password", "registry-token", "allowed-signers"] {
            assert!(parsed(&format!("tagship release --{name} x")).is_err(), "{name}");
        }
    }

    #[test]
    fn the_list_of_commands_says_where_a_new_keys_password_comes_from() {
        let command = command();
        let keygen = command.find_subcommand("keygen").and_then(Command::get_about).expect("what it does").to_string();
        let ways = ["TAGSHIP_KEY_PASSWORD", "--key-password-file"];
        assert!(ways.iter().all(|way| keygen.contains(way)), "{keygen}");
    }

    #[test]
    fn every_exit_code_is_told_and_in_the_manual() {
        let manual = include_str!("../docs/action.md");
        let (_, table) = manual.split_once("## Exit codes").expect("a chapter");
        let of_the_manual: Vec<&str> = table
            .lines()
            .skip_while(|line| !line.starts_with("| 0"))
            .map_while(|line| line.strip_prefix("| ")?.split(' ').next())
            .collect();
        let told = EXIT_CODES.map(|(code, _)| code.split(' ').next().unwrap_or_default());
        assert_eq!(of_the_manual, told);
        let names: Vec<_> = command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        for name in EXIT_CODES.iter().flat_map(|(_, of)| *of) {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn help_can_be_asked_for_by_its_name() {
        for line in ["tagship help", "tagship help verify", "tagship verify --help"] {
            let error = parsed(line).expect_err(line);
            assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{line}: {error}");
        }
    }

    #[test]
    fn each_step_has_its_own_flags() {
        for (line, good) in [
            ("tagship build --image r/a --context x", true),
            ("tagship build --image r/a --handoff x", false),
            ("tagship deploy --image r/a --handoff x", true),
            ("tagship deploy --image r/a --context x", false),
            ("tagship sign --image r/a --annotations a=1 --annotations b=2", true),
            ("tagship promote --image r/a --moving-tag x", true),
            ("tagship push --image r/a --steps build", false),
            ("tagship verify --image r/a --tag v1 --public-key x --tlog false --registry-user ci", true),
            ("tagship keygen --output x", true),
            ("tagship release --colour red", false),
            ("tagship action --image r/a", false),
            ("tagship", false),
            ("tagship nonsense", false),
        ] {
            assert_eq!(parsed(line).is_ok(), good, "{line}");
        }
    }

    #[test]
    fn a_flag_that_is_true_or_false_may_stand_alone() {
        for (line, expected) in [
            ("tagship release --force", "true"),
            ("tagship release --force --tag v1", "true"),
            ("tagship release --force true --tag v1", "true"),
            ("tagship release --force false", "false"),
            ("tagship release --force=false", "false"),
            ("tagship release --force false --force", "true"),
        ] {
            let matches = parsed(line).expect(line);
            let (_, flags) = matches.subcommand().expect("release");
            assert_eq!(flags.get_one::<OsString>("force"), Some(&expected.into()), "{line}");
        }
        assert!(parsed("tagship release --force true false").is_err());
    }

    #[test]
    fn a_pem_text_may_be_a_flags_value() {
        let pem = "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----";
        for (step, name) in DASHES.into_iter().flat_map(|name| [("release", name), ("verify", name)]) {
            let line = ["tagship", step, &format!("--{name}"), pem, "--image", "r/a"];
            let Ok(matches) = command().try_get_matches_from(line) else {
                assert!(step == "verify" && !VERIFY.contains(&name), "{step} {name}");
                continue;
            };
            let (_, flags) = matches.subcommand().expect(step);
            assert_eq!(flags.get_one::<OsString>(name), Some(&pem.into()), "{name}");
            assert_eq!(flags.get_one::<OsString>("image"), Some(&"r/a".into()), "{name}");
        }
    }

    #[test]
    fn a_forgotten_value_takes_no_flag_in_its_place() {
        for name in DASHES {
            for next in ["--image", "--image=r/a:v1", "--force", "--steps", "--help", "-h", "--ca"] {
                let error = parsed(&format!("tagship release --{name} {next} r/a:v1")).expect_err(next);
                let message = withhold::withhold(error, |_| false).to_string();
                let expected = format!("a value is required for '--{name} <");
                assert!(message.contains(&expected), "{name} {next}: {message}");
            }
        }
        let message = parsed("tagship verify --public-key --image r/a:v1").expect_err("refused").to_string();
        assert!(message.contains("a value is required for '--public-key <PEM>' but none was supplied"), "{message}");
        for value in ["-", "--x", "---image", "-----image", "image", "./--image"] {
            assert!(parsed(&format!("tagship verify --public-key {value} --image r/a:v1")).is_ok(), "{value}");
        }
    }

    #[test]
    fn the_last_of_a_flag_counts() {
        let matches = parsed("tagship release --tag v1 --tag v2").expect("parsed");
        let (_, flags) = matches.subcommand().expect("release");
        assert_eq!(flags.get_one::<OsString>("tag"), Some(&"v2".into()));
    }
}
