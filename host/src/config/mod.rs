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
mod shell;
mod words;

pub use error::ConfigError;
pub use load::Places;
pub use ownership::{OwnershipError, RootFile};
pub(crate) use read::open;
pub use settings::{
    App, AppUnits, Downgrade, Health, Missing, NameError, RequestPolicy, ServiceName, Settings, VerifySettings,
};
pub(crate) use shell::shell_word;

/// What is wrong with bytes as the user's and as the administrator's file: their keys, shapes and values alone. What
/// spans files is left out, and no path in them is touched: fuzzing calls this.
#[doc(hidden)]
pub fn understood(bytes: &[u8]) -> [Result<(), ConfigError>; 2] {
    let path = std::path::Path::new("app.yaml");
    let user = read::utf8(path, bytes).and_then(|text| {
        // The looser readings of the same file may not trip over it either.
        let _ = (file::parse::<file::HandoffOnly>(path, text), file::parse::<file::Belongings>(path, text));
        let _ = file::parse::<file::NamesOnly>(path, text);
        file::parse::<file::AppFile>(path, text).map(drop)
    });
    [user, admin::parse(path, bytes).map(drop)]
}
