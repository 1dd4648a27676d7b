//! The lists that name an image's signatures: where they are, how much of one is read, and what helps where it is too
//! long.

use std::fmt;

use super::bundles::{MAX_BUNDLES, MAX_INDEX_LEN};
use super::{MAX_LAYERS, MAX_MANIFEST_LEN};
use crate::reference::{Digest, ImageRef, Tag};
use crate::registry::Manifest;
use crate::signature::attached::Attached;

/// Where an image's signatures are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// In the manifest under the image's `.sig` tag.
    Signatures,
    /// In the index under the image's tag `sha256-<hex>`, which its signers keep.
    Referrers,
    /// In the index that the registry keeps by itself.
    Registry,
}

impl List {
    /// How many signatures of it are read.
    #[must_use]
    pub fn most(self) -> usize {
        match self {
            Self::Signatures => MAX_LAYERS,
            Self::Referrers | Self::Registry => MAX_BUNDLES,
        }
    }

    /// How many bytes of it are read; of the registry's own list, of each page.
    #[must_use]
    pub fn longest(self) -> usize {
        match self {
            Self::Signatures => MAX_MANIFEST_LEN,
            Self::Referrers | Self::Registry => MAX_INDEX_LEN,
        }
    }

    /// What it lists.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Signatures => "signatures",
            Self::Referrers | Self::Registry => "bundles",
        }
    }

    /// The tag that names the list of this image; none names the registry's own.
    #[must_use]
    pub fn tag(self, image: &ImageRef) -> Option<ImageRef> {
        Some(ImageRef::tagged(&image.repository, &self.tag_of(image.digest.as_ref()?)?))
    }

    /// The same in the image's own repository.
    #[must_use]
    pub fn tag_of(self, image: &Digest) -> Option<Tag> {
        match self {
            Self::Signatures => Some(image.signature_tag()),
            Self::Referrers => Some(image.referrers_tag()),
            Self::Registry => None,
        }
    }

    /// What helps where it is too long. The list holds everybody's signatures: removing it whole is no advice.
    #[must_use]
    pub fn room(self, image: &ImageRef) -> String {
        let entries = match self.tag(image) {
            Some(tag) => {
                format!("take what nobody needs out of the list under {tag}, and leave its other entries as they are")
            }
            None => "delete the bundles that nobody needs, each by its manifest's digest".to_owned(),
        };
        format!("{entries}; or release the image anew: another digest has lists of its own")
    }

    /// What helps where it is none.
    #[must_use]
    pub fn repair(self, image: &ImageRef) -> String {
        match self.tag(image) {
            Some(tag) => format!("see what wrote {tag}; once that is gone or mended, sign the image again"),
            None => {
                "the registry makes this list itself: check its version and log, and any proxy before it".to_owned()
            }
        }
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signatures => "signature manifest",
            Self::Referrers => "index of referrers",
            Self::Registry => "registry's index of referrers",
        })
    }
}

/// What was found of an image's signatures in one format.
#[derive(Debug)]
pub struct Found {
    /// Where they are listed.
    pub list: List,
    /// The list itself; `None` where there is none, or where the registry keeps it.
    pub manifest: Option<Manifest>,
    /// How many signatures it names.
    pub listed: usize,
    /// How many of these were not read because there are too many: the first ones.
    pub unread: usize,
    /// Those that were read, in the list's order.
    pub attached: Vec<Attached>,
}

impl Found {
    /// Nothing.
    pub(super) fn none(list: List) -> Self {
        Self { list, manifest: None, listed: 0, unread: 0, attached: Vec::new() }
    }

    /// How long the list is, in bytes; 0 where there is none, or where the registry keeps it.
    #[must_use]
    pub fn length(&self) -> usize {
        self.manifest.as_ref().map_or(0, |manifest| manifest.bytes().len())
    }

    /// Whether one more would be one that is not read.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.listed >= self.list.most()
    }
}
