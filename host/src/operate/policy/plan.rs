//! What would be written, and how it differs from what is there. Pure: files as text in, files as text out.

use std::path::PathBuf;

use similar::TextDiff;
use tagship_core::text;

use super::{
    PolicyError,
    attachments::{self, Entry},
    document,
    requirement::Requirement,
    version::Version,
};

/// What Podman reads now, and where what it should read belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The policy that applies now, if there is any.
    pub policy: Option<(PathBuf, String)>,
    /// Where the app's rule goes: the same file, or the user's first one of his own.
    pub policy_target: PathBuf,
    /// The registries.d directory that applies now. It need not exist.
    pub registries: PathBuf,
    /// Its files, by name.
    pub entries: Vec<Entry>,
    /// Where a file of ours goes: the same directory, or the user's first one of his own.
    pub registries_target: PathBuf,
}

impl Found {
    /// The first file or directory that is another there, if any is.
    pub(super) fn difference(&self, other: &Self) -> Option<PathBuf> {
        let policy = |found: &Self| found.policy.as_ref().map_or(&found.policy_target, |(path, _)| path).clone();
        if (&self.policy, &self.policy_target) != (&other.policy, &other.policy_target) {
            return Some(policy(other));
        }
        if (&self.registries, &self.registries_target) != (&other.registries, &other.registries_target) {
            return Some(other.registries.clone());
        }
        let has = |found: &Self, entry: &Entry| found.entries.contains(entry);
        let added = other.entries.iter().find(|entry| !has(self, entry));
        let gone = || self.entries.iter().find(|entry| !has(other, entry));
        added.or_else(gone).map(|entry| self.registries.join(&entry.name))
    }
}

/// What is to be written. Nothing is left to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// What it was made from.
    pub found: Found,
    /// The whole policy.
    pub policy: Change,
    /// The file in registries.d that switches signatures on.
    pub attachments: Change,
    /// Set if registries.d is new: files of the system's to link there, since Podman no longer reads them otherwise.
    pub links: Vec<PathBuf>,
    /// All files of registries.d as they will be.
    pub entries: Vec<Entry>,
    /// What a reader has to know.
    pub notes: Vec<String>,
    /// What a reader has to worry about.
    pub warnings: Vec<String>,
}

/// One file, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// Where it is written.
    pub path: PathBuf,
    /// What it was made from: itself, or the system's.
    pub from: Option<(PathBuf, String)>,
    /// What it will be.
    pub text: String,
}

impl Change {
    /// Whether there is anything to write.
    pub(super) fn is_none(&self) -> bool {
        self.before() == Some(&self.text)
    }

    /// The text that is at its place now.
    pub(super) fn before(&self) -> Option<&String> {
        self.from.as_ref().filter(|(path, _)| *path == self.path).map(|(_, text)| text)
    }
}

