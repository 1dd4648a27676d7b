//! What opens something: the registry's login and what it is trusted by, the private key, its password.
//!
//! Given in inputs, variables or files; what they open is known elsewhere.

use std::path::PathBuf;

use tagship_core::secret::Secret;

use super::files::{pem, secret};
use super::table::ways;
use super::{Access, InputError, Key, Raw};

/// The password that `tagship keygen` encrypts the new key with.
///
/// # Errors
/// When it is missing or empty, or its file cannot be read.
pub fn new_password(mut raw: Raw) -> Result<Secret, InputError> {
    const NAME: &str = "key-password";
    const FILE: &str = "key-password-file";
    let hint = "set TAGSHIP_KEY_PASSWORD, or give --key-password-file".to_owned();
    let empty =
        |name, path| InputError::Empty { name, path, hint: "no key is made without a password: give one there" };
    match (password(&mut raw)?, raw.get(FILE), raw.empty_variable(NAME)) {
        (Some(password), ..) if !password.is_empty() => Ok(password),
        (_, Some(path), _) => Err(empty(FILE, Some(path.into()))),
        (_, None, Some(variable)) => Err(empty(variable, None)),
        (_, None, None) => Err(InputError::Missing { name: NAME, hint }),
    }
}

pub(super) fn password(raw: &mut Raw) -> Result<Option<Secret>, InputError> {
    secret(raw, "key-password", "key-password-file", "key-password and key-password-file")
}

pub(super) fn key(raw: &mut Raw) -> Result<Option<Key>, InputError> {
    let pem = secret(raw, "key", "key-file", "key and key-file")?;
    match (pem, password(raw)?) {
        (Some(pem), password) => Ok(Some(Key { pem, password: password.unwrap_or_else(|| Secret::new(Vec::new())) })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(missing("key", "key-file")),
    }
}

pub(super) fn access(raw: &mut Raw) -> Result<Access, InputError> {
    let secret = secret(raw, "registry-token", "registry-token-file", "registry-token and registry-token-file")?;
    let login = match (raw.get("registry-user"), secret) {
        (Some(user), Some(secret)) => Some((user_name(user)?, token(raw, secret)?)),
        (None, None) => None,
        (Some(_), None) => return Err(missing("registry-token", "registry-token-file")),
        (None, Some(_)) => {
            let hint = "give the name of the user whom the token belongs to".to_owned();
            return Err(InputError::Missing { name: "registry-user", hint });
        }
    };
    let ca = pem("ca", raw.get("ca"))?;
    Ok(Access { login, auth_file: raw.get("registry-auth-file").map(PathBuf::from), ca })
}

/// A secret that something else needs.
fn missing(name: &'static str, file: &'static str) -> InputError {
    let ways = ways(name);
    let hint =
        format!("give {file}, or {ways}; in a workflow, check that the repository has the secret that the input names");
    InputError::Missing { name, hint }
}

/// A name that can be told from the password behind it (RFC 7617 section 2). One with a colon is not shown: it may be
/// both.
fn user_name(user: &str) -> Result<String, InputError> {
    let wrong = |why| Err(InputError::unshown("registry-user", why));
    if user.contains(':') {
        return wrong("a user's name has no colon, and the password or token is given apart");
    }
    if user.chars().any(char::is_control) {
        return wrong("it has a control character in it, such as a line end");
    }
    Ok(user.to_owned())
}

/// A token that is one: an empty one would be refused by the registry, in words that name no file. What is in it is the
/// registry's to judge: Google's is a JSON text of several lines, whatever RFC 7617 says of control characters.
fn token(raw: &Raw, secret: Secret) -> Result<Secret, InputError> {
    const FILE: &str = "registry-token-file";
    let file = raw.get(FILE);
    if secret.is_empty() {
        let hint = "write the token into it, or leave the login out";
        return Err(InputError::Empty { name: FILE, path: file.map(PathBuf::from), hint });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use tagship_core::explain::Explain as _;

    use super::*;
    use crate::inputs::Secrets;
    use crate::inputs::raw::testing::action;

    /// A file with this content, and its path.
    fn file(content: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        std::fs::write(&path, content).expect("written");
        let path = path.to_str().expect("a path").to_owned();
        (dir, path)
    }

    #[test]
    fn no_login_is_made_of_what_is_no_token() {
        for (content, why) in [
            ("", Some("is empty")),
            ("\n", Some("is empty")),
            ("\r\n", Some("is empty")),
            ("t0ken\n", None),
            ("{\n  \"t0\": \"ken\"\n}\n", None),
            ("t0 ken:ä", None),
        ] {
            let (_dir, path) = file(content);
            let taken = |token: (&str, &str)| access(&mut action(&[("registry-user", "ci"), token]).expect("known"));
            let by_file = taken(("registry-token-file", &path)).err();
            let said = by_file.as_ref().map(ToString::to_string).unwrap_or_default();
            assert_eq!(by_file.is_some(), why.is_some(), "{content:?}: {said}");
            assert!(why.is_none_or(|why| said.contains(why) && said.contains("registry-token-file")), "{said}");
        }
    }

    #[test]
    fn a_users_name_can_be_told_from_the_password() {
        for (user, why) in
            [("ci:hunter22", "no colon"), (":", "no colon"), ("c\ni", "a line end"), ("c\u{1b}i", "control")]
        {
            let raw = action(&[("registry-user", user), ("registry-token", "t0ken")]);
            let error = access(&mut raw.expect("known")).err().expect("refused").to_string();
            assert!(error.starts_with("registry-user is not shown:") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_new_key_has_a_password() {
        let tool = |file: Option<&str>, variable: Option<&str>| {
            let line = ["tagship", "keygen"].into_iter().map(str::to_owned);
            let line = line.chain(file.map(|path| format!("--key-password-file={path}")));
            let matches = crate::cli::command().try_get_matches_from(line).expect("a command line");
            let taken = variable.map(|value| ("TAGSHIP_KEY_PASSWORD".to_owned(), value.as_bytes().to_vec()));
            let (_, flags) = matches.subcommand().expect("keygen");
            new_password(Raw::from_flags(flags, Secrets::from_variables(taken)).expect("text"))
        };
        let ((_empty, empty), (_good, good)) = (file("\n"), file("hunter22\n"));
        for (file, variable, expected) in [
            (None, None, "key-password is missing"),
            (None, Some(""), "TAGSHIP_KEY_PASSWORD is empty"),
            (Some(&*empty), None, "the file of key-password-file, "),
            (Some(&*empty), Some(""), "the file of key-password-file, "),
        ] {
            let error = tool(file, variable).err().expect("refused").to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(tool(Some(&good), Some("")).is_ok() && tool(None, Some("hunter22")).is_ok());
    }

    #[test]
    fn hints_name_what_either_kind_of_user_can_give() {
        for (inputs, expected) in [
            (&[("registry-user", "ci")][..], &["registry-token-file", "TAGSHIP_REGISTRY_TOKEN", "in a workflow"][..]),
            (
                &[("registry-user", "ci"), ("registry-token-file", "/none")],
                &["TAGSHIP_REGISTRY_TOKEN", "in a workflow"],
            ),
        ] {
            let hint = access(&mut action(inputs).expect("known")).err().expect("refused").hint().expect("a hint");
            assert!(expected.iter().all(|word| hint.contains(word)), "{hint}");
        }
        let error = key(&mut action(&[("key-password", "p")]).expect("known")).err().expect("refused");
        assert!(error.hint().is_some_and(|hint| hint.contains("TAGSHIP_KEY in")), "{error}");
    }
}
