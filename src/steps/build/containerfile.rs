//! The little that must be known about a Containerfile's text: whether it declares a healthcheck.
//!
//! Pure. It is the engine that understands Containerfiles.

/// Whether the stage that is built declares a `HEALTHCHECK` of its own. One inherited from a base image is not seen.
#[must_use]
pub(super) fn declares_healthcheck(text: &str, target: Option<&str>) -> bool {
    let mut declared = false;
    let mut stage: Option<(usize, String)> = None;
    for instruction in instructions(text) {
        let words: Vec<&str> = instruction.split_whitespace().collect();
        match words.as_slice() {
            [first, rest @ ..] if first.eq_ignore_ascii_case("FROM") => {
                if target.is_some_and(|target| is_stage(stage.as_ref(), target)) {
                    break;
                }
                let number = stage.map_or(0, |(number, _)| number + 1);
                let name =
                    rest.windows(2).find(|pair| pair.first().is_some_and(|word| word.eq_ignore_ascii_case("AS")));
                stage = Some((number, name.and_then(|pair| pair.last()).copied().unwrap_or_default().to_owned()));
                declared = false;
            }
            [first, second, ..] if first.eq_ignore_ascii_case("HEALTHCHECK") => {
                declared = !second.eq_ignore_ascii_case("NONE");
            }
            _ => {}
        }
    }
    declared
}

fn is_stage(stage: Option<&(usize, String)>, target: &str) -> bool {
    stage.is_some_and(|(number, name)| name.eq_ignore_ascii_case(target) || number.to_string() == target)
}

/// Instructions, each on a line of its own: continued lines joined, comments and here-documents left out.
fn instructions(text: &str) -> Vec<String> {
    let mut instructions = Vec::new();
    let mut unfinished = String::new();
    let mut heredocs: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some(end) = heredocs.first() {
            if line.trim_start_matches('\t') == end {
                heredocs.remove(0);
            }
            continue;
        }
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        match trimmed.strip_suffix('\\') {
            Some(start) => {
                unfinished.push_str(start);
                unfinished.push(' ');
            }
            None => {
                unfinished.push_str(trimmed);
                heredocs = heredoc_ends(&unfinished);
                instructions.push(std::mem::take(&mut unfinished));
            }
        }
    }
    if !unfinished.is_empty() {
        instructions.push(unfinished);
    }
    instructions
}

/// The words that end the here-documents of an instruction, in order. Only RUN, COPY and ADD have any.
fn heredoc_ends(instruction: &str) -> Vec<String> {
    let first = instruction.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if !matches!(first.as_str(), "RUN" | "COPY" | "ADD") {
        return Vec::new();
    }
    let after = |word: &str| {
        let name = word.strip_prefix("<<")?;
        let name = name.strip_prefix('-').unwrap_or(name).trim_matches(['"', '\'']);
        name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_').then(|| name.to_owned())
    };
    instruction.split_whitespace().filter_map(after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations() {
        let vectors = [
            ("nothing", "FROM a\nCMD x", None, false),
            ("declared", "FROM a\nHEALTHCHECK CMD true", None, true),
            ("in lower case, with options", "from a\nhealthcheck --interval=3s CMD true", None, true),
            ("over two lines", "FROM a\nHEALTHCHECK \\\n  CMD true", None, true),
            ("with a comment between", "FROM a\nHEALTHCHECK \\\n# why\n CMD true", None, true),
            ("switched off", "FROM a\nHEALTHCHECK NONE", None, false),
            ("declared and switched off", "FROM a\nHEALTHCHECK CMD true\nHEALTHCHECK none", None, false),
            ("in a comment", "FROM a\n# HEALTHCHECK CMD true", None, false),
            ("as an argument", "FROM a\nRUN echo \\\nHEALTHCHECK CMD true", None, false),
            ("in a here-document", "FROM a\nRUN <<EOF\nHEALTHCHECK CMD true\nEOF", None, false),
            ("in an indented, quoted one", "FROM a\nRUN cat <<-'X' > f\nHEALTHCHECK CMD y\n\tX\n", None, false),
            ("after a here-document", "FROM a\nCOPY <<A <<B /\nx\nA\ny\nB\nHEALTHCHECK CMD true", None, true),
            ("a shift is none", "FROM a\nRUN echo $((1<<2))\nHEALTHCHECK CMD true", None, true),
            ("in an earlier stage", "FROM a AS b\nHEALTHCHECK CMD true\nFROM c", None, false),
            ("in the target, by name", "FROM a AS b\nHEALTHCHECK CMD true\nFROM c", Some("b"), true),
            ("in the target, by number", "FROM a\nHEALTHCHECK CMD true\nFROM c", Some("0"), true),
            ("after the target", "FROM a as b\nFROM c\nHEALTHCHECK CMD true", Some("B"), false),
            ("unfinished", "FROM a\nHEALTHCHECK CMD \\", None, true),
            ("empty", "", None, false),
        ];
        for (name, text, target, expected) in vectors {
            assert_eq!(declares_healthcheck(text, target), expected, "{name}");
        }
    }
}
