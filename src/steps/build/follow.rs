//! What the engine says during a build, shown as it comes.
//!
//! Nothing here decides what is built.

use bollard::errors::Error;
use bollard::models::BuildInfo;
use futures_util::StreamExt as _;
use tagship_core::text;

use super::BuildError;
use crate::log::Log;

/// Shows the engine's words as they come, a whole line at a time, and remembers the instruction that it is at. Not shown
/// are its identifiers, and the warning that the build argument `unasked` was not used.
pub(super) async fn follow(
    mut messages: impl futures_util::Stream<Item = Result<BuildInfo, Error>> + Unpin,
    unasked: Option<&str>,
    log: &Log,
) -> Result<(), BuildError> {
    let mut lines = Lines::default();
    let mut step = None;
    let noise = unasked.map(|name| format!("[Warning] one or more build args were not consumed: [{name}]"));
    let mut show = |line: &str| {
        if noise.as_deref() == Some(line) || is_bookkeeping(line) {
            return;
        }
        if is_step(line) {
            step = Some(line.trim().to_owned());
        }
        log.quote(line);
    };
    let failed = loop {
        match messages.next().await {
            None => break None,
            Some(Ok(message)) => {
                // Progress of a pull comes many times a second, each with the layer's id.
                let status = message.status.filter(|_| message.id.is_none() && message.progress_detail.is_none());
                let words = message.stream.or(status.map(|status| status + "\n")).unwrap_or_default();
                lines.add(&words).iter().for_each(|line| show(line));
            }
            Some(Err(error)) => break Some(error),
        }
    };
    lines.rest().iter().for_each(|line| show(line));
    match failed {
        None => Ok(()),
        Some(
            Error::DockerStreamError { error: message }
            | Error::DockerResponseServerError { message, status_code: 400..500 },
        ) => {
            let message = without_step(message.trim(), step.as_deref());
            Err(BuildError::Failed { step, message: text::escape(&message) })
        }
        Some(other) => Err(BuildError::Engine(other)),
    }
}

/// Podman's message names the instruction once more.
fn without_step(message: &str, step: Option<&str>) -> String {
    let instruction = step.and_then(|step| step.split_once(": ")).map(|(_, instruction)| instruction);
    let again = instruction.map(|instruction| format!("building at STEP \"{instruction}\": "));
    again.and_then(|again| message.strip_prefix(&again)).unwrap_or(message).to_owned()
}

/// `STEP 2/5: RUN make` of Podman, `Step 2/5 : RUN make` of Docker.
fn is_step(line: &str) -> bool {
    let line = line.trim_start();
    let rest = line.strip_prefix("STEP ").or_else(|| line.strip_prefix("Step "));
    rest.is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
}

/// `--> 4d5e…` after each step, and the four lines in which Podman says at the end what it has named, twice.
fn is_bookkeeping(line: &str) -> bool {
    let is_id = |text: &str| text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    line.strip_prefix("--> ").or_else(|| line.strip_prefix("Successfully built ")).is_some_and(is_id)
        || line.len() == 64 && is_id(line)
        || line.starts_with("Successfully tagged ")
}

/// Lines out of pieces of text that end anywhere.
#[derive(Default)]
struct Lines {
    unfinished: String,
}

impl Lines {
    /// More than any line that a person reads: without an end to it, it is shown as it is.
    const LONGEST: usize = 32 * 1024;

    /// The lines that a piece finishes.
    fn add(&mut self, piece: &str) -> Vec<String> {
        self.unfinished.push_str(piece);
        let mut finished = Vec::new();
        while let Some((line, rest)) = self.unfinished.split_once('\n') {
            finished.extend(shown(line));
            self.unfinished = rest.to_owned();
        }
        if self.unfinished.len() > Lines::LONGEST {
            finished.extend(self.rest());
        }
        finished
    }

    /// What is left without a line's end.
    fn rest(&mut self) -> Option<String> {
        shown(&std::mem::take(&mut self.unfinished))
    }
}