impl Plan {
    /// Decides on everything.
    pub(super) fn of(found: &Found, requirement: &Requirement) -> Result<Self, PolicyError> {
        let scope = requirement.scope();
        let before = found.policy.as_ref().map_or(document::NONE, |(_, text)| text);
        let source = found.policy.as_ref().map_or(&found.policy_target, |(path, _)| path);
        let merged = document::merge(before, requirement)
            .map_err(|error| PolicyError::NotUnderstood { path: source.clone(), source: error })?;
        let directory = |source| PolicyError::Registries { path: found.registries.clone(), source };
        let attachments = attachments::merge(&found.entries, &scope).map_err(directory)?;

        let mut notes = Vec::new();
        let policy = Change { path: found.policy_target.clone(), from: found.policy.clone(), text: merged.text };
        notes.extend(new_policy(&policy));
        notes.extend(merged.notes);
        let mut entries = found.entries.clone();
        let fresh = found.registries != found.registries_target;
        let (attachments, links) = match attachments {
            attachments::Merged::On { scope, name } => {
                let file = found.registries.join(&name);
                let all = if scope.is_empty() { "all registries" } else { &scope };
                notes.push(format!("{} has Podman look for signatures of {all} already", file.display()));
                let text = entries.iter().find(|entry| entry.name == name).map(|entry| entry.text.clone());
                let text = text.unwrap_or_default();
                (Change { path: file.clone(), from: Some((file, text.clone())), text }, Vec::new())
            }
            attachments::Merged::New(new) => {
                let links = if fresh {
                    entries.iter().map(|entry| found.registries.join(&entry.name)).collect()
                } else {
                    Vec::new()
                };
                if fresh && !entries.is_empty() {
                    notes.push(format!(
                        "{} is new. Podman then no longer reads {} for this user, so the files there are linked into it",
                        found.registries_target.display(),
                        found.registries.display()
                    ));
                }
                entries.push(new.clone());
                (Change { path: found.registries_target.join(new.name), from: None, text: new.text }, links)
            }
            // A file of the system's is not changed for one user: his directory gets a copy in place of the link.
            attachments::Merged::Changed(changed) => {
                let from = found.registries.join(&changed.name);
                let old = entries.iter_mut().find(|entry| entry.name == changed.name);
                let old = old.map(|entry| std::mem::replace(&mut entry.text, changed.text.clone())).unwrap_or_default();
                let others = entries.iter().filter(|entry| fresh && entry.name != changed.name);
                let links = others.map(|entry| found.registries.join(&entry.name)).collect();
                (
                    Change {
                        path: found.registries_target.join(changed.name),
                        from: Some((from, old)),
                        text: changed.text,
                    },
                    links,
                )
            }
        };
        notes.extend(
            requirement.unchecked.iter().map(|what| format!("Podman does not check {what}; tagship-host does")),
        );
        if requirement.least_podman() > Version::FIRST {
            notes.push(format!(
                "a list of keys needs Podman {} or later; an older one could no longer read the file",
                requirement.least_podman()
            ));
        }
        // Where there was no policy, what refused everything was made up here.
        let mut warnings = if found.policy.is_some() { merged.warnings } else { Vec::new() };
        warnings.extend(merged.exceptions);
        if requirement.unseen {
            let text = "Podman reads signatures of the format sig alone, and `formats` names bundle alone: \
                        what has no `.sig` beside its bundle can then no longer be pulled";
            warnings.push(text.to_owned());
        }
        warnings.extend(attachments::exceptions(&entries, &scope).map_err(directory)?);
        Ok(Self { found: found.clone(), policy, attachments, links, entries, notes, warnings })
    }

    /// Whether everything is as it should be already.
    pub(super) fn is_none(&self) -> bool {
        self.policy.is_none() && self.attachments.is_none()
    }

    /// What is written, by name.
    pub(super) fn written(&self) -> String {
        let changes = [&self.policy, &self.attachments].into_iter().filter(|change| !change.is_none());
        changes.map(|change| change.path.display().to_string()).collect::<Vec<_>>().join(" and ")
    }

    /// The whole files, each below its name.
    pub(super) fn files(&self) -> String {
        [&self.policy, &self.attachments]
            .map(|change| format!("==> {} <==\n{}\n", change.path.display(), shown(&change.text)))
            .concat()
    }

    /// What would change, as patch(1) and people read it. Empty if nothing would.
    pub(super) fn diff(&self, colours: bool) -> String {
        let mut out = [&self.attachments, &self.policy].map(|change| diff(change, colours)).concat();
        for link in &self.links {
            let name = link.file_name().map(PathBuf::from).unwrap_or_default();
            let at = self.attachments.path.with_file_name(name);
            out.push_str(&format!("link {} -> {}\n", at.display(), link.display()));
        }
        out
    }
}

fn new_policy(policy: &Change) -> Option<String> {
    match &policy.from {
        None => Some(format!(
            "{} is new. There was no policy, and without one Podman pulls nothing; it refuses all other images as before",
            policy.path.display()
        )),
        Some((from, _)) if *from != policy.path => Some(format!(
            "{} is new. Podman then no longer reads {} for this user, so it begins as a copy of it",
            policy.path.display(),
            from.display()
        )),
        Some(_) => None,
    }
}

