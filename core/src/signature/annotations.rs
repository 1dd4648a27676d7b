//! The signed annotations of an image: who it says it is, in words that the signature covers.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::reference::{Repository, Tag};

/// The version tag that the image was released under.
pub const TAG: &str = "tag";
/// The repository it was released to.
pub const REPOSITORY: &str = "repository";
/// The commit it was built from.
pub const COMMIT: &str = "commit";
/// When it was signed: RFC 3339, UTC, ending in `Z`.
pub const CREATED: &str = "created";
/// The CI run that released it.
pub const RUN: &str = "run";

/// The names that mean something to us.
pub const MEANINGFUL: [&str; 5] = [TAG, REPOSITORY, COMMIT, CREATED, RUN];

/// Annotations of one signature, in the order they are signed in: sorted by name, as Go writes a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    entries: BTreeMap<String, String>,
    tag: Option<Tag>,
    repository: Option<Repository>,
    created: Option<Timestamp>,
}

/// An annotation with a fixed meaning does not have its form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// `tag` is no tag.
    #[error("the annotation \"tag\" is not a valid tag")]
    Tag,
    /// `repository` is no repository.
    #[error("the annotation \"repository\" is not a valid repository")]
    Repository,
    /// `created` is no time in UTC.
    #[error("the annotation \"created\" is not an RFC 3339 time in UTC")]
    Created,
}

impl Annotations {
    /// Takes annotations by name. Those with a fixed meaning must have their form; any other text is kept as it is.
    pub fn new(entries: BTreeMap<String, String>) -> Result<Self, AnnotationError> {
        fn read<T>(
            text: Option<&String>,
            read: impl Fn(&str) -> Option<T>,
            error: AnnotationError,
        ) -> Result<Option<T>, AnnotationError> {
            text.map(|text| read(text).ok_or(error)).transpose()
        }
        let utc = |text: &str| text.ends_with('Z').then(|| text.parse().ok()).flatten();
        Ok(Self {
            tag: read(entries.get(TAG), |text| text.parse().ok(), AnnotationError::Tag)?,
            repository: read(entries.get(REPOSITORY), |text| text.parse().ok(), AnnotationError::Repository)?,
            created: read(entries.get(CREATED), utc, AnnotationError::Created)?,
            entries,
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// One by name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.get(name).map(String::as_str)
    }

    /// The version tag that was signed with the image.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The repository that was signed with the image, beside the payload's own.
    pub fn repository(&self) -> Option<&Repository> {
        self.repository.as_ref()
    }

    /// The commit that the image was built from.
    pub fn commit(&self) -> Option<&str> {
        self.get(COMMIT)
    }

    /// When the image was signed.
    pub fn created(&self) -> Option<Timestamp> {
        self.created
    }

    /// The CI run that released the image.
    pub fn run(&self) -> Option<&str> {
        self.get(RUN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: &[(&str, &str)]) -> Result<Annotations, AnnotationError> {
        Annotations::new(entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn known_names_are_typed() {
        let all = of(&[
            ("tag", "v0.2.9"),
            ("repository", "git.example.org/chris/mastosum"),
            ("commit", "0123abc"),
            ("created", "2026-10-01T12:00:00Z"),
            ("run", "17"),
            ("env", "prod"),
        ])
        .unwrap();
        assert_eq!(all.tag().unwrap().to_string(), "v0.2.9");
        assert_eq!(all.repository().unwrap().to_string(), "git.example.org/chris/mastosum");
        assert_eq!((all.commit(), all.run(), all.get("env")), (Some("0123abc"), Some("17"), Some("prod")));
        assert_eq!(all.created().unwrap().to_string(), "2026-10-01T12:00:00Z");
        assert!(of(&[]).unwrap().is_empty());
    }

    #[test]
    fn known_names_have_their_form() {
        for (name, value, error) in [
            ("tag", "", AnnotationError::Tag),
            ("tag", "v1 ", AnnotationError::Tag),
            ("tag", "v1\n", AnnotationError::Tag),
            ("repository", "no registry/x", AnnotationError::Repository),
            ("created", "yesterday", AnnotationError::Created),
            ("created", "2026-10-01T12:00:00", AnnotationError::Created),
            ("created", "2026-10-01T14:00:00+02:00", AnnotationError::Created),
        ] {
            assert_eq!(of(&[(name, value)]), Err(error), "{name}={value:?}");
        }
    }
}
