//! policy.json: what it says about an image, and the same text with the app's rule in it. Pure.
//!
//! What is not the app's rule stays as it stands, byte by byte: the file may be a distribution's or an administrator's.
//! How a file becomes text, and when it is written, is `files`' business.

use serde_json::{Map, Value};
use tagship_core::signature::json as strict;

use super::{
    meaning::{lost, words},
    requirement::Requirement,
    splice::splice,
};

/// The largest policy that is read. Those of distributions have some hundred bytes.
pub(super) const LARGEST: usize = 1024 * 1024;

/// Where there is no policy at all Podman pulls nothing: the one that is begun here must not change that.
pub(super) const NONE: &str =
    "{\n    \"default\": [\n        {\n            \"type\": \"reject\"\n        }\n    ]\n}\n";

/// A policy with the app's rule in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Merged {
    /// The whole text.
    pub text: String,
    /// What applied to the image until now, if it asked for no more than the app's rule.
    pub notes: Vec<String>,
    /// The same, if it asked for more: what is lost.
    pub warnings: Vec<String>,
    /// Rules for single tags or digests of the image: they go before the app's.
    pub exceptions: Vec<String>,
}

/// Why a policy cannot be added to.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Not JSON, or a key twice.
    #[error("it is not JSON as Podman reads it")]
    Json(#[from] strict::JsonError),
    /// Some part has another form than containers-policy.json(5) gives it.
    #[error("{0}")]
    Shape(String),
    /// The rule cannot be added by text, so that all else stays.
    #[error("the app's rule cannot be added without changing the rest of it")]
    Edit {
        /// The image's name there.
        scope: String,
        /// What belongs below it.
        rules: String,
    },
    /// The rule cannot be put into words.
    #[error("the rule cannot be written")]
    Write(#[from] serde_json::Error),
}

fn shape<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Shape(why.into()))
}

/// Puts the app's rule where Podman looks for its image. What stood there for the same scope is replaced.
pub(super) fn merge(text: &str, requirement: &Requirement) -> Result<Merged, Fault> {
    let before: Value = strict::parse(text.as_bytes(), LARGEST)?;
    let scopes = check(&before)?;
    let scope = requirement.scope();
    let rules = requirement.rules()?;

    let (notes, warnings) = until_now(&before, scopes, &scope, &rules);
    let exceptions = exceptions(scopes, &scope);
    if scopes.and_then(|scopes| scopes.get(&scope)) == Some(&rules) {
        return Ok(Merged { text: text.to_owned(), notes, warnings, exceptions });
    }
    let mut after = before;
    put(&mut after, &["transports", "docker", &scope], rules.clone());
    let edited = splice(text, &["transports", "docker", &scope], requirement)?;
    if !means(&edited, &after) {
        return Err(Fault::Edit { scope, rules: rules.to_string() });
    }
    Ok(Merged { text: edited, notes, warnings, exceptions })
}

/// The edit is by text, so that it changes nothing else; what decides is that it means what was meant.
fn means(text: &str, value: &Value) -> bool {
    strict::parse::<Value>(text.as_bytes(), LARGEST).is_ok_and(|text| text == *value)
}

/// The form that Podman asks for, as far as it decides about images. Returns the scopes of registries' images.
fn check(policy: &Value) -> Result<Option<&Map<String, Value>>, Fault> {
    let Value::Object(policy) = policy else { return shape("it is not a JSON object") };
    match policy.get("default") {
        None => return shape("`default` is missing"),
        Some(rules) => check_rules("`default`", rules)?,
    }
    let transports = match policy.get("transports") {
        None => return Ok(None),
        Some(Value::Object(transports)) => transports,
        Some(_) => return shape("`transports` is not an object"),
    };
    for (transport, scopes) in transports {
        let Value::Object(scopes) = scopes else { return shape(format!("transport {transport:?} is not an object")) };
        for (scope, rules) in scopes {
            check_rules(&format!("{transport} scope {scope:?}"), rules)?;
        }
    }
    Ok(transports.get("docker").and_then(Value::as_object))
}

fn check_rules(what: &str, rules: &Value) -> Result<(), Fault> {
    match rules {
        Value::Array(rules) if rules.is_empty() => shape(format!("{what} has an empty list of rules")),
        Value::Array(rules) if rules.iter().all(|rule| rule.get("type").is_some_and(Value::is_string)) => Ok(()),
        _ => shape(format!("{what} is not a list of rules with a `type` each")),
    }
}

