//! The last lines of a run: what was released, where, how long each step took. Pure.

use std::time::Duration;

/// What the end of the log says.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The first line, a sentence.
    pub headline: String,
    /// Names and values shown beneath it.
    pub facts: Vec<(&'static str, String)>,
    /// Each step that ran, in order, and how long it took.
    pub steps: Vec<(&'static str, Duration)>,
    /// From the start of the program to now.
    pub total: Duration,
}

impl Summary {
    /// The lines to show.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let width = self.facts.iter().map(|(name, _)| name.len()).chain(["time".len()]).max().unwrap_or(0);
        let mut lines = vec![self.headline.clone()];
        lines.extend(self.facts.iter().map(|(name, value)| format!("  {name:width$}  {value}")));
        let steps: Vec<_> = self.steps.iter().map(|(name, took)| format!("{name} {}", seconds(*took))).collect();
        let all = format!("{} in all", seconds(self.total));
        let time = if steps.is_empty() { all } else { format!("{}; {all}", steps.join(", ")) };
        lines.push(format!("  {:width$}  {time}", "time"));
        lines
    }
}

/// A duration as people read it: milliseconds below a second, tenths below a minute, then minutes and seconds.
#[must_use]
pub(super) fn seconds(took: Duration) -> String {
    let whole = took.as_secs();
    if whole < 1 {
        format!("{} ms", took.as_millis())
    } else if whole < 60 {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_line_up() {
        let summary = Summary {
            headline: "released registry.test/app:v1".to_owned(),
            facts: vec![("digest", "sha256:00".to_owned()), ("host", "deployed".to_owned())],
            steps: vec![("build", Duration::from_millis(1234)), ("push", Duration::from_secs(61))],
            total: Duration::from_secs(63),
        };
        assert_eq!(
            summary.lines(),
            [
                "released registry.test/app:v1",
                "  digest  sha256:00",
                "  host    deployed",
                "  time    build 1.2 s, push 1 min 1 s; 1 min 3 s in all",
            ]
        );
    }
}
