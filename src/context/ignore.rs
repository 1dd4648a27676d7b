//! An ignore file: its lines become rules, and the last rule that matches a path decides.
//!
//! Pure. A rule matches a path also when it matches one of the directories above it.

use super::pattern::{Pattern, PatternError};

/// The rules of an ignore file, in its order.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    exception: bool,
    pattern: Pattern,
}

/// A line of an ignore file that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct RuleError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

impl From<(usize, PatternError)> for RuleError {
    fn from((line, error): (usize, PatternError)) -> Self {
        RuleError { line, why: error.to_string() }
    }
}

/// What is known about a path: which rules match it or a directory above it.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    matched: Vec<bool>,
    /// The path is left out.
    pub(super) ignored: bool,
}

impl Rules {
    /// Reads an ignore file.
    ///
    /// # Errors
    /// The first line that is no rule.
    pub fn parse(text: &str) -> Result<Rules, RuleError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            // A comment starts in the first column; behind white space it is a pattern.
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let line = line.trim();
            let (exception, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if pattern.is_empty() {
                return Err(RuleError { line: number, why: "there is nothing after the “!”".to_owned() });
            }
            let cleaned = clean(pattern);
            let pattern = Pattern::parse(&cleaned).map_err(|error| (number, error))?;
            rules.push(Rule { exception, pattern });
        }
        Ok(Rules(rules))
    }

    /// What the rules say about the context itself, which is never left out.
    pub(super) fn root(&self) -> Verdict {
        Verdict { matched: vec![false; self.0.len()], ignored: false }
    }

    /// What the rules say about a path, given what they say about its directory.
    pub(super) fn judge(&self, path: &[u8], above: &Verdict) -> Verdict {
        let mut verdict = Verdict { matched: Vec::with_capacity(self.0.len()), ignored: false };
        for (rule, matched_above) in self.0.iter().zip(&above.matched) {
            let matched = *matched_above || rule.pattern.matches(path);
            verdict.matched.push(matched);
            if matched {
                verdict.ignored = !rule.exception;
            }
        }
        verdict
    }

    /// Whether something below an ignored directory may be kept: only an exception that did not match so far can do
    /// that. Directories where nothing can be kept are not even read.
    pub(super) fn may_keep_below(&self, directory: &[u8], verdict: &Verdict) -> bool {
        self.0
            .iter()
            .zip(&verdict.matched)
            .any(|(rule, matched)| rule.exception && !matched && rule.pattern.may_match_below(directory))
    }
}

