//! What the host is told to do: the user's file, the administrator's word over it, and the validated result.
//!
//! Three stages, one direction: `file` (what YAML says) → `admin` (what binds it) → [`Settings`]. Only the last goes
//! further into the program.

mod admin;
#[cfg(test)]
mod document;
mod error;
mod file;
mod load;
mod ownership;
mod read;
mod settings;

pub use error::ConfigError;
pub use load::Places;
pub use ownership::{OwnershipError, RootFile};
pub use settings::{App, Downgrade, Health, Missing, NameError, RequestPolicy, ServiceName, Settings, VerifySettings};
