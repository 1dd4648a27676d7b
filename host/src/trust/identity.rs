//! The name under which a verified image counts.
//!
//! Tag, repository and time come from the annotations of the layer that verified, from nowhere else: whoever can write
//! a request can write any tag into it beside any digest that was ever signed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tagship_core::{
    reference::{Digest, Tag},
    signature::{AnnotationRule, Annotations, TagClaim},
};

/// A verified image under the name that it counts as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its version.
    pub tag: Tag,
    /// What it is.
    pub digest: Digest,
    /// When it was signed, if the signature says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The commit it was built from, if the signature says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The signature names the version; otherwise only the registry's tag did.
    pub signed: bool,
}

/// Whether the name follows from the signature, or needs the registry's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// By the signature.
    BySignature(Release),
    /// Only if the registry's tag of this name stands for this very digest.
    IfRegistryAgrees(Release),
}

/// Names a verified image that was asked for under a tag.
///
/// The verification has already refused a signed tag that is another than the asked-for one; asked for by the moving
/// tag's name, an image counts as what it is signed as.
pub fn identify(digest: Digest, claim: &TagClaim, annotations: &Annotations, asked: &Tag) -> Named {
    let release = |tag: &Tag, signed| Release {
        tag: tag.clone(),
        digest,
        created: annotations.created(),
        commit: annotations.commit().map(str::to_owned),
        signed,
    };
    match claim {
        TagClaim::Signed(tag) => Named::BySignature(release(tag, true)),
        TagClaim::Unsigned => Named::IfRegistryAgrees(release(asked, false)),
    }
}

/// What is asked of annotations now: once a signature that names its version was proven here, all must name it.
pub fn ratchet(configured: AnnotationRule, annotated_before: bool) -> AnnotationRule {
    match configured {
        AnnotationRule::WhenPresent if annotated_before => AnnotationRule::Required,
        rule => rule,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signed_tag_counts_or_else_the_registrys_word() {
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        let digest = Digest::of(b"image");
        let name = |claim| identify(digest, &claim, &Annotations::default(), &tag("stable"));
        let release = |name, signed| Release { tag: tag(name), digest, created: None, commit: None, signed };
        assert_eq!(name(TagClaim::Signed(tag("v1.0.0"))), Named::BySignature(release("v1.0.0", true)));
        assert_eq!(name(TagClaim::Unsigned), Named::IfRegistryAgrees(release("stable", false)));
    }

    #[test]
    fn the_ratchet_closes_only_where_it_may() {
        use AnnotationRule::{Off, Required, WhenPresent};
        for (configured, before, expected) in [
            (WhenPresent, false, WhenPresent),
            (WhenPresent, true, Required),
            (Required, false, Required),
            (Off, true, Off),
        ] {
            assert_eq!(ratchet(configured, before), expected);
        }
    }
}
