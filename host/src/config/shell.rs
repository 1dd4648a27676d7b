//! Paths in commands that people copy from a hint.

use std::path::Path;

/// The path as one word of a POSIX shell (XCU 2.2.2): as it is where no character means anything, else in single quotes.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_and_means_itself() {
        for (path, word) in [
            ("/etc/containers/cosign-app.pub", "/etc/containers/cosign-app.pub"),
            ("/srv/my keys/a.pub", "'/srv/my keys/a.pub'"),
            ("/srv/it's", r"'/srv/it'\''s'"),
            ("/srv/$(reboot);`x`&*?~", "'/srv/$(reboot);`x`&*?~'"),
            ("/srv/\u{fc}", "'/srv/\u{fc}'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }
}
