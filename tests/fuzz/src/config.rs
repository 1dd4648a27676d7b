//! The host's configuration: the user's file, which anybody who is that user writes, and the administrator's.

use tagship_host::config;

use super::{explained, told};

/// Reads bytes as each kind of configuration file; none that they name is touched. Says whether they are one of them.
pub(crate) fn run(bytes: &[u8]) -> bool {
    let [user, administrator] = config::understood(bytes);
    for error in [&user, &administrator].into_iter().filter_map(|outcome| outcome.as_ref().err()) {
        explained(error);
        // It goes into one line of an answer, and of a terminal.
        let text = told(error);
        assert!(tagship_core::text::is_plain(&text), "{text:?} is not one plain line");
    }
    user.is_ok() || administrator.is_ok()
}