fn diff(change: &Change, colours: bool) -> String {
    if change.is_none() {
        return String::new();
    }
    let none = (PathBuf::from("/dev/null"), String::new());
    let (from, before) = change.from.as_ref().unwrap_or(&none);
    let diff = TextDiff::from_lines(before.as_str(), change.text.as_str());
    let (from, to) = (from.display().to_string(), change.path.display().to_string());
    let text = diff.unified_diff().context_radius(3).header(&from, &to).to_string();
    let paint = |line: &str| match line.chars().next() {
        Some('+') if colours => format!("\u{1b}[32m{line}\u{1b}[0m\n"),
        Some('-') if colours => format!("\u{1b}[31m{line}\u{1b}[0m\n"),
        _ => format!("{line}\n"),
    };
    shown(&text).lines().map(paint).collect()
}

/// Foreign text, safe for a terminal: only line feeds and tabs are kept as they are.
fn shown(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(text::escape).collect::<Vec<_>>().join("\t");
    text.lines().map(|text| line(text) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tagship_core::explain::Explain;

    use super::{super::requirement::tests::requirement, *};

    const IMAGE: &str = "git.example.org/chris/app";
    const POLICY: &str = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n";

    fn entry(name: &str, text: &str) -> Entry {
        Entry { name: name.into(), text: text.into() }
    }

    /// A user who has nothing of his own yet.
    fn first(entries: Vec<Entry>) -> Found {
        Found {
            policy: Some(("/etc/containers/policy.json".into(), POLICY.into())),
            policy_target: "/home/app/.config/containers/policy.json".into(),
            registries: "/etc/containers/registries.d".into(),
            entries,
            registries_target: "/home/app/.config/containers/registries.d".into(),
        }
    }

    fn plan(found: &Found) -> Plan {
        Plan::of(found, &requirement(IMAGE, &["/etc/app.pub"])).unwrap()
    }

    /// The same user after the plan was followed.
    fn after(plan: &Plan) -> Found {
        Found {
            policy: Some((plan.policy.path.clone(), plan.policy.text.clone())),
            policy_target: plan.policy.path.clone(),
            registries: plan.attachments.path.parent().unwrap().into(),
            entries: plan.entries.clone(),
            registries_target: plan.attachments.path.parent().unwrap().into(),
        }
    }

    #[test]
    fn a_users_first_files_begin_with_the_systems() {
        let system = entry("default.yaml", "default-docker:\n  lookaside: file:///x\n");
        let plan = plan(&first(vec![system.clone()]));
        assert_eq!(plan.policy.path, Path::new("/home/app/.config/containers/policy.json"));
        assert!(plan.policy.text.contains("insecureAcceptAnything") && plan.policy.text.contains(IMAGE));
        assert_eq!(plan.links, [Path::new("/etc/containers/registries.d/default.yaml")]);
        assert_eq!(plan.entries.len(), 2);
        assert_eq!(plan.entries[0], system);
        let diff = plan.diff(false);
        assert!(
            diff.contains("--- /etc/containers/policy.json\n+++ /home/app/.config/containers/policy.json\n"),
            "{diff}"
        );
        assert!(diff.contains("--- /dev/null\n+++ /home/app/.config/containers/registries.d/tagship-git"), "{diff}");
        assert!(diff.ends_with("link /home/app/.config/containers/registries.d/default.yaml -> /etc/containers/registries.d/default.yaml\n"), "{diff}");
        assert_eq!(plan.notes.iter().filter(|note| note.contains("is new")).count(), 2, "{:?}", plan.notes);
    }

    #[test]
    fn a_second_time_there_is_nothing_to_do() {
        let mut again = plan(&after(&plan(&first(vec![entry("default.yaml", "docker: {}\n")]))));
        assert!(again.is_none());
        assert_eq!(again.diff(true), "");
        again.policy.text.push('\n');
        assert!(!again.is_none());
    }

    #[test]
    fn without_any_policy_all_else_stays_refused() {
        let found = Found { policy: None, ..first(vec![]) };
        let plan = plan(&found);
        assert!(plan.policy.text.contains("\"reject\""));
        assert!(plan.notes[0].contains("without one Podman pulls nothing"));
        assert_eq!(plan.warnings, [""; 0]);
        assert!(plan.diff(false).contains("--- /dev/null\n+++ /home/app/.config/containers/policy.json\n"));
    }

    #[test]
    fn a_file_of_the_systems_is_copied_before_it_is_changed() {
        let ours = entry("ours.yaml", "docker:\n  git.example.org/chris/app:\n    lookaside: x\n");
        let plan = plan(&first(vec![entry("default.yaml", "docker: {}\n"), ours]));
        assert_eq!(plan.attachments.path, Path::new("/home/app/.config/containers/registries.d/ours.yaml"));
        assert_eq!(plan.attachments.before(), None);
        assert_eq!(plan.links, [Path::new("/etc/containers/registries.d/default.yaml")]);
        assert!(plan.diff(false).contains("+    use-sigstore-attachments: true"));
    }

    #[test]
    fn where_signatures_are_looked_for_already_no_directory_is_made() {
        let plan = plan(&first(vec![entry("all.yaml", "default-docker: {use-sigstore-attachments: true}\n")]));
        assert!(plan.attachments.is_none() && plan.links.is_empty());
        assert!(plan.notes.iter().any(|note| note.contains("all registries already")));
    }

    #[test]
    fn what_lets_unsigned_images_through_is_a_warning() {
        let policy = format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{IMAGE}:v1":[{{"type":"insecureAcceptAnything"}}]}}}}}}"#
        );
        let found = Found { policy: Some(("/etc/containers/policy.json".into(), policy)), ..first(vec![]) };
        let plan = plan(&found);
        assert!(plan.warnings.len() == 2 && plan.warnings[1].contains("accepts everything"), "{:?}", plan.warnings);
    }

    #[test]
    fn a_stricter_rule_that_no_longer_applies_is_a_warning() {
        let policy = POLICY.replace("insecureAcceptAnything", "reject");
        let found = Found { policy: Some(("/etc/containers/policy.json".into(), policy)), ..first(vec![]) };
        let plan = plan(&found);
        assert!(plan.warnings.len() == 1 && plan.warnings[0].contains("it refuses everything"), "{:?}", plan.warnings);
        assert!(!plan.notes.iter().any(|note| note.contains("until now")), "{:?}", plan.notes);
    }

    #[test]
    fn signatures_that_podman_does_not_see_are_a_warning() {
        let mut unseen = requirement(IMAGE, &["/etc/app.pub"]);
        unseen.unseen = true;
        let warnings = Plan::of(&first(vec![]), &unseen).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(".sig"), "{warnings:?}");
    }

    #[test]
    fn what_cannot_be_understood_is_named_with_its_file() {
        let rule = requirement(IMAGE, &["/etc/app.pub"]);
        let bad = Found { policy: Some(("/etc/containers/policy.json".into(), "{".into())), ..first(vec![]) };
        let error = Plan::of(&bad, &rule).unwrap_err();
        assert!(error.to_string().contains("/etc/containers/policy.json"));
        assert!(error.is_configuration() && error.hint().is_some());
        let source = document::Fault::Edit { scope: IMAGE.into(), rules: "[]".into() };
        let error = PolicyError::NotUnderstood { path: "/p".into(), source };
        assert_eq!(error.hint().unwrap(), format!("add it by hand, in `docker` of `transports`: \"{IMAGE}\": []"));
        let error = Plan::of(&first(vec![entry("bad.yaml", "- x\n")]), &rule).unwrap_err();
        assert!(tagship_core::explain::chain(&error).contains("bad.yaml"), "{error}");
        assert!(error.is_configuration());
    }

    #[test]
    fn nothing_foreign_reaches_the_terminal_as_it_is() {
        let policy = "{\"default\": [{\"type\": \"reject\"}],\n\t\"x\": \"\u{202e}\u{9b}2J\"}\n";
        let found = Found { policy: Some(("/etc/containers/policy.json".into(), policy.into())), ..first(vec![]) };
        let plan = plan(&found);
        let all = plan.diff(false) + &plan.files();
        assert!(all.contains("\t\"x\": \"\\u{202e}\\u{9b}2J\""), "{all}");
        assert!(!all.contains('\u{9b}') && !all.contains('\u{202e}'));
        assert!(plan.diff(true).contains("\u{1b}[32m+"));
    }
}
