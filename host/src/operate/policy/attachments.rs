//! registries.d: whether Podman looks for sigstore signatures of an image, and the one file to write if it does not.
//! Pure.
//!
//! containers-registries.d(5): Podman merges all `*.yaml` files of one directory. It looks only where
//! `use-sigstore-attachments` says so, at the image's scope or above it, and reads nothing any more if two files name
//! the same scope.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::document::broader;

/// A file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name in the directory.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// What has to become of the directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// Nothing: this scope has it switched on already, in this file.
    On { scope: String, name: String },
    /// This file is new.
    New(Entry),
    /// This file gets another text.
    Changed(Entry),
}

/// Why the directory cannot be added to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A file is not as Podman reads it.
    #[error("{name}: {why}")]
    File {
        /// The file's name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// Podman reads none of them any more.
    #[error("{first} and {second} both name {scope}, and Podman then reads neither")]
    Twice {
        /// The scope.
        scope: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// The file has a form in which no line can be added.
    #[error("{name} names {scope} in a form that is not changed by machine")]
    Form {
        /// The file's name.
        name: String,
        /// What it speaks of.
        scope: String,
    },
}

const KEY: &str = "use-sigstore-attachments";

/// What counts for us in a file; Podman ignores keys that it does not know, too.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", expecting = "keys with values")]
struct Document {
    default_docker: Option<Namespace>,
    docker: Option<BTreeMap<String, Option<Namespace>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "keys with values")]
struct Namespace {
    #[serde(rename = "use-sigstore-attachments")]
    attachments: Option<bool>,
}

/// Sees to it that Podman looks for signatures of this scope.
pub(super) fn merge(entries: &[Entry], scope: &str) -> Result<Merged, Fault> {
    let said = said(entries)?;
    let scopes = std::iter::once(scope.to_owned()).chain(broader(scope));
    let first = scopes.into_iter().find_map(|scope| {
        let (on, name) = said.get(&scope)?;
        Some(((*on)?, scope, *name))
    });
    if let Some((true, scope, name)) = first {
        return Ok(Merged::On { scope, name: name.to_owned() });
    }
    match said.get(scope).and_then(|(_, name)| entries.iter().find(|entry| entry.name == *name)) {
        Some(entry) => switch_on(entry, scope).map(Merged::Changed),
        None => Ok(Merged::New(Entry { name: fresh_name(entries, scope), text: fresh(scope) })),
    }
}

/// Single tags or digests of the image for which Podman does not look, although it does for the image.
pub(super) fn exceptions(entries: &[Entry], scope: &str) -> Result<Vec<String>, Fault> {
    let said = said(entries)?;
    let off = said.iter().filter(|(name, (on, _))| {
        *on == Some(false) && name.strip_prefix(scope).is_some_and(|rest| rest.starts_with([':', '@']))
    });
    Ok(off
        .map(|(name, (_, file))| format!("{file} has {KEY}: false for {name}: that one can no longer be pulled"))
        .collect())
}

/// What each scope says, and which file says it. The default for all registries is the scope without a name.
fn said(entries: &[Entry]) -> Result<BTreeMap<String, (Option<bool>, &str)>, Fault> {
    let mut said: BTreeMap<String, (Option<bool>, &str)> = BTreeMap::new();
    for entry in entries {
        let Document { default_docker, docker } = parse(entry)?;
        let all = default_docker.map(|namespace| (String::new(), Some(namespace)));
        for (scope, namespace) in all.into_iter().chain(docker.into_iter().flatten()) {
            let on = namespace.and_then(|namespace| namespace.attachments);
            if let Some((_, first)) = said.insert(scope.clone(), (on, &entry.name)) {
                let scope = if scope.is_empty() { "default-docker".to_owned() } else { scope };
                return Err(Fault::Twice { scope, first: first.to_owned(), second: entry.name.clone() });
            }
        }
    }
    Ok(said)
}

fn parse(entry: &Entry) -> Result<Document, Fault> {
    let fault = |why: String| Fault::File { name: entry.name.clone(), why };
    match value(&entry.text).map_err(fault)? {
        // A file of comments alone.
        Value::Null => Ok(Document::default()),
        value @ Value::Object(_) => serde_json::from_value(value).map_err(|error| fault(error.to_string())),
        _ => Err(fault("it is not a mapping".into())),
    }
}

fn value(text: &str) -> Result<Value, String> {
    let options = serde_yaml::options! { with_snippet: false };
    serde_yaml::from_str_with_options(text, options).map_err(|error| error.without_snippet().to_string())
}

fn fresh(scope: &str) -> String {
    // An IPv6 address begins as a YAML list does.
    let scope = if scope.starts_with('[') { format!("\"{scope}\"") } else { scope.to_owned() };
    format!(
        "# Podman looks for sigstore signatures of this image in its registry.\ndocker:\n  {scope}:\n    {KEY}: true\n"
    )
}

