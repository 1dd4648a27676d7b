//! Puts a signature where verifiers look for it, in either format. What other signers put there stays as it is.
//!
//! Registries have no compare-and-swap: a signer puts the list that it read a moment ago with its own entry added, and so
//! undoes what another put in between. That moment is kept short, and measured: the caller waits for some such moments,
//! reads back what is there, and puts its own again if it is gone.

mod bundle;
mod layer;
mod stored;

use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tagship_core::explain::Explain;
use tagship_core::reference::{Digest, ImageRef, Repository};
use tagship_core::registry::{Client, Manifest, RegistryError};
use tagship_core::signature::fetch::{Found, List};
use tagship_core::signature::json::{self as strict, JsonError};
use tagship_core::signature::{Attached, Format};

pub use bundle::NewBundle;
pub use layer::NewLayer;
pub use stored::Stored;

/// A signature, ready to be put beside its image.
pub enum Attachment {
    /// A layer of the image's `.sig` manifest.
    Layer(NewLayer),
    /// A bundle that refers to the image.
    Bundle(NewBundle),
}

impl Attachment {
    /// Its format.
    pub fn format(&self) -> Format {
        match self {
            Self::Layer(_) => Format::Sig,
            Self::Bundle(_) => Format::Bundle,
        }
    }

    /// Whether this is what was found.
    pub fn is(&self, found: &Attached) -> bool {
        match (self, found) {
            (Self::Layer(layer), Attached::Layer(found)) => layer.is_fetched(found),
            (Self::Bundle(bundle), Attached::Bundle(found)) => bundle.digest() == found.digest,
            _ => false,
        }
    }

    /// Refuses a list that would become longer than it is read. What the list itself says is looked at once more before
    /// it is written; this comes earlier, so that no other list has been written by then.
    pub fn fits(&self, image: &ImageRef, found: &Found) -> Result<(), AttachError> {
        let more = match self {
            Self::Layer(new) => new.longest(),
            Self::Bundle(_) => bundle::LONGEST_ENTRY,
        };
        match found.length() + more > found.list.longest() {
            true => Err(Problem::Full { has: found.length(), what: "bytes", read: found.list.longest() }
                .of(found.list, Box::new(image.clone()))),
            false => Ok(()),
        }
    }

    /// Puts it beside the image, of whose list this was found a while ago. What is there already is not added again.
    /// Gives the moment from reading the list to having written it; none where nothing was written over.
    pub async fn put(
        &self,
        client: &Client,
        (repository, digest): (&Repository, &Digest),
        found: &Found,
        stored: &Stored,
    ) -> Result<Option<Moment>, AttachError> {
        match self {
            Self::Layer(new) => layer::put(client, (repository, digest), new, found.manifest.as_ref(), stored).await,
            Self::Bundle(new) => bundle::put(client, (repository, digest), new, stored).await,
        }
    }
}

/// From when a list was read to when it was written: another signer's change in between was undone.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    read: Instant,
    written: Instant,
}

impl Moment {
    /// That began then, and ends now.
    fn since(read: Instant) -> Self {
        Self { read, written: Instant::now() }
    }

    /// When so many times the moment have passed after it, but no more than this.
    #[must_use]
    pub fn passed(self, times: u32, longest: Duration) -> Instant {
        self.written + ((self.written - self.read) * times).min(longest)
    }
}

/// Refuses a list that holds as many signatures as are read: one more would take another its place.
pub fn has_room(image: &ImageRef, found: &Found) -> Result<(), AttachError> {
    match found.is_full() {
        true => {
            let full = Problem::Full { has: found.listed, what: found.list.unit(), read: found.list.most() };
            Err(full.of(found.list, Box::new(image.clone())))
        }
        false => Ok(()),
    }
}

/// Why a signature is not in the registry.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The registry did not do its part.
    #[error("cannot put the signature beside {image}")]
    Registry {
        /// Of what.
        image: Box<ImageRef>,
        /// Why.
        source: RegistryError,
    },
    /// What is there is no list of signatures: it is not overwritten.
    #[error("the {list} of {image} cannot be added to: {why}")]
    Existing {
        /// Which list.
        list: List,
        /// Of what.
        image: Box<ImageRef>,
        /// Why.
        why: &'static str,
    },
    /// It is not even JSON.
    #[error("the {list} of {image} cannot be added to")]
    Malformed {
        /// Which list.
        list: List,
        /// Of what.
        image: Box<ImageRef>,
        /// Why.
        source: JsonError,
    },
    /// With one more signature it would be longer than it is read.
    #[error("the {list} of {image} has no room for another signature: it has {has} {what}, and {read} are read")]
    Full {
        /// Which list.
        list: List,
        /// Of what.
        image: Box<ImageRef>,
        /// How many it has.
        has: usize,
        /// Of what: signatures, bundles or bytes.
        what: &'static str,
        /// How many of these are read.
        read: usize,
    },
    /// The image that was signed is gone.
    #[error("{image} does not exist any more")]
    Gone {
        /// Which.
        image: Box<ImageRef>,
    },
    /// A document cannot be written.
    #[error("cannot write the signature's documents")]
    Encode(#[source] JsonError),
}

impl AttachError {
    /// Whether it is over in a moment: docker-registry 2.8 does not know a blob while another signer uploads the same one,
    /// as all bundles share their empty config.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Registry { source: RegistryError::Refused { message, .. }, .. } if message.contains("BLOB_UNKNOWN"))
    }
}

impl Explain for AttachError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Registry { source, .. } => source.kind(),
            Self::Existing { .. } | Self::Malformed { .. } => "malformed-signature",
            Self::Full { .. } => "too-many-signatures",
            Self::Gone { .. } => "no-such-image",
            Self::Encode(_) => "signing-failed",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry { source, .. } => source.hint(),
            Self::Encode(_) => None,
            Self::Gone { .. } => Some("keep the version's tag: some registries delete what no tag names".to_owned()),
            Self::Full { list, image, .. } => Some(list.room(image)),
            Self::Existing { list, image, .. } | Self::Malformed { list, image, .. } => Some(list.repair(image)),
        }
    }
}

/// Why a list cannot be added to.
#[derive(Debug)]
enum Problem {
    Existing(&'static str),
    Json(JsonError),
    Full { has: usize, what: &'static str, read: usize },
}

impl Problem {
    fn of(self, list: List, image: Box<ImageRef>) -> AttachError {
        match self {
            Self::Existing(why) => AttachError::Existing { list, image, why },
            Self::Json(source) => AttachError::Malformed { list, image, source },
            Self::Full { has, what, read } => AttachError::Full { list, image, has, what, read },
        }
    }
}

/// The members of a list's document: of the one that is there, or of a fresh one of this media type.
fn members(existing: Option<&Manifest>, media_type: &'static str, limit: usize) -> Result<Map<String, Value>, Problem> {
    match existing {
        None => {
            Ok(Map::from_iter([("schemaVersion".to_owned(), 2.into()), ("mediaType".to_owned(), media_type.into())]))
        }
        Some(manifest) if manifest.media_type() == media_type => {
            strict::parse(manifest.bytes(), limit).map_err(Problem::Json)
        }
        Some(_) => Err(Problem::Existing("it is of another media type")),
    }
}

/// Takes the list itself out of them.
fn take_list(members: &mut Map<String, Value>, name: &str) -> Result<Vec<Value>, Problem> {
    match members.remove(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(Problem::Existing("what should be a list is none")),
    }
}

fn written(document: &impl serde::Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(document).map_err(|error| Problem::Json(JsonError::Malformed(error)))
}
