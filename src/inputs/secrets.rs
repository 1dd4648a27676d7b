//! The secrets that came in the environment, taken out of it before anything else runs.
//!
//! The environment that a process is started with stays readable in its memory and under `/proc` for its whole life,
//! so the values are wiped there. What they open is known elsewhere.

use std::collections::BTreeMap;

use tagship_core::secret::Secret;
use tagship_core::sys::{self, SysError};

use super::table::{self, Given, INPUTS};
use crate::telling;

/// Tokens that a runner gives each job and that are of no use here: what is not in memory cannot be taken from it.
const TOKENS: [&str; 4] = ["FORGEJO_TOKEN", "GITHUB_TOKEN", "ACTIONS_RUNTIME_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"];

/// Secrets by their input's name.
pub struct Secrets {
    given: BTreeMap<&'static str, Secret>,
    /// The tool's variables that are there and empty: not given, and named where one is missing.
    empty: Vec<&'static str>,
}

impl Secrets {
    /// Takes them. Only while there is a single thread.
    ///
    /// # Errors
    /// When there are threads already.
    pub fn take() -> Result<Secrets, SysError> {
        let variables = INPUTS.iter().flat_map(|input| variables(input.name)).filter(|name| !name.is_empty());
        let names: Vec<String> = variables.chain(TOKENS.map(str::to_owned)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let taken = sys::take_from_environment(&names)?;
        Ok(Secrets::from_variables(taken.into_iter().map(|(name, mut value)| (name, std::mem::take(&mut *value)))))
    }

    /// Sorts variables by the input that they are for. Empty ones were not given, and the action's own come first.
    pub(super) fn from_variables(taken: impl IntoIterator<Item = (String, Vec<u8>)>) -> Secrets {
        let mut taken: BTreeMap<String, Secret> =
            taken.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        let of_the_tool = INPUTS.iter().filter_map(|input| tools_variable(input.name));
        let empty = of_the_tool.filter(|name| taken.get(*name).is_some_and(Secret::is_empty)).collect();
        taken.retain(|_, value| !value.is_empty());
        let mut given = BTreeMap::new();
        for input in INPUTS {
            // The runner's copy under the bare name is wiped, and never read.
            let [own, tools, _] = variables(input.name);
            if let Some(secret) = taken.remove(&own).or_else(|| taken.remove(&tools)) {
                given.insert(input.name, secret);
            }
        }
        Secrets { given, empty }
    }

    /// Hands out each of them, to have it hidden.
    pub fn each(&self, hide: impl FnMut(&str)) {
        self.given.values().filter_map(Secret::expose_str).for_each(hide);
    }

    /// Whether a text holds one of them.
    #[must_use]
    pub fn are_in(&self, text: &str) -> bool {
        self.given.values().any(|secret| is_in(secret, text))
    }

    pub(super) fn empty_variable(&self, name: &str) -> Option<&'static str> {
        tools_variable(name).filter(|variable| self.empty.contains(variable))
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Secret> {
        self.given.remove(name)
    }
}

/// Whether a text holds a secret, or one of its telling lines. A short one may be part of a word by chance, so it has to
/// be the whole text; one of less than four letters is nobody's secret.
pub(super) fn is_in(secret: &Secret, text: &str) -> bool {
    let Some(secret) = secret.expose_str().map(str::trim) else { return false };
    telling::lines(secret).any(|line| text.contains(line))
        || (secret.len() >= telling::SHORTEST && text.trim() == secret)
}

/// Where an input's secret may be: the action's variable, the tool's, and the bare name under which runners pass each
/// input to an action without arguments of the caller's. Empty names, which no variable has, for what is no secret.
fn variables(name: &'static str) -> [String; 3] {
    match tools_variable(name) {
        Some(tools) => [table::variable(name), tools.to_owned(), name.to_owned()],
        None => [const { String::new() }; 3],
    }
}

fn tools_variable(name: &str) -> Option<&'static str> {
    match table::find(name)?.given {
        Given::Secret(variable) => Some(variable),
        Given::Anywhere | Given::NotYet => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Secrets {
        Secrets::from_variables(variables.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())))
    }

    fn get(secrets: &mut Secrets, name: &str) -> Option<String> {
        secrets.remove(name).and_then(|secret| secret.expose_str().map(str::to_owned))
    }

    #[test]
    fn the_actions_come_before_the_tools() {
        let mut secrets = of(&[("TAGSHIP_KEY", "tool"), ("INPUT_KEY", "action"), ("key", "bare")]);
        assert_eq!(get(&mut secrets, "key").as_deref(), Some("action"));
        let mut secrets = of(&[("TAGSHIP_REGISTRY_TOKEN", "tool"), ("INPUT_REGISTRY-TOKEN", "")]);
        assert_eq!(get(&mut secrets, "registry-token").as_deref(), Some("tool"));
    }

    #[test]
    fn empty_and_bare_are_not_given() {
        let mut secrets = of(&[("INPUT_KEY", ""), ("key-password", "bare"), ("FORGEJO_TOKEN", "t")]);
        for name in ["key", "key-password", "registry-token"] {
            assert_eq!(get(&mut secrets, name), None, "{name}");
        }
    }

    #[test]
    fn a_text_that_holds_a_secret_is_known() {
        let pem = "-----BEGIN PRIVATE KEY-----\neyJrZGYiOnsi\n-----END PRIVATE KEY-----\n";
        for (secret, text, expected) in [
            ("hunter22", "x hunter22", true),
            ("hunter22\n", "hunter22", true),
            ("hunter22", "hunter2", false),
            ("demo", "git.example.org/demo", false),
            ("demo", "demo", true),
            ("abc", "abc", false),
            ("", "", false),
            (pem, "a eyJrZGYiOnsi b", true),
            (pem, pem, true),
            (pem, "-----BEGIN PRIVATE KEY-----", false),
        ] {
            assert_eq!(of(&[("INPUT_KEY", secret)]).are_in(text), expected, "{secret:?} in {text:?}");
        }
    }

    #[test]
    fn every_secret_has_its_three_names() {
        assert_eq!(variables("key-password"), ["INPUT_KEY-PASSWORD", "TAGSHIP_KEY_PASSWORD", "key-password"]);
        assert!(variables("image").iter().all(String::is_empty));
    }
}