/// A name that says what it is for and that no file of the directory has.
fn fresh_name(entries: &[Entry], scope: &str) -> String {
    let plain: String = scope.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let taken = |name: &String| entries.iter().any(|entry| entry.name == *name);
    let names =
        std::iter::once(format!("tagship-{plain}.yaml")).chain((2..).map(|n| format!("tagship-{plain}-{n}.yaml")));
    names.into_iter().find(|name| !taken(name)).unwrap_or_default()
}

/// Adds or changes the one line, and proves by parsing that nothing else changed.
fn switch_on(entry: &Entry, scope: &str) -> Result<Entry, Fault> {
    let form = || Fault::Form { name: entry.name.clone(), scope: scope.to_owned() };
    let mut meant = value(&entry.text).map_err(|_| form())?;
    let namespace = meant.get_mut("docker").and_then(|docker| docker.get_mut(scope)).ok_or_else(form)?;
    if namespace.is_null() {
        *namespace = Value::Object(Map::new());
    }
    namespace.as_object_mut().ok_or_else(form)?.insert(KEY.to_owned(), Value::Bool(true));

    let lines: Vec<&str> = entry.text.lines().collect();
    let names_it = |line: &str| {
        [scope.to_owned(), format!("'{scope}'"), format!("\"{scope}\"")].iter().any(|name| {
            line.trim_start().strip_prefix(name.as_str()).is_some_and(|rest| rest.trim_start().starts_with(':'))
        })
    };
    // A name may stand in a comment or in a text as well: the first place where the change means what was meant counts.
    let candidates = lines.iter().enumerate().filter(|(_, line)| names_it(line)).map(|(at, _)| with_line(&lines, at));
    let text = candidates.into_iter().find(|text| value(text).is_ok_and(|value| value == meant)).ok_or_else(form)?;
    Ok(Entry { name: entry.name.clone(), text })
}