/// What a terminal would show of a line in the end: programs that draw a progress bar start over after a carriage
/// return. Nothing, if that is nothing.
fn shown(line: &str) -> Option<String> {
    let last = line.trim_end().rsplit('\r').next()?;
    (!last.is_empty()).then(|| last.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Style, testing};

    fn says(text: &str) -> Result<BuildInfo, Error> {
        Ok(BuildInfo { stream: Some(text.to_owned()), ..BuildInfo::default() })
    }

    async fn follow_all(messages: Vec<Result<BuildInfo, Error>>) -> (Result<(), BuildError>, String) {
        let (log, printed) = testing::log(Style::Runner);
        let result = follow(futures_util::stream::iter(messages), Some("GIT_HASH"), &log).await;
        (result, printed.text())
    }

    #[tokio::test]
    async fn pieces_become_lines() {
        let (result, text) =
            follow_all(vec![says("STEP 1/2: FR"), says("OM scratch\nSTEP 2/2"), says(": COPY a b")]).await;
        assert!(result.is_ok());
        assert_eq!(text, "| STEP 1/2: FROM scratch\n| STEP 2/2: COPY a b\n");
    }

    #[tokio::test]
    async fn progress_is_no_line() {
        let progress =
            BuildInfo { status: Some("Downloading".into()), id: Some("ab12".into()), ..BuildInfo::default() };
        let pulling = BuildInfo { status: Some("Pulling from base".into()), ..BuildInfo::default() };
        let bar = says("1%\r50%\r100% done\n");
        let (_, text) = follow_all(vec![Ok(pulling), Ok(progress), bar, says("\n\n")]).await;
        assert_eq!(text, "| Pulling from base\n| 100% done\n");
    }

    #[tokio::test]
    async fn identifiers_are_no_lines() {
        let id = "f".repeat(64);
        let words = format!(
            "--> 22c32ac6d6e7\n{id}\nSuccessfully built 22c32ac6d6e7\nSuccessfully tagged r.test/a:v1\n--> Using cache\nSuccessfully built the app\n"
        );
        let (_, text) = follow_all(vec![says(&words)]).await;
        assert_eq!(text, "| --> Using cache\n| Successfully built the app\n");
    }

    #[tokio::test]
    async fn what_nobody_asked_for_is_no_warning() {
        let warning = |names: &str| says(&format!("[Warning] one or more build args were not consumed: [{names}]\n"));
        let (_, text) = follow_all(vec![warning("GIT_HASH"), warning("A GIT_HASH")]).await;
        assert_eq!(text, "| [Warning] one or more build args were not consumed: [A GIT_HASH]\n");
    }

    #[tokio::test]
    async fn podmans_failure_names_the_step_once() {
        let error = "building at STEP \"RUN a\": while running runtime: exit status 7".to_owned();
        let (result, _) = follow_all(vec![says("STEP 2/2: RUN a\n"), Err(Error::DockerStreamError { error })]).await;
        let message = result.expect_err("failed").to_string();
        assert_eq!(message, "the build failed at STEP 2/2: RUN a: while running runtime: exit status 7");
    }

    #[tokio::test]
    async fn a_failure_names_the_step() {
        let messages = vec![
            says("STEP 1/2: FROM a\nSTEP 2/2: RUN ::false\nsh: no such thing\n"),
            Err(Error::DockerStreamError { error: "exit status 1\n::add-mask::x".to_owned() }),
        ];
        let (result, text) = follow_all(messages).await;
        let message = result.expect_err("failed").to_string();
        assert_eq!(message, "the build failed at STEP 2/2: RUN ::false: exit status 1\\n::add-mask::x");
        assert!(text.ends_with("| sh: no such thing\n"), "{text}");
    }

    #[test]
    fn an_endless_line_is_shown_in_pieces() {
        let mut lines = Lines::default();
        let mut count = 0;
        for _ in 0..100 {
            count += lines.add(&"x".repeat(1024)).len();
        }
        assert!(count >= 3 && lines.unfinished.len() <= Lines::LONGEST);
    }
}