/// What applied to the image until now, in words: as a note, or as a warning if it was stricter.
fn until_now(
    policy: &Value,
    scopes: Option<&Map<String, Value>>,
    scope: &str,
    rules: &Value,
) -> (Vec<String>, Vec<String>) {
    let found = |scope: &str| scopes.and_then(|scopes| scopes.get(scope));
    let lost = |before: &Value| Some(lost(before, rules, scope).join(" and ")).filter(|lost| !lost.is_empty());
    match found(scope) {
        Some(same) if same == rules => (vec![format!("{scope} is under this very rule already")], Vec::new()),
        Some(other) => match lost(other) {
            None => (vec![format!("{scope} had a rule that is replaced: it {}", words(other))], Vec::new()),
            Some(lost) => (Vec::new(), vec![format!("{scope} had a stricter rule, which is replaced: it {lost}")]),
        },
        None => {
            let broader = broader(scope).into_iter().find_map(|broader| Some((found(&broader)?, broader)));
            let (rules, name) = match broader {
                Some((rules, name)) if name.is_empty() => (Some(rules), "the registries' default".to_owned()),
                Some((rules, name)) => (Some(rules), format!("the rule for {name}")),
                None => (policy.get("default"), "the policy's default".to_owned()),
            };
            let Some(rules) = rules else { return (Vec::new(), Vec::new()) };
            let (began, ends) = (format!("until now {name} applied to this image"), "For other images it goes on");
            match lost(rules) {
                None => (vec![format!("{began}: it {}. {ends}", words(rules))], Vec::new()),
                Some(lost) => (Vec::new(), vec![format!("{began} and was stricter: it {lost}. {ends}")]),
            }
        }
    }
}

fn exceptions(scopes: Option<&Map<String, Value>>, scope: &str) -> Vec<String> {
    let narrower = scopes
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.strip_prefix(scope).is_some_and(|rest| rest.starts_with([':', '@'])));
    narrower
        .map(|(name, rules)| format!("{name} has a rule of its own, which goes first: it {}", words(rules)))
        .collect()
}

/// The scopes that Podman asks after the image's own, in its order (containers/image,
/// `DockerReferenceNamespaces`): what is above it, its registry, the domains above that, all registries.
pub(super) fn broader(scope: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut name = scope;
    while let Some((above, _)) = name.rsplit_once('/') {
        found.push(above.to_owned());
        name = above;
    }
    let mut host = name.split_once(':').map_or(name, |(host, _)| host);
    while let Some((_, domain)) = host.split_once('.') {
        found.push(format!("*.{domain}"));
        host = domain;
    }
    found.push(String::new());
    found
}

