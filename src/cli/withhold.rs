//! What is wrong with a command line, without quoting what may be a secret.
//!
//! Clap shows the argument that it did not expect. That may be a key or a password, given where it does not belong, and
//! what a job prints is kept. So only what looks like a flag is shown.

use clap::error::{ContextKind, ContextValue};

/// What stands in the place of an argument that is not shown.
const INSTEAD: &str = "***";

/// Why it is not.
const WHY: &str = "what was given there is not shown, since it may be a secret";

/// Longer than the name of any flag, and shorter than a key.
const LONGEST_FLAG: usize = 32;

/// Takes the caller's own words out of an error, but for flags and subcommands that were misspelt.
pub(super) fn withhold(mut error: clap::Error, is_secret: impl Fn(&str) -> bool) -> clap::Error {
    let text = |error: &clap::Error, kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let instead = || ContextValue::String(INSTEAD.to_owned());
    let why = || ContextValue::StyledStrs(vec![WHY.into()]);
    if let Some(arg) = text(&error, ContextKind::InvalidArg)
        && (!is_flag(&arg) || is_secret(&arg))
    {
        error.insert(ContextKind::InvalidArg, instead());
        // In the place of suggestions, which repeat it.
        error.insert(ContextKind::Suggested, why());
    }
    if let Some(word) = text(&error, ContextKind::InvalidSubcommand)
        && (!is_misspelt(&word, &error) || is_secret(&word))
    {
        error.insert(ContextKind::InvalidSubcommand, instead());
        error.insert(ContextKind::Suggested, why());
    }
    // An empty one is how clap says that there is none.
    if text(&error, ContextKind::InvalidValue).is_some_and(|value| !value.is_empty()) {
        error.insert(ContextKind::InvalidValue, instead());
        error.insert(ContextKind::Suggested, why());
    }
    error
}

/// Whether a word is one in small letters that is much like a subcommand.
fn is_misspelt(word: &str, error: &clap::Error) -> bool {
    word.bytes().all(|letter| letter.is_ascii_lowercase()) && error.get(ContextKind::SuggestedSubcommand).is_some()
}

/// Whether it is spelt as flags are. Clap has cut a value off by then, and adds `<NAME>` to a flag that wants one.
fn is_flag(arg: &str) -> bool {
    let name = arg.split_once(' ').map_or(arg, |(name, _)| name);
    match name.strip_prefix("--") {
        Some(name) => {
            name.len() <= LONGEST_FLAG
                && name.starts_with(|letter: char| letter.is_ascii_lowercase())
                && name.bytes().all(|letter| letter.is_ascii_lowercase() || letter == b'-')
        }
        None => name.len() == 2 && name.starts_with('-'),
    }
}

#[cfg(test)]
mod tests {
    use super::super::command;
    use super::*;

    fn message(line: &[&str]) -> String {
        let error = command().try_get_matches_from(line).expect_err("refused");
        withhold(error, |word| word == "--correct-horse").to_string()
    }

    #[test]
    fn what_may_be_a_secret_is_not_quoted() {
        let pem = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nhunter22\n-----END ENCRYPTED-----\n";
        for secret in
            [pem, "hunter22", "-hunter22", "--hunter22", "--Hunter", "-p=hunter22", "build hunter22", "--x=hunter22"]
        {
            for line in [
                &["tagship", secret][..],
                &["tagship", "sign", secret],
                &["tagship", "sign", "--image", "r/a", secret],
                &["tagship", "sign", "--image", secret, secret],
                &["tagship", "action", secret],
                &["tagship", "keygen", "--", secret],
                &["tagship", "help", secret],
                &["tagship", "help", "sign", secret],
                &["tagship", "verify", "--force", secret],
                &["tagship", "sign", "--tlog", "true", secret],
                &["tagship", "sign", &format!("--help={secret}")],
            ] {
                let Err(error) = command().try_get_matches_from(line) else { continue };
                let message = withhold(error, |_| false).to_string();
                let told = ["hunter22", "Hunter", "BEGIN"].iter().any(|part| message.contains(part));
                assert!(!told, "{line:?}: {message}");
            }
        }
        assert!(!message(&["tagship", "sign", "--correct-horse"]).contains("horse"));
    }

    #[test]
    fn what_is_misspelt_is_named() {
        for (line, expected) in [
            (&["tagship", "sign", "--imag", "r/a"][..], "unexpected argument '--imag' found"),
            (&["tagship", "sign", "--imag=r/a"], "unexpected argument '--imag' found"),
            (&["tagship", "sign", "-x"], "unexpected argument '-x' found"),
            (&["tagship", "sign", "--context", "x"], "unexpected argument '--context' found"),
            (&["tagship", "relase"], "unrecognized subcommand 'relase'"),
            (&["tagship", "sign", "--image"], "a value is required for '--image <REPOSITORY>' but none was supplied"),
            (&["tagship", "sign", "hunter22"], "unexpected argument '***' found"),
            (&["tagship", "hunter22"], "unrecognized subcommand '***'"),
            (&["tagship", "hunter22"], "tip: what was given there is not shown, since it may be a secret"),
        ] {
            let message = message(line);
            assert!(message.contains(expected), "{line:?}: {message}");
        }
    }
}
