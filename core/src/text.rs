//! Making foreign text safe to show on one line of a log, a terminal or a status file.
//!
//! What is shown is decided elsewhere, but for paths, which have a length beyond which they are none. Nothing here cuts or
//! interprets the text.

use std::fmt::Write;
use std::path::Path;

/// The longest path that is shown: what is longer was hardly meant as one.
const LONGEST_PATH: usize = 255;

/// The text as one printable line that no runner takes for a workflow command and no terminal for a control sequence.
///
/// Control characters, line separators and invisible or direction-changing characters become `\u{…}` (line feed, tab
/// and carriage return their usual two letters). `::` at the start, behind white space too, and `##[` anywhere (the
/// older form of workflow commands, which runners find in mid-line) lose their first character to an escape.
pub fn escape(text: &str) -> String {
    let start = text.len() - text.trim_start().len();
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let rest = text.get(at..).unwrap_or_default();
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if is_hidden(c) || (at == start && rest.starts_with("::")) || rest.starts_with("##[") => {
                // Writing to a String cannot fail.
                let _ = write!(out, "{}", c.escape_unicode());
            }
            _ => out.push(c),
        }
    }
    out
}

/// A path for a message: escaped, and whole or not at all. Part of a secret that was given in its place would not be
/// found any more by what hides secrets in a log.
pub fn path(path: &Path) -> String {
    match path.as_os_str().len() {
        length if length > LONGEST_PATH => format!("(a path of {length} bytes, not shown)"),
        _ => escape(&path.to_string_lossy()),
    }
}

/// Whether every character is visible and keeps its line: no control, separator or direction character.
pub fn is_plain(text: &str) -> bool {
    !text.chars().any(is_hidden)
}

/// Characters that move the cursor, break a line, or change how their neighbours look without being seen.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_be_obeyed_is_shown_instead() {
        for (text, shown) in [
            ("plain text, ünïcödé: a::b", "plain text, ünïcödé: a::b"),
            ("::error::x", "\\u{3a}:error::x"),
            ("  ::set-output name=a::b", "  \\u{3a}:set-output name=a::b"),
            ("\n::error::x", "\\n\\u{3a}:error::x"),
            ("so ##[command]x", "so \\u{23}#[command]x"),
            ("###[x", "#\\u{23}#[x"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[2Jx\u{7}", "\\u{1b}[2Jx\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\u{202e}b\u{2028}c\u{feff}", "a\\u{202e}b\\u{2028}c\\u{feff}"),
        ] {
            assert_eq!(escape(text), shown);
        }
    }

    #[test]
    fn a_path_is_shown_whole_and_escaped_or_not_at_all() {
        for (given, shown) in [
            ("/run/a b.json".to_owned(), "/run/a b.json".to_owned()),
            ("a\nb".to_owned(), "a\\nb".to_owned()),
            ("a".repeat(255), "a".repeat(255)),
            ("a".repeat(256), "(a path of 256 bytes, not shown)".to_owned()),
        ] {
            assert_eq!(path(Path::new(&given)), shown);
        }
    }

    proptest! {
        #[test]
        fn escaped_text_is_plain_and_no_command(text in "\\PC*|[:# \\[\n\u{1b}a]{0,12}|.*") {
            let shown = escape(&text);
            prop_assert!(is_plain(&shown));
            prop_assert!(!shown.trim_start().starts_with("::"));
            prop_assert!(!shown.contains("##["));
        }

        #[test]
        fn escaping_twice_changes_nothing(text in ".*") {
            let once = escape(&text);
            prop_assert_eq!(escape(&once), once);
        }
    }
}
