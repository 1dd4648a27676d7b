//! Whether the image that was built has a healthcheck.
//!
//! Only images in Docker's format can have one. Docker's API tells it with the image's configuration; Podman leaves it
//! out there (seen with 5.4) and tells it in its own API, on the same socket.

use std::time::Duration;

use bollard::models::ImageInspect;
use serde::Deserialize;
use tagship_core::engine;

/// Podman answers from its store; nothing is computed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// As much of Podman's answer as matters. Podman writes the name in its own way (`HealthCheck`), and has changed it
/// before.
#[derive(Deserialize)]
struct Podmans {
    #[serde(alias = "HealthCheck")]
    #[serde(rename = "Healthcheck")]
    healthcheck: Option<Test>,
}

#[derive(Deserialize)]
struct Test {
    #[serde(rename = "Test", default)]
    test: Vec<String>,
}

/// Whether the image has a healthcheck. An engine that cannot be asked has none to tell.
pub(super) async fn survived(image: &ImageInspect, name: &str) -> bool {
    let told = image.config.as_ref().and_then(|config| config.healthcheck.as_ref());
    match told.and_then(|check| check.test.as_ref()) {
        Some(test) => !test.is_empty(),
        None => ask_podman(name).await.is_some_and(|answer| has_test(&answer)),
    }
}

async fn ask_podman(name: &str) -> Option<Vec<u8>> {
    // The connection does not leave the machine: no certificate is looked at.
    let client = reqwest::Client::builder()
        .unix_socket(engine::locate().ok()?)
        .tls_certs_only([])
        .timeout(TIMEOUT)
        .build()
        .ok()?;
    let answer = client.get(format!("http://engine/v4.0.0/libpod/images/{name}/json")).send().await.ok()?;
    let answer = answer.error_for_status().ok()?;
    answer.bytes().await.ok().map(Into::into)
}

fn has_test(answer: &[u8]) -> bool {
    let podmans: Option<Podmans> = serde_json::from_slice(answer).ok();
    podmans.and_then(|image| image.healthcheck).is_some_and(|check| !check.test.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_answers() {
        let vectors = [
            (r#"{"Id":"x","HealthCheck":{"Test":["CMD","true"],"Interval":1}}"#, true),
            (r#"{"Healthcheck":{"Test":["CMD","true"]}}"#, true),
            (r#"{"HealthCheck":{"Test":[]}}"#, false),
            (r#"{"HealthCheck":null}"#, false),
            (r#"{"HealthCheck":{}}"#, false),
            ("{}", false),
            ("", false),
            (r#"{"message":"page not found"}"#, false),
        ];
        for (answer, expected) in vectors {
            assert_eq!(has_test(answer.as_bytes()), expected, "{answer}");
        }
    }
}
