//! One pattern of an ignore file: `*`, `**`, `?`, `[a-z]`, `\`, matched against a path of the context.
//!
//! Pure. The rules are those of the Docker builder, whose documentation defers to Go's `filepath.Match` and adds `**`.
//! Matching runs all alternatives side by side, so that no pattern makes it slow.

/// A pattern in its cleaned form, without a leading `!`.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
    shortcut: Shortcut,
}

/// Patterns without wildcards in the middle are plain comparisons. These are not only faster: Docker takes `**` before
/// or after plain text literally as “ends with” and “starts with”, so that `**.log` matches `a/b.log`.
#[derive(Debug, Clone)]
enum Shortcut {
    None,
    Equals(Vec<u8>),
    StartsWith(Vec<u8>),
    EndsWith(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// This character.
    Char(char),
    /// `?`: any character but the slash.
    Any,
    /// `[…]`: one of these, or none of them.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// `*`: any characters but the slash.
    Star,
    /// `**/`: any directories, or none.
    Directories,
    /// `**` at the end: everything.
    Everything,
}

/// Why a pattern is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    /// `a[b`
    #[error("a “[” has no “]”")]
    OpenClass,
    /// `[]`, `[^]`, `[-a]`, `[a-]`
    #[error("a “[…]” is empty or has a “-” without both ends")]
    BadClass,
    /// `[z-a]`
    #[error("a range in “[…]” ends before it starts")]
    Reversed,
    /// `a\`
    #[error("there is nothing after the “\\” at the end")]
    Dangling,
}

impl Pattern {
    /// Reads a cleaned pattern.
    pub(super) fn parse(text: &str) -> Result<Pattern, PatternError> {
        let tokens = tokens(text)?;
        let shortcut = shortcut(text, &tokens);
        Ok(Pattern { tokens, shortcut })
    }

    /// Whether it matches exactly this path, which has no leading and no trailing slash.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match &self.shortcut {
            Shortcut::Equals(text) => path == text,
            Shortcut::StartsWith(text) => path.starts_with(text),
            Shortcut::EndsWith(text) => {
                path.ends_with(text) || text.strip_prefix(b"/").is_some_and(|whole| path == whole)
            }
            Shortcut::None => self.run(path).accepts(),
        }
    }

    /// Whether it could match some path below this directory.
    pub(super) fn may_match_below(&self, directory: &[u8]) -> bool {
        let below = [directory, b"/"].concat();
        match &self.shortcut {
            Shortcut::Equals(text) => text.starts_with(&below),
            Shortcut::StartsWith(text) => text.starts_with(&below) || below.starts_with(text),
            Shortcut::EndsWith(_) => true,
            Shortcut::None => self.run(&below).is_alive(),
        }
    }

    fn run(&self, path: &[u8]) -> Progress<'_> {
        let mut progress = Progress::start(&self.tokens);
        let mut rest = path;
        while let Some((letter, after)) = next_char(rest) {
            if !progress.is_alive() {
                break;
            }
            progress.step(letter);
            rest = after;
        }
        progress
    }
}

/// Where in the pattern a match may have got to: all possibilities at once.
struct Progress<'a> {
    tokens: &'a [Token],
    /// Before this token; the last place is the pattern's end.
    before: Vec<bool>,
    /// In the directories that this `**/` stands for.
    inside: Vec<bool>,
}

impl<'a> Progress<'a> {
    fn start(tokens: &'a [Token]) -> Self {
        let mut before = vec![false; tokens.len() + 1];
        if let Some(first) = before.first_mut() {
            *first = true;
        }
        let mut progress = Progress { tokens, before, inside: vec![false; tokens.len()] };
        progress.skip_optional();
        progress
    }

    /// What stands for nothing as well is passed without reading anything.
    fn skip_optional(&mut self) {
        for (at, token) in self.tokens.iter().enumerate() {
            let optional = matches!(token, Token::Star | Token::Directories | Token::Everything);
            if optional && self.before.get(at) == Some(&true) {
                mark(&mut self.before, at + 1);
            }
        }
    }

    fn step(&mut self, letter: char) {
        let mut before = vec![false; self.before.len()];
        let mut inside = vec![false; self.inside.len()];
        for (at, token) in self.tokens.iter().enumerate() {
            let here = self.before.get(at) == Some(&true);
            match token {
                Token::Directories if here || self.inside.get(at) == Some(&true) => {
                    mark(&mut inside, at);
                    if letter == '/' {
                        mark(&mut before, at + 1);
                    }
                }
                Token::Star if here && letter != '/' => mark(&mut before, at),
                Token::Everything if here => mark(&mut before, at),
                Token::Star | Token::Directories | Token::Everything => {}
                single if here && single.takes(letter) => mark(&mut before, at + 1),
                _ => {}
            }
        }
        self.before = before;
        self.inside = inside;
        self.skip_optional();
    }

