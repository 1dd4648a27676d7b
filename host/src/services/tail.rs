//! A unit's last words, from the user's journal: what the container wrote, and what systemd and Podman said about it.
//!
//! `journalctl` is the only stable reader of the journal: its file format has no library without C. Best effort: no
//! journal, no words.

use std::{
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use tokio::{process::Command, time::timeout};

use crate::config::ServiceName;

/// How many lines are shown.
const LINES: usize = 20;

/// How many entries are read for them; Podman's own event entries are left out.
const ENTRIES: &str = "200";

/// The longest that reading may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The unit's last lines since then, oldest first.
pub(super) async fn read(service: &ServiceName, since: Option<SystemTime>) -> Vec<String> {
    let mut command = Command::new("journalctl");
    command.args([
        "--user",
        "--quiet",
        "--no-pager",
        "--output=json",
        "--output-fields=MESSAGE,PODMAN_EVENT,CONTAINER_ID_FULL",
    ]);
    command.args(["--lines", ENTRIES, "--unit", &service.unit()]);
    if let Some(since) = since.and_then(|since| since.duration_since(UNIX_EPOCH).ok()) {
        command.arg(format!("--since=@{}.{:06}", since.as_secs(), since.subsec_micros()));
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output();
    match timeout(PATIENCE, output).await {
        Ok(Ok(output)) => last(&output.stdout),
        _ => Vec::new(),
    }
}

/// The fields of a journal entry that are asked for.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "MESSAGE")]
    message: Option<Message>,
    /// Podman's own entries.
    #[serde(rename = "PODMAN_EVENT")]
    event: Option<serde_json::Value>,
    /// A container's own words.
    #[serde(rename = "CONTAINER_ID_FULL")]
    container: Option<String>,
}

/// journalctl writes text as a string, anything else as an array of bytes, and what is too long as null.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    Bytes(Vec<u8>),
}

/// The newest container's own words; where no container said anything, what systemd and Podman said.
fn last(journal: &[u8]) -> Vec<String> {
    let entries = journal.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Entry>(line).ok());
    let entries: Vec<Entry> = entries.filter(|entry| entry.event.is_none()).collect();
    let newest = entries.iter().rev().find_map(|entry| entry.container.clone());
    let lines: Vec<String> = entries
        .into_iter()
        .filter(|entry| newest.is_none() || entry.container == newest)
        .filter_map(|entry| match entry.message? {
            Message::Text(text) => Some(text),
            Message::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        })
        .flat_map(|message| message.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    lines.into_iter().rev().take(LINES).rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_are_kept() {
        let journal = br#"{"MESSAGE":"Starting web.service"}
{"MESSAGE":"container died","PODMAN_EVENT":"died"}
{"MESSAGE":[110,111,32,255]}
{"MESSAGE":null}
not json
{"MESSAGE":"one\ntwo"}
"#;
        assert_eq!(last(journal), ["Starting web.service", "no \u{fffd}", "one", "two"]);
    }

    #[test]
    fn the_newest_containers_words_come_before_all_others() {
        let journal = br#"{"MESSAGE":"bye","CONTAINER_ID_FULL":"old"}
{"MESSAGE":"Started web.service"}
{"MESSAGE":"boom","CONTAINER_ID_FULL":"new"}
{"MESSAGE":"0123456789abcdef"}
"#;
        assert_eq!(last(journal), ["boom"]);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let journal: String = (0..50).map(|n| format!("{{\"MESSAGE\":\"{n}\"}}\n")).collect();
        let lines = last(journal.as_bytes());
        assert_eq!((lines.len(), lines.first().unwrap().as_str()), (LINES, "30"));
    }
}
