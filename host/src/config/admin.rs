//! The administrator's word: files that root writes and that bind every configuration naming the same image or services.
//!
//! Their `verify` block replaces the user's whole: merging the two would let the weaker half win.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tagship_core::reference::{Repository, Tag};

use crate::trust::order;

use super::{
    ConfigError, RootFile, ServiceName,
    file::{self, VerifyBlock},
    ownership, read,
};

/// How the administrator's files end. Both ways count: one that nobody reads would bind nobody, and nobody would know.
const ENDINGS: &[&str] = &["yaml", "yml"];

/// One file below `/etc/tagship`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AdminFile {
    image: Option<Repository>,
    #[serde(default)]
    services: Vec<ServiceName>,
    verify: Option<VerifyBlock>,
    floor: Option<Tag>,
    revoked_keys: Option<Vec<PathBuf>>,
}

/// What binds a configuration.
#[derive(Debug)]
pub(super) struct Binding {
    /// The administrator's file.
    pub path: PathBuf,
    /// The image that its services are bound to, if it names one.
    pub image: Option<Repository>,
    /// What replaces the user's `verify`, if it has one.
    pub verify: Option<VerifyBlock>,
    /// The lowest version.
    pub floor: Option<Tag>,
    /// Public keys that count nowhere any more.
    pub revoked_keys: Vec<PathBuf>,
}

/// The administrator's file that binds a configuration of this image and these services.
///
/// A file there that cannot be trusted or understood stops every app: to skip it would be to lift what it says. So does a
/// directory that others than root could take it out of.
pub(super) fn binding(
    directory: &Path,
    image: &Repository,
    services: &[&ServiceName],
) -> Result<Option<Binding>, ConfigError> {
    ownership::check_directory(directory)
        .map_err(|source| ConfigError::Admin { path: directory.to_owned(), source })?;
    let mut found: Option<Binding> = None;
    for path in read::yaml_files(directory, ENDINGS)? {
        let trusted = RootFile::read(&path).map_err(|source| ConfigError::Admin { path: path.clone(), source })?;
        let next = parse(&path, trusted.bytes())?;
        if !binds(&next, image, services) {
            continue;
        }
        if let Some(first) = found {
            return Err(ConfigError::AdminTwice { first: first.path, second: path });
        }
        let AdminFile { image, verify, floor, revoked_keys, .. } = next;
        found = Some(Binding { path, image, verify, floor, revoked_keys: revoked_keys.unwrap_or_default() });
    }
    Ok(found)
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<AdminFile, ConfigError> {
    let text = read::utf8(path, bytes)?;
    let file: AdminFile = file::parse(path, text)?;
    if file.image.is_none() && file.services.is_empty() {
        return Err(ConfigError::value(path, "image", "neither an image nor services say whom this file binds"));
    }
    if file.verify.is_none() && file.floor.is_none() && file.revoked_keys.is_none() {
        let why = "neither verify nor floor nor revoked-keys: this file says nothing";
        return Err(ConfigError::value(path, "verify", why));
    }
    // Below any other nearly everything would be, and nobody would know.
    if let Some(floor) = &file.floor
        && !order::is_version(floor)
    {
        let why = format!("{floor} is no semantic version; write one, such as v1.2.3");
        return Err(ConfigError::value(path, "floor", why));
    }
    Ok(file)
}

fn binds(file: &AdminFile, image: &Repository, services: &[&ServiceName]) -> bool {
    file.image.as_ref() == Some(image) || file.services.iter().any(|service| services.contains(&service))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<AdminFile, ConfigError> {
        parse(Path::new("/etc/tagship/app.yaml"), text.as_bytes())
    }

    #[test]
    fn the_same_image_or_one_same_service_binds() {
        let file = parsed("image: git.example.org/chris/app\nservices: [web, worker]\nfloor: v1.0.0").unwrap();
        let image = |text: &str| text.parse::<Repository>().unwrap();
        let service = |text: &str| text.parse::<ServiceName>().unwrap();
        let (web, other) = (service("web"), service("other"));
        assert!(binds(&file, &image("git.example.org/chris/app"), &[&other]));
        assert!(binds(&file, &image("evil.example.org/app"), &[&other, &web]));
        assert!(!binds(&file, &image("git.example.org/chris/app2"), &[&other]));
    }

    #[test]
    fn a_file_that_binds_nobody_or_says_nothing_is_refused() {
        for text in ["floor: v1.0.0", "services: []\nfloor: v1.0.0", "image: a.example/b", "{}", "budget: 10m"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_empty_list_of_revoked_keys_says_something() {
        assert!(parsed("image: a.example/b\nrevoked-keys: []").is_ok());
    }

    #[test]
    fn a_floor_is_a_semantic_version() {
        for floor in ["3", "v1", "v1.2", "nightly"] {
            let error = parsed(&format!("image: a.example/b\nfloor: {floor}")).unwrap_err();
            assert!(error.to_string().contains("`floor`") && error.to_string().contains("v1.2.3"), "{error}");
        }
        assert!(parsed("image: a.example/b\nfloor: 1.2.3").is_ok());
    }

    #[test]
    fn a_file_in_anybodys_hands_stops_the_deploy() {
        let temp = tempfile::tempdir().unwrap();
        let image = "c.example/d".parse().unwrap();
        for name in ["app.yaml", "app.yml"] {
            let file = temp.path().join(name);
            std::fs::write(&file, "image: a.example/b\nfloor: v1.0.0").unwrap();
            assert!(matches!(binding(temp.path(), &image, &[]), Err(ConfigError::Admin { .. })), "{name}");
            std::fs::remove_file(&file).unwrap();
        }
    }

    #[test]
    fn no_directory_binds_nobody() {
        let image = "c.example/d".parse().unwrap();
        assert!(binding(Path::new("/nonexistent/tagship"), &image, &[]).unwrap().is_none());
    }
}