    fn accepts(&self) -> bool {
        self.before.last() == Some(&true)
    }

    fn is_alive(&self) -> bool {
        self.before.contains(&true) || self.inside.contains(&true)
    }
}

fn mark(places: &mut [bool], at: usize) {
    if let Some(place) = places.get_mut(at) {
        *place = true;
    }
}

impl Token {
    fn takes(&self, letter: char) -> bool {
        match self {
            Token::Char(char) => *char == letter,
            Token::Any => letter != '/',
            Token::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&letter)) != *negated
            }
            Token::Star | Token::Directories | Token::Everything => false,
        }
    }
}

/// The first character of a path. Bytes that are no UTF-8 count as one replacement character each, as in Go.
fn next_char(bytes: &[u8]) -> Option<(char, &[u8])> {
    let first = bytes.first()?;
    let length = match first {
        0x00..0x80 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..=0xff => 4,
        _ => 1,
    };
    let whole = bytes.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match whole.and_then(|text| text.chars().next()) {
        Some(letter) => Some((letter, bytes.get(length..)?)),
        None => Some((char::REPLACEMENT_CHARACTER, bytes.get(1..)?)),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, PatternError> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next() {
        tokens.push(match letter {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                if rest.peek().is_some() { Token::Directories } else { Token::Everything }
            }
            '*' => Token::Star,
            '?' => Token::Any,
            '[' => class(&mut rest)?,
            '\\' => Token::Char(rest.next().ok_or(PatternError::Dangling)?),
            other => Token::Char(other),
        });
    }
    Ok(tokens)
}

/// What follows a `[`. The grammar is `filepath.Match`'s: `^` negates, `!` does not, and `\` escapes.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, PatternError> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
        let first = class_char(rest)?;
        let last = if rest.next_if_eq(&'-').is_some() { class_char(rest)? } else { first };
        if last < first {
            return Err(PatternError::Reversed);
        }
        ranges.push((first, last));
    }
    Ok(Token::Class { negated, ranges })
}

