//! What policy.json's rules ask of an image: in words, and what of it another rule no longer asks. Pure.

use serde_json::Value;

/// The keys by which a rule accepts signatures, in all forms that there are.
const KEYS: [&str; 4] = ["keyPath", "keyPaths", "keyData", "keyDatas"];
/// The same for the log's keys.
const LOG_KEYS: [&str; 4] = ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"];

/// What a list of rules asks of an image. All of them must agree (containers-policy.json(5), "Policy Requirements").
pub(super) fn words(rules: &Value) -> String {
    rules.as_array().into_iter().flatten().map(word).collect::<Vec<_>>().join(" and ")
}

/// What is no longer asked of the images of a scope once the app's rule applies in place of these; empty if nothing.
///
/// That another key or another log counts is not among it: which ones do is what the app's settings say.
pub(super) fn lost(before: &Value, after: &Value, scope: &str) -> Vec<String> {
    let none = Value::Null;
    let after = after.get(0).unwrap_or(&none);
    let rules = before.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lost = Vec::new();
    for rule in rules {
        match kind(rule) {
            "insecureAcceptAnything" => {}
            "sigstoreSigned" => {
                // One of several must be met beside the others, so that another key is one signature less.
                let other_key = KEYS.iter().any(|key| rule.get(key) != after.get(key));
                let keyless = !has(rule, &KEYS);
                if keyless || (rules.len() > 1 && other_key) {
                    lost.push(word(rule));
                }
                if has(rule, &LOG_KEYS) && !has(after, &LOG_KEYS) {
                    lost.push("asks for a log's record of the signature".to_owned());
                }
                lost.extend(identity(rule, scope));
            }
            _ => lost.push(word(rule)),
        }
    }
    lost
}

/// What a rule wants the signature to name beyond the image's own repository. Unless it says otherwise that is the tag
/// as well (containers-policy.json(5), "signedIdentity").
fn identity(rule: &Value, scope: &str) -> Option<String> {
    let identity = rule.get("signedIdentity");
    match identity.map_or("matchRepoDigestOrExact", kind) {
        "matchRepository" => None,
        "exactRepository" if identity?.get("dockerRepository").and_then(Value::as_str) == Some(scope) => None,
        kind @ ("matchRepoDigestOrExact" | "matchExact") => {
            Some(format!("wants the signature to name the tag, too (`{kind}`)"))
        }
        other => Some(format!("wants the signature to name something of its own (`{other}`)")),
    }
}

fn word(rule: &Value) -> String {
    match kind(rule) {
        "insecureAcceptAnything" => "accepts everything, signed or not".to_owned(),
        "reject" => "refuses everything".to_owned(),
        "signedBy" => "asks for a GPG signature".to_owned(),
        "signedBaseLayer" => "asks for a signed base image".to_owned(),
        "sigstoreSigned" => match keys(rule) {
            Some(keys) => format!("asks for a sigstore signature by {keys}"),
            None if has(rule, &KEYS) => "asks for a sigstore signature".to_owned(),
            None => "asks for a sigstore signature by a certificate".to_owned(),
        },
        other => format!("is of the type {other:?}"),
    }
}

fn kind(rule: &Value) -> &str {
    rule.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn has(rule: &Value, keys: &[&str]) -> bool {
    keys.iter().any(|key| rule.get(key).is_some())
}

fn keys(rule: &Value) -> Option<String> {
    if let Some(path) = rule.get("keyPath") {
        return path.as_str().map(str::to_owned);
    }
    let paths = rule.get("keyPaths")?.as_array()?;
    Some(paths.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SCOPE: &str = "git.example.org/chris/app";

    fn signed(key: &str, more: Value) -> Value {
        let mut rule = json!({"type": "sigstoreSigned", "keyPath": key, "signedIdentity": {"type": "matchRepository"}});
        for (key, value) in more.as_object().unwrap() {
            rule[key] = value.clone();
        }
        rule
    }

    #[test]
    fn whatever_was_stricter_is_named() {
        let app = signed("/a.pub", json!({}));
        let log = json!({"rekorPublicKeyPath": "/log.pub"});
        let gpg = json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/gpg"});
        let identity = |identity: Value| json!([signed("/a.pub", json!({"signedIdentity": identity}))]);
        let without_identity = json!([{"type": "sigstoreSigned", "keyPath": "/a.pub"}]);
        let certificate =
            json!([{"type": "sigstoreSigned", "fulcio": {}, "signedIdentity": {"type": "matchRepository"}}]);
        for (before, after, words) in [
            (json!([{"type": "reject"}]), &app, "refuses everything"),
            (json!([gpg.clone()]), &app, "a GPG signature"),
            (json!([{"type": "signedBaseLayer"}]), &app, "a signed base image"),
            (json!([{"type": "future"}]), &app, "the type \"future\""),
            (json!([app.clone(), gpg]), &app, "a GPG signature"),
            (json!([app.clone(), signed("/b.pub", json!({}))]), &app, "a sigstore signature by /b.pub"),
            (json!([signed("/a.pub", log.clone())]), &app, "a log's record"),
            (json!([signed("/b.pub", json!({"rekorPublicKeyDatas": ["x"]}))]), &app, "a log's record"),
            (without_identity, &app, "name the tag, too (`matchRepoDigestOrExact`)"),
            (identity(json!({"type": "matchExact"})), &app, "name the tag, too (`matchExact`)"),
            (identity(json!({"type": "exactReference", "dockerReference": "x/y:1"})), &app, "`exactReference`"),
            (identity(json!({"type": "exactRepository", "dockerRepository": "x/y"})), &app, "`exactRepository`"),
            (identity(json!({"type": "remapIdentity", "prefix": "x", "signedPrefix": "y"})), &app, "`remapIdentity`"),
            (certificate, &signed("/a.pub", log), "by a certificate"),
        ] {
            let lost = lost(&before, &json!([after]), SCOPE);
            assert!(lost.len() == 1 && lost[0].contains(words), "{before}: {lost:?}");
        }
    }

    #[test]
    fn what_was_as_strict_or_less_is_not() {
        let log = json!({"rekorPublicKeyPath": "/log.pub"});
        let own = json!({"signedIdentity": {"type": "exactRepository", "dockerRepository": SCOPE}});
        for before in [
            json!([{"type": "insecureAcceptAnything"}]),
            json!([{"type": "insecureAcceptAnything"}, signed("/a.pub", log.clone())]),
            json!([signed("/a.pub", log.clone())]),
            json!([signed("/a.pub", json!({}))]),
            // A rotation, of the key or of the log.
            json!([signed("/b.pub", log.clone())]),
            json!([{"type": "sigstoreSigned", "keyPaths": ["/a.pub", "/b.pub"], "signedIdentity": {"type": "matchRepository"}}]),
            json!([signed("/a.pub", json!({"rekorPublicKeyData": "x"}))]),
            json!([signed("/a.pub", own)]),
        ] {
            assert_eq!(lost(&before, &json!([signed("/a.pub", log.clone())]), SCOPE), [""; 0], "{before}");
        }
    }
}