fn put(at: &mut Value, path: &[&str], new: Value) {
    match path {
        [] => *at = new,
        [key, rest @ ..] => {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            if let Value::Object(members) = at {
                put(members.entry(*key).or_insert(Value::Null), rest, new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{super::requirement::tests::requirement, *};

    const IMAGE: &str = "git.example.org/chris/app";
    /// What Debian's package brings.
    const DEBIAN: &str =
        "{\n    \"default\": [\n        {\n            \"type\": \"insecureAcceptAnything\"\n        }\n    ]\n}\n";

    fn merged(text: &str) -> Result<Merged, Fault> {
        merge(text, &requirement(IMAGE, &["/etc/app.pub"]))
    }

    fn with(docker: &str) -> String {
        format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{{docker}}}}}}}"#)
    }

    #[test]
    fn a_policy_without_transports_gets_them_in_its_own_style() {
        let text = merged(DEBIAN).unwrap().text;
        let expected = r#"{
    "default": [
        {
            "type": "insecureAcceptAnything"
        }
    ],
    "transports": {
        "docker": {
            "git.example.org/chris/app": [
                {
                    "type": "sigstoreSigned",
                    "keyPath": "/etc/app.pub",
                    "signedIdentity": {
                        "type": "matchRepository"
                    }
                }
            ]
        }
    }
}
"#;
        assert_eq!(text, expected);
        assert_eq!(merged(&text).unwrap().text, text, "a second time changes nothing");
    }

    #[test]
    fn everything_else_stays_byte_by_byte() {
        let foreign = "{\n  \"transports\": {\n\t\"docker-daemon\": {\"\": [{\"type\":\"reject\"}]},\n    \"docker\": {\n      \"quay.io\": \
                       [ {\"type\": \"signedBy\", \"keyType\": \"GPGKeys\", \"keyPath\": \"/a\", \"new\": 1e3} ]\n    }\n  },\n  \
                       \"future\":   {\"x\": [1.50, null]},\n  \"default\": [{\"type\": \"reject\"}]\n}";
        let text = merged(foreign).unwrap().text;
        let (head, tail) = foreign.split_once("1e3} ]").unwrap();
        assert!(text.starts_with(&format!("{head}1e3}} ],\n      \"{IMAGE}\": [\n")), "{text}");
        assert!(text.ends_with(tail), "{text}");
    }

    #[test]
    fn other_forms_of_the_file_are_added_to_as_well() {
        for text in [
            r#"{"default":[{"type":"reject"}]}"#,
            r#"{"default":[{"type":"reject"}],"transports":{}}"#,
            r#"{"transports":{"docker":{}},"default":[{"type":"reject"}]}"#,
            "\n { \"transports\" :\n{ } , \"default\":[{\"type\":\"reject\"}]\n}\n\n",
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"quay.io":[{"type":"reject"}]},"dir":{"":[{"type":"reject"}]}}}"#,
            "{\r\n\t\"default\": [{\"type\": \"reject\"}]\r\n}\r\n",
            r#"{"\u0064efault":[{"type":"reject"}],"transports":{"\u0064ocker":{"a.example":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"reject"}],"x":"}{\"transports\":{"}"#,
        ] {
            let mut expected: Value = serde_json::from_str(text).unwrap();
            let rules = requirement(IMAGE, &["/etc/app.pub"]).rules().unwrap();
            put(&mut expected, &["transports", "docker", IMAGE], rules);
            let merged = merged(text).unwrap().text;
            assert_eq!(serde_json::from_str::<Value>(&merged).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn the_rule_of_the_same_image_is_replaced_and_named() {
        let old = format!(
            r#""a.example":[{{"type":"reject"}}], "{IMAGE}": [{{"type":"signedBy","x":1}},{{"type":"reject"}}] , "b.example":[{{"type":"reject"}}]"#
        );
        let Merged { text, notes, warnings, .. } = merged(&with(&old)).unwrap();
        assert!(!text.contains("signedBy") && text.contains(r#""a.example":[{"type":"reject"}], "git"#), "{text}");
        assert!(text.contains(r#"] , "b.example":"#), "{text}");
        assert_eq!(
            warnings,
            [format!(
                "{IMAGE} had a stricter rule, which is replaced: it asks for a GPG signature and refuses everything"
            )]
        );
        assert_eq!(notes, [""; 0]);
        let other_key = merge(&text, &requirement(IMAGE, &["/etc/b.pub"])).unwrap();
        assert_eq!(other_key.warnings, [""; 0]);
        assert!(other_key.notes[0].ends_with("asks for a sigstore signature by /etc/app.pub"), "{:?}", other_key.notes);
    }

    #[test]
    fn what_applied_before_is_named_by_podmans_own_order() {
        let rule = |scope: &str, kind: &str| format!(r#""{scope}":[{{"type":"{kind}"}}]"#);
        for (scopes, words) in [
            (vec![], "the policy's default applied to this image and was stricter: it refuses everything. For other"),
            (
                vec![("", "insecureAcceptAnything")],
                "the registries' default applied to this image: it accepts everything",
            ),
            (vec![("*.org", "reject"), ("", "insecureAcceptAnything")], "the rule for *.org"),
            (vec![("*.example.org", "reject"), ("*.org", "insecureAcceptAnything")], "the rule for *.example.org"),
            (vec![("git.example.org", "signedBy"), ("*.org", "reject")], "the rule for git.example.org"),
            (vec![("git.example.org/chris", "future"), ("git.example.org", "reject")], "is of the type \"future\""),
            (vec![("git.example.org/chris/apple", "future")], "the policy's default"),
        ] {
            let rules: Vec<String> = scopes.iter().map(|(scope, kind)| rule(scope, kind)).collect();
            let Merged { mut notes, warnings, .. } = merged(&with(&rules.join(","))).unwrap();
            notes.extend(warnings);
            assert!(notes.len() == 1 && notes[0].contains(words), "{scopes:?}: {notes:?}");
        }
    }

    #[test]
    fn rules_that_go_before_the_apps_are_named() {
        let docker = format!(
            r#""{IMAGE}:v1":[{{"type":"insecureAcceptAnything"}}],"{IMAGE}@sha256:0":[{{"type":"reject"}}],"{IMAGE}le:v1":[{{"type":"reject"}}],"{IMAGE}/x":[{{"type":"reject"}}]"#
        );
        let merged = merged(&with(&docker)).unwrap();
        assert_eq!(merged.exceptions.len(), 2, "{:?}", merged.exceptions);
        assert!(merged.exceptions[0].starts_with(&format!("{IMAGE}:v1 has a rule of its own")));
        assert!(merged.text.contains(&format!(r#""{IMAGE}:v1":[{{"type":"insecureAcceptAnything"}}]"#)), "kept");
    }

    #[test]
    fn scopes_above_are_in_podmans_order() {
        let above = ["registry.test:5000/chris", "registry.test:5000", "*.test", ""];
        assert_eq!(broader("registry.test:5000/chris/demo"), above);
        assert_eq!(broader("localhost/demo"), ["localhost", ""]);
    }

    #[test]
    fn what_podman_would_not_read_is_not_added_to() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for (defect, text) in [
            ("empty", ""),
            ("no object", "[]"),
            ("truncated", r#"{"default":[{"type":"reject"}]"#),
            ("trailing text", r#"{"default":[{"type":"reject"}]}x"#),
            ("comment", "{\"default\":[{\"type\":\"reject\"}]} // why"),
            ("trailing comma", r#"{"default":[{"type":"reject"},]}"#),
            ("byte order mark", "\u{feff}{\"default\":[{\"type\":\"reject\"}]}"),
            ("no default", "{}"),
            ("default is null", r#"{"default":null}"#),
            ("default is no list", r#"{"default":{"type":"reject"}}"#),
            ("empty default", r#"{"default":[]}"#),
            ("default without a type", r#"{"default":[{}]}"#),
            ("type is no string", r#"{"default":[{"type":1}]}"#),
            ("default twice", r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#),
            ("scope twice", &with(r#""a.example":[{"type":"reject"}],"a.example":[{"type":"reject"}]"#)),
            ("key twice in a rule", r#"{"default":[{"type":"reject","type":"insecureAcceptAnything"}]}"#),
            ("transports is a list", r#"{"default":[{"type":"reject"}],"transports":[]}"#),
            ("transports is null", r#"{"default":[{"type":"reject"}],"transports":null}"#),
            ("a transport is a list", r#"{"default":[{"type":"reject"}],"transports":{"docker":[]}}"#),
            ("a scope is an object", &with(r#""a.example":{"type":"reject"}"#)),
            ("an empty scope", &with(r#""a.example":[]"#)),
            ("rules are strings", &with(r#""a.example":["reject"]"#)),
            ("another transport's scope is empty", r#"{"default":[{"type":"reject"}],"transports":{"dir":{"":[]}}}"#),
            ("nested too deep", &format!(r#"{{"default":[{{"type":"reject"}}],"x":{deep}}}"#)),
            ("too large", &format!(r#"{{"default":[{{"type":"reject"}}],"x":"{}"}}"#, "x".repeat(LARGEST))),
        ] {
            assert!(merged(text).is_err(), "{defect}");
        }
    }

    #[test]
    fn the_policy_for_none_refuses_and_can_be_added_to() {
        let merged = merged(NONE).unwrap();
        assert!(merged.warnings[0].contains("refuses everything"));
    }

    #[test]
    fn an_edit_that_would_mean_something_else_is_none() {
        let value: Value = serde_json::from_str(DEBIAN).unwrap();
        assert!(means(DEBIAN, &value));
        for other in ["", "{}", r#"{"default":[{"type":"reject"}]}"#, &DEBIAN.replace('}', "},"), &DEBIAN.repeat(2)] {
            assert!(!means(other, &value), "{other}");
        }
    }

    proptest! {
        #[test]
        fn only_the_apps_rule_changes(
            docker in proptest::collection::btree_map("[a-z./*:\\PC]{0,12}", 0..3usize, 0..5),
            other in proptest::option::of("\\PC{0,8}"),
            with_app in any::<bool>(),
            pretty in any::<bool>(),
        ) {
            let rule = |kind: usize| json!([{"type": (["reject", "insecureAcceptAnything", "signedBy"][kind])}]);
            let mut scopes: Map<String, Value> = docker.into_iter().map(|(scope, kind)| (scope, rule(kind))).collect();
            if with_app {
                scopes.insert(IMAGE.to_owned(), rule(0));
            }
            let mut policy = json!({"default": rule(1), "transports": {"docker": scopes, "atomic": {}}});
            if let Some(other) = other {
                policy[format!("x{other}")] = json!({"transports": {"docker": {}}, "n": 1.5});
            }
            let text = if pretty { serde_json::to_string_pretty(&policy).unwrap() } else { policy.to_string() };
            let rule = requirement(IMAGE, &["/etc/app.pub"]);
            let edited = splice(&text, &["transports", "docker", IMAGE], &rule).unwrap();
            put(&mut policy, &["transports", "docker", IMAGE], rule.rules().unwrap());
            prop_assert_eq!(serde_json::from_str::<Value>(&edited).unwrap(), policy);
            prop_assert_eq!(merge(&text, &rule).unwrap().text, edited);
        }

        #[test]
        fn never_panics(text in "[\\[\\]{}\":,a \n]{0,60}|\\PC{0,40}", tail in "[\\[\\]{}\":,a]{0,20}") {
            let _ = merged(&text);
            let _ = merged(&format!("{{\"default\":[{{\"type\":\"reject\"}}],{tail}"));
        }
    }
}