fn class_char(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, PatternError> {
    let letter = match rest.next().ok_or(PatternError::OpenClass)? {
        '-' | ']' => return Err(PatternError::BadClass),
        '\\' => rest.next().ok_or(PatternError::OpenClass)?,
        letter => letter,
    };
    // A class is never the pattern's end.
    rest.peek().map(|_| letter).ok_or(PatternError::OpenClass)
}

fn shortcut(text: &str, tokens: &[Token]) -> Shortcut {
    let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
    if plain(text) {
        return Shortcut::Equals(text.into());
    }
    if let Some(end) = text.strip_prefix("**").filter(|end| plain(end)) {
        return Shortcut::EndsWith(end.into());
    }
    match text.strip_suffix("**").filter(|start| plain(start)) {
        Some(start) if tokens.last() == Some(&Token::Everything) => Shortcut::StartsWith(start.into()),
        _ => Shortcut::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_patterns() {
        let vectors: &[(&str, &[&str], &[&str])] = &[
            ("a", &["a"], &["b", "aa", "a/b", "b/a"]),
            ("a/b", &["a/b"], &["a", "a/b/c", "x/a/b"]),
            ("*", &["a", ".a", ""], &["a/b"]),
            ("*.go", &["a.go", ".go"], &["a/b.go", "ago", "a.gop"]),
            ("a*b", &["ab", "axb", "axxb"], &["a/b", "abc"]),
            ("*/*", &["a/b"], &["a", "a/b/c"]),
            ("*/temp*", &["some/temp", "some/temporary.txt"], &["temp", "a/b/temp"]),
            ("temp?", &["tempa", "tempä"], &["temp", "temp/", "tempab"]),
            ("a?b", &["axb"], &["a/b", "ab"]),
            ("**", &["a", "a/b", "a/b/c"], &[]),
            ("**/a", &["a", "x/a", "x/y/a"], &["a/b", "xa"]),
            ("**a", &["a", "xa", "x/ya"], &["ab"]),
            ("**.log", &["a.log", "a/b.log", ".log"], &["a.logs"]),
            ("**/*.go", &["a.go", "x/a.go", "x/y/a.go"], &["a.gop", "x.go/a"]),
            ("a/**", &["a/b", "a/b/c", "a/"], &["a", "ab"]),
            ("a**", &["a", "ab", "ab/c", "a/c"], &["b", "ba"]),
            ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb", "a/b/c"]),
            ("a*/**", &["a/b", "ax/b/c"], &["a", "x/a/b"]),
            ("**/x/**", &["x/a", "a/x/b", "a/b/x/c/d"], &["x", "a/x", "ax/b"]),
            ("**/a/*/b", &["a/x/b", "y/a/x/b"], &["a/b", "a/x/y/b"]),
            ("a/**/**/b", &["a/b", "a/x/b"], &["b"]),
            ("[a-c]x", &["ax", "bx", "cx"], &["dx", "x", "-x"]),
            ("[^a-c]x", &["dx", "-x"], &["ax", "x"]),
            ("[abc]", &["a", "c"], &["d", "ab"]),
            ("[!a]", &["!", "a"], &["b"]),
            ("[\\]]", &["]"], &["[", "\\"]),
            ("[\\-a]", &["-", "a"], &["b"]),
            ("[a-]b]", &[], &[]),
            ("a]", &["a]"], &["a"]),
            ("\\*", &["*"], &["a", "\\*"]),
            ("a\\?b", &["a?b"], &["axb"]),
            ("\\!a", &["!a"], &["a"]),
            ("\\a", &["a"], &["\\a"]),
            ("a.b", &["a.b"], &["axb"]),
            ("a+(b)|{c}^$", &["a+(b)|{c}^$"], &["aab"]),
            ("ä*", &["ä", "äx"], &["a"]),
            ("[ä-ö]", &["ä", "ö"], &["a"]),
            ("*a*a*a*a*a*a*b", &["aaaaaab"], &["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]),
        ];
        for (text, yes, no) in vectors {
            let Ok(pattern) = Pattern::parse(text) else {
                assert!(yes.is_empty() && no.is_empty(), "{text} is refused");
                continue;
            };
            for path in *yes {
                assert!(pattern.matches(path.as_bytes()), "{text} should match {path}");
            }
            for path in *no {
                assert!(!pattern.matches(path.as_bytes()), "{text} should not match {path}");
            }
        }
    }

    #[test]
    fn malformed_patterns() {
        let vectors = [
            ("[", PatternError::OpenClass),
            ("a[", PatternError::OpenClass),
            ("[a", PatternError::OpenClass),
            ("[a-", PatternError::OpenClass),
            ("[a-z", PatternError::OpenClass),
            ("[^", PatternError::OpenClass),
            ("[\\", PatternError::OpenClass),
            ("[]", PatternError::BadClass),
            ("[]a]", PatternError::BadClass),
            ("[^]a]", PatternError::BadClass),
            ("[-a]", PatternError::BadClass),
            ("[a-]", PatternError::BadClass),
            ("[z-a]", PatternError::Reversed),
            ("a\\", PatternError::Dangling),
            ("\\", PatternError::Dangling),
        ];
        for (text, expected) in vectors {
            assert_eq!(Pattern::parse(text).err(), Some(expected), "{text}");
        }
    }

    #[test]
    fn paths_that_are_no_text() {
        let one = Pattern::parse("a?b").expect("a pattern");
        assert!(one.matches(b"a\xffb"));
        assert!(!one.matches(b"a\xff\xfeb"));
        assert!(Pattern::parse("*.bin").expect("a pattern").matches(b"\xc3.bin"));
        assert!(Pattern::parse("**/x").expect("a pattern").matches(b"\xf0\x9f/x"));
    }

    #[test]
    fn what_may_lie_below() {
        let vectors: &[(&str, &[&str], &[&str])] = &[
            ("a/b/c", &["a", "a/b"], &["b", "a/b/c", "a/x"]),
            ("a", &[], &["a", "b"]),
            ("**/keep", &["a", "a/b"], &[]),
            ("a/**", &["a", "a/b"], &["b"]),
            ("a/*/c", &["a", "a/x"], &["b", "a/x/y", "a/x/c"]),
            ("*/c", &["a"], &["a/b"]),
            ("a*/**/z.txt", &["ab", "ab/c/d"], &["b"]),
        ];
        for (text, yes, no) in vectors {
            let pattern = Pattern::parse(text).expect("a pattern");
            for path in *yes {
                assert!(pattern.may_match_below(path.as_bytes()), "{text} below {path}");
            }
            for path in *no {
                assert!(!pattern.may_match_below(path.as_bytes()), "{text} below {path}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_pattern_panics(text in "[a*?/\\[\\]\\\\^!ä-]{0,12}", path in "[a/ä.]{0,12}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                pattern.matches(path.as_bytes());
                pattern.may_match_below(path.as_bytes());
            }
        }

        #[test]
        fn what_matches_below_may_match_below(text in "[a*/b]{1,8}", path in "[ab]{1,3}(/[ab]{1,3}){1,3}") {
            if let Ok(pattern) = Pattern::parse(&text) && pattern.matches(path.as_bytes()) {
                for (at, _) in path.match_indices('/') {
                    proptest::prop_assert!(pattern.may_match_below(&path.as_bytes()[..at]));
                }
            }
        }
    }
}
