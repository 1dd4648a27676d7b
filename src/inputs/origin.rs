//! Where a release comes from, as the runner tells it: the git tag, the commit, the run.
//!
//! Only facts of the environment; what was asked for is in the inputs.

/// Facts of the run. All absent outside of a runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The git tag whose push started the run; none if a branch did.
    pub git_tag: Option<String>,
    /// The commit, in hexadecimal.
    pub commit: Option<String>,
    /// The page of the source.
    pub source: Option<String>,
    /// The page of the run.
    pub run: Option<String>,
}

impl Origin {
    /// Reads the variables that Forgejo's runner (`FORGEJO_*`) and those like it (`GITHUB_*`) set.
    #[must_use]
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Origin {
        let either = |name: &str| {
            variable(&format!("FORGEJO_{name}"))
                .filter(|value| !value.is_empty())
                .or_else(|| variable(&format!("GITHUB_{name}")).filter(|value| !value.is_empty()))
        };
        let git_tag = either("REF").and_then(|name| Some(name.strip_prefix("refs/tags/")?.to_owned()));
        let commit = either("SHA").filter(|sha| is_commit(sha));
        let source = either("SERVER_URL")
            .zip(either("REPOSITORY"))
            .map(|(server, repository)| format!("{}/{repository}", server.trim_end_matches('/')));
        // Forgejo's pages count runs by their number within the repository, not by their id.
        let run = source.clone().zip(either("RUN_NUMBER")).map(|(source, run)| format!("{source}/actions/runs/{run}"));
        Origin { git_tag, commit, source, run }
    }

    /// The commit as short as `git` shows it by default: seven digits.
    #[must_use]
    pub fn short_commit(&self) -> Option<&str> {
        self.commit.as_deref().and_then(|commit| commit.get(..7))
    }
}

/// A commit's name in SHA-1 or SHA-256.
fn is_commit(sha: &str) -> bool {
    matches!(sha.len(), 40 | 64) && sha.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(variables: &[(&str, &str)]) -> Origin {
        Origin::from_environment(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_pushed_tag() {
        let origin = origin(&[
            ("GITHUB_REF", "refs/tags/v0.2.9"),
            ("GITHUB_SHA", SHA),
            ("GITHUB_SERVER_URL", "https://git.test/"),
            ("GITHUB_REPOSITORY", "chris/app"),
            ("GITHUB_RUN_NUMBER", "12"),
            ("GITHUB_RUN_ID", "4711"),
        ]);
        assert_eq!(origin.git_tag.as_deref(), Some("v0.2.9"));
        assert_eq!(origin.short_commit(), Some("0123456"));
        assert_eq!(origin.source.as_deref(), Some("https://git.test/chris/app"));
        assert_eq!(origin.run.as_deref(), Some("https://git.test/chris/app/actions/runs/12"));
    }

    #[test]
    fn a_branch_is_no_tag() {
        assert_eq!(origin(&[("GITHUB_REF", "refs/heads/v0.2.9")]).git_tag, None);
        assert_eq!(origin(&[("GITHUB_REF_NAME", "v0.2.9")]).git_tag, None);
    }

    #[test]
    fn forgejos_own_variables_come_first() {
        let origin = origin(&[("GITHUB_REF", "refs/tags/v1"), ("FORGEJO_REF", "refs/tags/v2")]);
        assert_eq!(origin.git_tag.as_deref(), Some("v2"));
    }

    #[test]
    fn what_is_no_commit_is_none() {
        for sha in ["", "main", "0123456", &format!("{SHA}0"), &SHA.replace('0', "g")] {
            assert_eq!(origin(&[("GITHUB_SHA", sha)]).commit, None, "{sha}");
        }
    }

    #[test]
    fn nothing_outside_of_a_runner() {
        assert_eq!(origin(&[]), Origin::default());
    }
}
