//! The files through which a step talks to its runner: outputs and the step summary.
//!
//! What to write is decided elsewhere.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Where the runner wants outputs and the summary; either may be absent, as outside of a runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunnerFiles {
    /// From `GITHUB_OUTPUT` or `FORGEJO_OUTPUT`.
    pub output: Option<PathBuf>,
    /// From `GITHUB_STEP_SUMMARY` or `FORGEJO_STEP_SUMMARY`. Forgejo does not show it yet.
    pub summary: Option<PathBuf>,
}

impl RunnerFiles {
    /// The files that a runner names in variables, `FORGEJO_` before `GITHUB_`.
    #[must_use]
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> RunnerFiles {
        let file = |name| variable(&format!("FORGEJO_{name}")).or_else(|| variable(&format!("GITHUB_{name}")));
        RunnerFiles { output: file("OUTPUT").map(PathBuf::from), summary: file("STEP_SUMMARY").map(PathBuf::from) }
    }

    /// Appends outputs. Later steps read them, so a failure to write them is an error.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
    pub fn write_outputs(&self, outputs: &[(&str, String)]) -> std::io::Result<()> {
        match &self.output {
            Some(path) => append(path, &render_outputs(outputs)),
            None => Ok(()),
        }
    }

    /// Appends the summary.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
    pub fn write_summary(&self, lines: &[String]) -> std::io::Result<()> {
        match &self.summary {
            Some(path) => append(path, &format!("```text\n{}\n```\n", lines.join("\n").replace("```", "` ` `"))),
            None => Ok(()),
        }
    }
}

fn append(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes())
}

/// A line each, or the delimited form for a value of several: no value can start an output of its own.
fn render_outputs(outputs: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in outputs {
        if !value.contains(['\n', '\r']) {
            text.push_str(&format!("{name}={value}\n"));
            continue;
        }
        let mut delimiter = "TAGSHIP_END".to_owned();
        while value.lines().any(|line| line == delimiter) {
            delimiter.push('_');
        }
        // A lone carriage return ends a line for some readers of this file.
        let value = value.replace('\r', "");
        text.push_str(&format!("{name}<<{delimiter}\n{value}\n{delimiter}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the file as a runner does.
    fn parse(text: &str) -> Vec<(String, String)> {
        let mut outputs = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.contains("<<")) {
                outputs.push((name.to_owned(), value.to_owned()));
                continue;
            }
            let (name, delimiter) = line.split_once("<<").expect("delimited form");
            let value: Vec<_> = lines.by_ref().take_while(|line| *line != delimiter).collect();
            outputs.push((name.to_owned(), value.join("\n")));
        }
        outputs
    }

    #[test]
    fn values_cannot_start_outputs() {
        let vectors = [
            "plain",
            "",
            "two\nlines",
            "x\ndigest=sha256:evil",
            "x\nTAGSHIP_END\ndigest=evil",
            "TAGSHIP_END\nTAGSHIP_END_",
            "digest<<EOF",
        ];
        for value in vectors {
            let text = render_outputs(&[("outcome", value.to_owned()), ("tag", "v1".to_owned())]);
            let expected = [("outcome".to_owned(), value.to_owned()), ("tag".to_owned(), "v1".to_owned())];
            assert_eq!(parse(&text), expected, "{value:?}");
        }
    }

    #[test]
    fn a_carriage_return_cannot_end_a_value() {
        let text = render_outputs(&[("outcome", "x\rTAGSHIP_END\rdigest=evil".to_owned())]);
        assert!(!text.contains('\r'));
    }

    #[test]
    fn the_runners_own_variables_come_first() {
        let known = [("FORGEJO_OUTPUT", "/f"), ("GITHUB_OUTPUT", "/g"), ("GITHUB_STEP_SUMMARY", "/s")];
        let variable =
            |name: &str| known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let expected = RunnerFiles { output: Some("/f".into()), summary: Some("/s".into()) };
        assert_eq!(RunnerFiles::from_environment(variable), expected);
        assert_eq!(RunnerFiles::from_environment(|_| None), RunnerFiles::default());
    }

    #[test]
    fn files_are_appended_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("output");
        std::fs::write(&path, "old=1\n").expect("a file");
        let files = RunnerFiles { output: Some(path.clone()), summary: None };
        files.write_outputs(&[("tag", "v1".to_owned())]).expect("written");
        files.write_summary(&["nowhere".to_owned()]).expect("nothing to write to");
        assert_eq!(std::fs::read_to_string(&path).expect("text"), "old=1\ntag=v1\n");
    }
}