/// The shortest form of a path, as Go's `filepath.Clean` makes it, relative to the context.
fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges a path from the root down, as the walk does.
    fn ignored(rules: &Rules, path: &str) -> bool {
        let mut verdict = rules.root();
        for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            verdict = rules.judge(&path.as_bytes()[..end], &verdict);
        }
        verdict.ignored
    }

    #[test]
    fn files_of_rules() {
        let vectors: &[(&str, &str, &[&str], &[&str])] = &[
            ("no rule", "", &[], &["a", "a/b"]),
            ("a name at the root", "a", &["a", "a/b", "a/b/c"], &["b", "b/a", "ab"]),
            ("comments", "# a\n#b\n\nc", &["c"], &["a", "b", "# a"]),
            ("an indented comment is a pattern", " #a", &["#a"], &["a"]),
            ("a comment sign in a name", "a#b", &["a#b"], &["a"]),
            ("white space around", "  a \t\n b\r\n", &["a", "b"], &["  a"]),
            ("a byte order mark", "\u{feff}a", &["a"], &["b"]),
            ("a leading slash", "/a\n/b/c", &["a", "b/c", "a/x"], &["x/a", "b"]),
            ("a trailing slash", "a/", &["a", "a/b"], &["b/a"]),
            ("doubled slashes", "a//b", &["a/b"], &["a"]),
            ("dots in the path", "./a/./b", &["a/b"], &["a"]),
            ("up and down again", "a/../b", &["b"], &["a"]),
            ("out of the context", "../a", &[], &["a"]),
            ("up from the root", "/../a", &["a"], &["b"]),
            ("the context itself", ".", &[], &["a", ".a"]),
            ("a slash alone", "/", &[], &["a"]),
            (
                "one level down",
                "*/temp*",
                &["some/temp", "some/temporary.txt", "some/temporary/x"],
                &["temp", "a/b/temp"],
            ),
            ("two levels down", "*/*/temp*", &["some/sub/temporary.txt"], &["some/temp"]),
            ("any level", "**/*.go", &["a.go", "b/a.go", "b/c/a.go"], &["a.c"]),
            ("all", "*", &["a", "a/b", ".a"], &[]),
            ("all with two stars", "**", &["a", "a/b"], &[]),
            ("an exception", "*.md\n!README.md", &["a.md"], &["README.md", "a", "x/a.md"]),
            (
                "exclusion, exception, exclusion",
                "*.md\n!README*.md\nREADME-secret.md",
                &["a.md", "README-secret.md"],
                &["README.md", "README-long.md"],
            ),
            (
                "an exception last wins over all",
                "*.md\nREADME-secret.md\n!README*.md",
                &["a.md"],
                &["README.md", "README-secret.md"],
            ),
            ("an exception before the rule does nothing", "!a\na", &["a"], &["b"]),
            ("only exceptions", "!a", &[], &["a", "b"]),
            ("all but one", "*\n!keep", &["a", "b/c"], &["keep", "keep/x"]),
            ("all but one, two stars", "**\n!keep", &["a", "b/keep"], &["keep", "keep/x"]),
            ("a file in an ignored directory", "a\n!a/keep", &["a", "a/b"], &["a/keep", "b"]),
            ("a directory in an ignored one", "a\n!a/b/c", &["a/b", "a/b/d"], &["a/b/c", "a/b/c/d/e"]),
            ("an exception at any depth", "a\n!**/keep", &["a", "a/b/c"], &["a/keep", "a/b/keep", "a/b/keep/x"]),
            ("an exception with a star", "a\n!a/*/keep", &["a/keep", "a/b/c"], &["a/b/keep"]),
            ("ignored again below an exception", "a\n!a/b\na/b/c", &["a/x", "a/b/c", "a/b/c/d"], &["a/b", "a/b/d"]),
            ("an exception with a leading slash", "*\n!/a", &["b"], &["a", "a/b"]),
            ("an exception with a trailing slash", "*\n!a/", &["b"], &["a", "a/b"]),
            ("an exception behind white space", "*\n!  a", &["b"], &["a"]),
            ("an escaped exclamation mark", "\\!a", &["!a"], &["a"]),
            ("an escaped comment sign", "\\#a", &["#a"], &["a"]),
            ("an escaped star", "\\*", &["*"], &["a"]),
            ("classes", "[a-c][^0-9].txt", &["ax.txt", "c-.txt"], &["a1.txt", "dx.txt"]),
            ("a question mark", "temp?", &["tempa", "temp1/x"], &["temp", "temp12"]),
            ("hidden files are no exception", "*", &[".git", ".git/config"], &[]),
            ("case counts", "A", &["A"], &["a"]),
            ("everything below, not itself", "a/**", &["a/b", "a/b/c"], &["a", "ab"]),
            ("version control anywhere", "**/.git", &[".git/config", "a/.git", "a/.git/x"], &["git", ".gitignore"]),
            ("ends with", "**.log", &["a.log", "a/b.log", "a.log/x"], &["a.logs"]),
            ("starts with", "a**", &["a", "ab", "ab/c"], &["b/a"]),
            ("the ignore file itself", ".dockerignore\nContainerfile", &[".dockerignore", "Containerfile"], &["a"]),
            ("a name with a space", "a b", &["a b"], &["a", "b"]),
            ("letters beyond ASCII", "größe/*", &["größe/ü"], &["grosse/u"]),
            ("twice the same", "a\na", &["a"], &["b"]),
            ("back and forth", "a\n!a\na\n!a", &[], &["a", "a/b"]),
            (
                "dependencies but one",
                "node_modules\n!node_modules/keep/**",
                &["node_modules/x"],
                &["node_modules/keep/y"],
            ),
        ];
        for (name, text, yes, no) in vectors {
            let rules = Rules::parse(text).expect(name);
            for path in *yes {
                assert!(ignored(&rules, path), "{name}: {path} should be left out");
            }
            for path in *no {
                assert!(!ignored(&rules, path), "{name}: {path} should be kept");
            }
        }
    }

    #[test]
    fn bad_lines_are_named_by_number() {
        let vectors = [
            ("an open class", "a\n[b", 2),
            ("an empty class", "a[]b", 1),
            ("a lone exclamation mark", "# x\n\n!", 3),
            ("a lone exclamation mark and space", "!  ", 1),
            ("a backslash at the end", "a\\", 1),
            ("a reversed range", "a\nb\n![9-0]", 3),
        ];
        for (defect, text, line) in vectors {
            assert_eq!(Rules::parse(text).expect_err(defect).line, line, "{defect}");
        }
    }

    #[test]
    fn directories_are_read_only_where_something_may_be_kept() {
        let vectors = [
            ("a", "a", false),
            ("a\n!b", "a", false),
            ("a\n!a/b", "a", true),
            ("a\n!a/b", "a/c", false),
            ("a\n!**/keep", "a/b/c", true),
            ("a\n!a/*/keep", "a/b", true),
            ("a\n!a/*/keep", "a/b/c", false),
            ("node_modules\n!README.md", "node_modules", false),
        ];
        for (text, directory, expected) in vectors {
            let rules = Rules::parse(text).expect("rules");
            let mut verdict = rules.root();
            for end in directory.match_indices('/').map(|(at, _)| at).chain([directory.len()]) {
                verdict = rules.judge(&directory.as_bytes()[..end], &verdict);
            }
            assert!(verdict.ignored);
            assert_eq!(rules.may_keep_below(directory.as_bytes(), &verdict), expected, "{text:?} {directory}");
        }
    }

    #[test]
    fn cleaned_paths() {
        for (path, expected) in [
            ("a", "a"),
            ("/", "."),
            (".", "."),
            ("a/b/../c", "a/c"),
            ("../../a", "../../a"),
            ("/../a", "a"),
            ("a/..", "."),
            ("a/../..", ".."),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }
}
