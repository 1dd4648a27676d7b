//! Podman's versions: which of them reads which rule. Pure.

use std::fmt;

use tagship_core::explain::Explain;

use super::judge::Unproven;

/// A version, as far as the rules depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32);

impl Version {
    /// The first that knows `sigstoreSigned`. An older one takes the whole file for broken.
    pub(super) const FIRST: Self = Self(4, 2);
    /// The first that certainly verifies: of those before it Debian 12's, 4.3.1, is built to refuse every image instead,
    /// and its number does not tell.
    pub(super) const SURE: Self = Self(4, 4);
    /// The first that knows lists of keys: they came with containers/image 5.32.
    pub(super) const LISTS: Self = Self(5, 2);

    /// Takes what follows the second number as it comes: `5.4.2`, `5.0.0-rc1`, `4.9.4-rhel`, `4.3.1+ds1`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (major, rest) = text.trim().split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A Podman that may refuse every image under such a policy, and was not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is Podman {0}, which may be built without sigstore signatures, and then refuses every image; --check tries it"
)]
pub struct Doubt(Version);

impl Doubt {
    pub(super) fn of(version: Version) -> Option<Self> {
        (version < Version::SURE).then_some(Self(version))
    }
}

impl Explain for Doubt {
    fn kind(&self) -> &'static str {
        Unproven::Disabled.kind()
    }

    fn hint(&self) -> Option<String> {
        Unproven::Disabled.hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        for (text, version) in [
            ("5.4.2", Version(5, 4)),
            ("4.3.1+ds1\n", Version(4, 3)),
            ("5.0.0-rc1", Version(5, 0)),
            ("5.10-dev", Version(5, 10)),
        ] {
            assert_eq!(Version::read(text), Some(version));
        }
        let sorted = [Version(3, 4), Version::FIRST, Version(4, 3), Version::SURE, Version::LISTS, Version(5, 10)];
        assert!(sorted.is_sorted());
        assert_eq!(Version::LISTS.to_string(), "5.2");
    }

    #[test]
    fn an_untried_podman_is_doubted_where_its_number_does_not_tell() {
        for old in [Version(3, 4), Version::FIRST, Version(4, 3)] {
            let doubt = Doubt::of(old).unwrap();
            assert!(doubt.to_string().contains(&format!("Podman {old}")), "{doubt}");
            assert!(doubt.hint().unwrap().contains("Debian 12"), "{old}");
        }
        assert_eq!([Version::SURE, Version(5, 4)].map(Doubt::of), [None; 2]);
    }

    #[test]
    fn other_answers_are_none() {
        for text in ["", "5", "5.", ".4", "v5.4.2", "-5.4", "5.x", "99999999999.1", "podman version 5.4.2"] {
            assert_eq!(Version::read(text), None, "{text:?}");
        }
    }
}
