//! What was given, by name and still as text: from the action's environment or from flags and `TAGSHIP_*`.
//!
//! Says whether a name is known; what a value means is parsed elsewhere.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use tagship_core::secret::Secret;

use super::error::InputError;
use super::secrets::Secrets;
use super::table::{self, Given, INPUTS, Input};

/// Values by the input's name. Secrets are kept apart, in a type that cannot be shown.
pub struct Raw {
    values: BTreeMap<&'static str, String>,
    secrets: Secrets,
}

impl Raw {
    /// The action's inputs: `INPUT_` and the name in upper case with its dashes, as Forgejo's runner passes them.
    ///
    /// # Errors
    /// When an input is unknown, not supported, or not text. The runner passes undeclared ones as well, so that a
    /// misspelt name is found here.
    pub fn from_action(
        variables: impl Iterator<Item = (OsString, OsString)>,
        secrets: Secrets,
    ) -> Result<Raw, InputError> {
        let mut raw = Raw { values: BTreeMap::new(), secrets };
        for (variable, value) in variables {
            let Some(name) = variable.to_str().and_then(|variable| variable.strip_prefix("INPUT_")) else { continue };
            let name = name.to_lowercase();
            if !is_given(&name, &value) {
                continue;
            }
            let input = table::find(&name).ok_or_else(|| InputError::unknown(&name))?;
            match input.given {
                Given::Anywhere => raw.put(input, text(input, &value)?),
                // Taken out of the environment before anything else ran.
                Given::Secret(_) => {}
                Given::NotYet => return Err(InputError::NotYet { name: input.name, what: input.help }),
            }
        }
        Ok(raw)
    }

    /// The tool's flags, and its secrets from the environment.
    ///
    /// # Errors
    /// When a flag's value is not text, or empty where that says nothing: a runner cannot help handing over inputs that
    /// are, but in a script it is a variable that was forgotten, and what it was to restrict would be done without.
    pub fn from_flags(flags: &clap::ArgMatches, secrets: Secrets) -> Result<Raw, InputError> {
        let mut raw = Raw { values: BTreeMap::new(), secrets };
        for input in INPUTS {
            // A flag that this subcommand does not have is not given.
            let Ok(Some(values)) = flags.try_get_many::<OsString>(input.name) else { continue };
            let lines: Vec<_> = values.map(|value| text(input, value)).collect::<Result<_, _>>()?;
            let value = lines.join("\n");
            if !is_given(input.name, value.as_ref()) {
                let hint = "give the flag a value, or leave it out; a variable that was to fill it may be unset";
                return Err(InputError::Empty { name: input.name, path: None, hint });
            }
            raw.put(input, value);
        }
        Ok(raw)
    }

    /// The value of an input, if it was given.
    pub(super) fn get(&self, name: &'static str) -> Option<&str> {
        debug_assert!(table::find(name).is_some(), "{name} is in no table");
        self.values.get(name).map(String::as_str).or_else(|| table::find(name)?.default)
    }

    /// Whether an input was not given, or as its default: a runner hands over those of action.yml as if somebody had.
    pub(super) fn is_default(&self, name: &'static str) -> bool {
        self.get(name) == table::find(name).and_then(|input| input.default)
    }

    /// Takes a secret out.
    pub(super) fn take_secret(&mut self, name: &'static str) -> Option<Secret> {
        self.secrets.remove(name)
    }

    /// The tool's variable of a secret, if it is there and empty.
    pub(super) fn empty_variable(&self, name: &str) -> Option<&'static str> {
        self.secrets.empty_variable(name)
    }

    fn put(&mut self, input: &Input, value: String) {
        self.values.insert(input.name, value);
    }
}

/// Empty means not given, because the runner passes every declared input, and a script every variable that it may have.
/// Only `moving-tag` may be empty on purpose.
fn is_given(name: &str, value: &OsStr) -> bool {
    !value.is_empty() || name == "moving-tag"
}

fn text(input: &Input, value: &OsStr) -> Result<String, InputError> {
    match value.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(InputError::unshown(input.name, "it is not UTF-8 text")),
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// What the action would be given.
    pub(crate) fn action(inputs: &[(&str, &str)]) -> Result<Raw, InputError> {
        let variable = |name: &str| format!("INPUT_{}", name.to_uppercase());
        let variables = inputs.iter().map(|(name, value)| (variable(name).into(), value.into()));
        let secrets = inputs.iter().map(|(name, value)| (variable(name), value.as_bytes().to_vec()));
        Raw::from_action(variables, Secrets::from_variables(secrets))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::action;
    use super::*;

    #[test]
    fn dashes_are_kept() {
        let raw = action(&[("key-file", "/k"), ("image", "r.test/a")]).expect("known names");
        assert_eq!(raw.get("key-file"), Some("/k"));
        assert_eq!(raw.get("image"), Some("r.test/a"));
    }

    #[test]
    fn empty_is_not_given() {
        let raw = action(&[("context", ""), ("tag", ""), ("key", "")]).expect("known names");
        assert_eq!(raw.get("context"), Some("."), "the default");
        assert_eq!(raw.get("tag"), None);
    }

    #[test]
    fn an_empty_flag_is_refused_where_it_says_nothing() {
        let flagged = |flags: &[&str]| {
            let line = ["tagship", "release"].iter().chain(flags);
            let matches = crate::cli::command().try_get_matches_from(line).expect("a command line");
            let (_, flags) = matches.subcommand().expect("release");
            Raw::from_flags(flags, Secrets::from_variables([]))
        };
        for input in INPUTS.iter().filter(|input| input.given == Given::Anywhere) {
            for flags in [&[&*format!("--{}", input.name), ""][..], &[&*format!("--{}=", input.name)]] {
                match (flagged(flags), input.name) {
                    (Ok(raw), "moving-tag") => assert_eq!(raw.get("moving-tag"), Some("")),
                    (raw, name) => {
                        assert_eq!(raw.err().expect("refused").to_string(), format!("{name} is empty"), "{flags:?}");
                    }
                }
            }
        }
        assert!(flagged(&["--tag", "v1", "--tag", ""]).is_err(), "the last one counts");
        let lines = flagged(&["--labels", "", "--labels", "a=1"]).expect("a label");
        assert_eq!(lines.get("labels"), Some("\na=1"));
    }

    #[test]
    fn an_empty_moving_tag_is_given() {
        assert_eq!(action(&[("moving-tag", "")]).expect("known").get("moving-tag"), Some(""));
        assert_eq!(action(&[]).expect("nothing").get("moving-tag"), Some("stable"));
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest() {
        for (given, near) in [("moving_tag", "moving-tag"), ("handof", "handoff"), ("registry-tokn", "registry-token")]
        {
            let error = action(&[(given, "x")]).err().expect("refused");
            let InputError::Unknown { name, near: found } = &error else { panic!("{error}") };
            assert_eq!((name.as_str(), *found), (given, Some(near)));
        }
        let error = action(&[("colour", "x")]).err().expect("refused");
        assert!(matches!(error, InputError::Unknown { near: None, .. }), "{error}");
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let error = action(&[("allowed-signers", "x")]).err().expect("refused");
        assert!(matches!(error, InputError::NotYet { name: "allowed-signers", .. }), "{error}");
    }

    #[test]
    fn other_variables_are_not_read() {
        let variables = [("PATH", "/bin"), ("KEY", "secret"), ("input_image", "x"), ("XINPUT_IMAGE", "x")];
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let raw = Raw::from_action(variables, Secrets::from_variables([])).expect("none");
        assert!(raw.values.is_empty());
    }
}