/// The lines with the key switched on below the one at this place.
fn with_line(lines: &[&str], at: usize) -> String {
    let own = lines.get(at).map_or(0, |line| indent(line));
    let below = lines.iter().enumerate().skip(at + 1);
    let children = below.filter(|(_, line)| !is_empty(line)).take_while(|(_, line)| indent(line) > own);
    let children: Vec<(usize, &&str)> = children.collect();
    let depth = children.first().map_or(own + 2, |(_, line)| indent(line));
    let new = format!("{}{KEY}: true", " ".repeat(depth));
    let mut out: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    match children.iter().find(|(_, line)| line.trim_start().starts_with(KEY)) {
        Some((place, _)) => {
            if let Some(line) = out.get_mut(*place) {
                *line = new;
            }
        }
        None => out.insert(at + 1, new),
    }
    out.join("\n") + "\n"
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn is_empty(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCOPE: &str = "registry.test:5000/chris/demo";

    fn entry(name: &str, text: &str) -> Entry {
        Entry { name: name.into(), text: text.into() }
    }

    fn merged(texts: &[&str]) -> Result<Merged, Fault> {
        let entries: Vec<Entry> = texts.iter().enumerate().map(|(n, text)| entry(&format!("{n}.yaml"), text)).collect();
        merge(&entries, SCOPE)
    }

    #[test]
    fn a_file_of_its_own_where_nobody_speaks_of_the_image() {
        let others =
            ["# nothing\n", "default-docker:\n  lookaside: file:///var/lib/sigstore\n", "docker:\n  quay.io:\n"];
        let Merged::New(new) = merged(&others).unwrap() else { panic!("not new") };
        assert_eq!(new.name, "tagship-registry.test-5000-chris-demo.yaml");
        assert!(new.text.ends_with("docker:\n  registry.test:5000/chris/demo:\n    use-sigstore-attachments: true\n"));
        let again = merge(std::slice::from_ref(&new), SCOPE).unwrap();
        assert_eq!(again, Merged::On { scope: SCOPE.into(), name: new.name });
    }

    #[test]
    fn an_address_as_registry_is_no_list() {
        let Merged::New(new) = merge(&[], "[::1]:5000/demo").unwrap() else { panic!("not new") };
        let again = merge(std::slice::from_ref(&new), "[::1]:5000/demo").unwrap();
        assert_eq!(again, Merged::On { scope: "[::1]:5000/demo".into(), name: new.name });
    }

    #[test]
    fn its_name_is_nobody_elses() {
        let taken = entry("tagship-registry.test-5000-chris-demo.yaml", "docker: {}\n");
        let Merged::New(new) = merge(&[taken], SCOPE).unwrap() else { panic!("not new") };
        assert_eq!(new.name, "tagship-registry.test-5000-chris-demo-2.yaml");
    }

    #[test]
    fn what_is_on_already_stays() {
        for (text, scope) in [
            ("docker:\n  registry.test:5000/chris/demo:\n    use-sigstore-attachments: true\n", SCOPE),
            ("docker: {registry.test:5000: {use-sigstore-attachments: true}}\n", "registry.test:5000"),
            ("docker: {'*.test': {use-sigstore-attachments: true}}\n", "*.test"),
            ("default-docker: {use-sigstore-attachments: true}\n", ""),
            // Each key is looked up on its own: the image's other keys do not hide it.
            (
                "docker:\n  registry.test:5000/chris/demo: {lookaside: x}\n  registry.test:5000: {use-sigstore-attachments: true}\n",
                "registry.test:5000",
            ),
        ] {
            assert_eq!(merged(&[text]).unwrap(), Merged::On { scope: scope.into(), name: "0.yaml".into() }, "{text}");
        }
    }

    #[test]
    fn a_nearer_scope_that_is_off_hides_a_broader_one() {
        let texts = [
            "default-docker: {use-sigstore-attachments: true}\ndocker: {registry.test:5000: {use-sigstore-attachments: false}}\n",
        ];
        assert!(matches!(merged(&texts).unwrap(), Merged::New(_)));
    }

    #[test]
    fn an_entry_for_the_image_gets_the_one_line() {
        for (before, after) in [
            (
                "docker:\n  registry.test:5000/chris/demo:\n",
                "docker:\n  registry.test:5000/chris/demo:\n    use-sigstore-attachments: true\n",
            ),
            (
                "# ours\ndocker:\n    registry.test:5000/chris/demo: # theirs\n        # why\n        lookaside: file:///x # y\n    quay.io:\n        lookaside: z\n",
                "# ours\ndocker:\n    registry.test:5000/chris/demo: # theirs\n        use-sigstore-attachments: true\n        # why\n        lookaside: file:///x # y\n    quay.io:\n        lookaside: z\n",
            ),
            (
                "docker:\n  'registry.test:5000/chris/demo':\n    lookaside: x\n    use-sigstore-attachments: false # no\n    other: 1\n",
                "docker:\n  'registry.test:5000/chris/demo':\n    lookaside: x\n    use-sigstore-attachments: true\n    other: 1\n",
            ),
            (
                "x: |\n  registry.test:5000/chris/demo:\ndocker:\n  registry.test:5000/chris/demo:\n    lookaside: x\n",
                "x: |\n  registry.test:5000/chris/demo:\ndocker:\n  registry.test:5000/chris/demo:\n    use-sigstore-attachments: true\n    lookaside: x\n",
            ),
        ] {
            assert_eq!(merged(&[before]).unwrap(), Merged::Changed(entry("0.yaml", after)));
        }
    }

    #[test]
    fn a_form_that_no_line_can_be_added_to_is_left_to_people() {
        for text in [
            "docker: {registry.test:5000/chris/demo: {lookaside: x}}\n",
            "docker:\n  ? registry.test:5000/chris/demo\n  : lookaside: x\n",
            "docker:\n  registry.test:5000/chris/demo: {lookaside: x}\n",
        ] {
            let fault = merged(&[text]).unwrap_err();
            assert_eq!(fault, Fault::Form { name: "0.yaml".into(), scope: SCOPE.into() }, "{text}");
        }
    }

    #[test]
    fn what_podman_would_not_read_is_not_added_to() {
        for (defect, text) in [
            ("a list", "- docker\n"),
            ("a text", "docker\n"),
            ("an open bracket", "docker: [\n"),
            ("a tab", "docker:\n\tquay.io:\n"),
            ("docker is a list", "docker: [quay.io]\n"),
            ("a scope is a text", "docker:\n  quay.io: yes\n"),
            ("a scope is a list", "docker:\n  quay.io: []\n"),
            ("the key is a text", "docker: {quay.io: {use-sigstore-attachments: maybe}}\n"),
            ("the key is a number", "default-docker: {use-sigstore-attachments: 1}\n"),
            ("a key twice", "docker:\n  quay.io:\n  quay.io:\n"),
            ("docker twice", "docker: {}\ndocker: {}\n"),
            ("two documents", "docker: {}\n---\ndocker: {}\n"),
        ] {
            let Err(Fault::File { why, .. }) = merged(&[text]) else { panic!("{defect}: {:?}", merged(&[text])) };
            assert!(!why.contains("struct"), "{defect}: {why}");
        }
    }

    #[test]
    fn two_files_for_one_scope_are_named() {
        let text = "docker: {quay.io: {}}\n";
        let fault = merged(&[text, "# none\n", text]).unwrap_err();
        assert_eq!(fault, Fault::Twice { scope: "quay.io".into(), first: "0.yaml".into(), second: "2.yaml".into() });
        let text = "default-docker: {}\n";
        assert!(merged(&[text, text]).unwrap_err().to_string().contains("default-docker"));
    }

    #[test]
    fn single_tags_that_are_not_looked_for_are_named() {
        let text = "docker:\n  registry.test:5000/chris/demo:v1: {use-sigstore-attachments: false}\n  registry.test:5000/chris/demos: {use-sigstore-attachments: false}\n";
        let found = exceptions(&[entry("a.yaml", text)], SCOPE).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("demo:v1"), "{found:?}");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-a:{}\\[\\]'\"# |>&*?\n]{0,60}|\\PC{0,40}", below in "[-a:{}\\[\\]'\"# \n]{0,30}") {
            let _ = merged(&[&text]);
            let _ = merged(&[&format!("docker:\n  {SCOPE}:{below}"), "docker: {}\n"]);
        }
    }
}
