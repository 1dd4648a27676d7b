//! From text to `Inputs`: each value in its grammar, then all of them against each other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tagship_core::reference::{Digest, ReferenceError, Repository};
use tagship_core::registry::Target;
use tagship_core::secret::Secret;
use tagship_core::signature::annotations::MEANINGFUL;
use tagship_core::signature::{Format, Formats};

use super::credentials::{access, key, password};
use super::files::pem;
use super::secrets::is_in;
use super::table::ways;
use super::{
    Build, Check, CheckKey, Form, Handoff, InputError, Inputs, Key, Origin, Raw, Step, TransparencyLog, lines,
};

/// The longest timeout that is taken: no job lives longer, and clocks can be added to it without running over.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

impl Inputs {
    /// Makes sense of what was given. Files that inputs name are read here, once.
    ///
    /// # Errors
    /// The first input that is missing, malformed, unreadable or in contradiction to another, by its name.
    pub fn parse(mut raw: Raw, steps: Option<Step>, origin: Origin) -> Result<Inputs, InputError> {
        let rollback = yes_or_no("rollback", raw.get("rollback"))?;
        let steps = match steps {
            Some(step) => vec![step],
            // What is gone back to is there, and signed.
            None if rollback && raw.get("steps").is_none() => vec![Step::Deploy, Step::Promote],
            None => parse_steps(raw.get("steps"))?,
        };
        let image = image(&raw)?;
        let tag = match raw.get("tag").or(origin.git_tag.as_deref()) {
            Some(text) => typed("tag", text)?,
            None => {
                let hint = "run on the push of a git tag, or give the version to release (as a flag: --tag)".to_owned();
                return Err(InputError::Missing { name: "tag", hint });
            }
        };
        let moving_tag = match raw.get("moving-tag") {
            None | Some("") => None,
            Some(text) => Some(typed("moving-tag", text)?),
        };
        let inputs = Inputs {
            digest: raw.get("digest").map(|text| typed::<Digest>("digest", text)).transpose()?,
            force: yes_or_no("force", raw.get("force"))?,
            rollback,
            build: build(&raw)?,
            access: access(&mut raw)?,
            key: key(&mut raw)?,
            public_key: pem("public-key", raw.get("public-key"))?,
            annotations: annotations(&raw)?,
            formats: formats(raw.get("signature-formats"))?,
            log: transparency_log(&raw)?,
            handoff: handoff(&raw)?,
            steps,
            image,
            tag,
            moving_tag,
            origin,
        };
        inputs.check()?;
        inputs.publishes_no_secret()?;
        Ok(inputs)
    }

    /// Names, annotations and labels are there for everybody who may read the image; an annotation is in the log as well.
    fn publishes_no_secret(&self) -> Result<(), InputError> {
        let login = self.access.login.iter().map(|(_, secret)| ("registry-token", secret));
        let key = self.key.iter().flat_map(|key| [("key", &key.pem), ("key-password", &key.password)]);
        let secrets: Vec<_> = login.chain(key).collect();
        let image = self.image.to_string();
        let names = [("image", image.as_str()), ("tag", self.tag.as_str())];
        let moving = self.moving_tag.iter().map(|tag| ("moving-tag", tag.as_str()));
        let pairs = [("annotations", &self.annotations), ("labels", &self.build.labels)];
        let pairs = pairs.into_iter().flat_map(|(input, pairs)| {
            pairs.iter().flat_map(move |(name, value)| [(input, name.as_str()), (input, value.as_str())])
        });
        for (name, text) in names.into_iter().chain(moving).chain(pairs) {
            if let Some((secret, _)) = secrets.iter().find(|(_, secret)| is_in(secret, text)) {
                return Err(InputError::Published { name, secret });
            }
        }
        Ok(())
    }

    /// What each value alone cannot show.
    fn check(&self) -> Result<(), InputError> {
        let conflict = |inputs, why| Err(InputError::Conflict { inputs, why });
        let wants = |step| self.wants(step);
        if self.moving_tag.as_ref() == Some(&self.tag) {
            return conflict("tag and moving-tag", "the version tag never moves");
        }
        if self.digest.is_some() && (wants(Step::Build) || wants(Step::Push)) {
            return conflict("digest and steps", "build and push make a digest of their own");
        }
        if wants(Step::Build) && !wants(Step::Push) && self.steps.len() > 1 {
            return conflict("steps", "what is built must be pushed before it can be signed, deployed or promoted");
        }
        if wants(Step::Push) && !wants(Step::Sign) && (wants(Step::Deploy) || wants(Step::Promote)) {
            return conflict("steps", "what is pushed must be signed before it can be deployed or promoted");
        }
        if self.force && !wants(Step::Build) && !wants(Step::Push) {
            return conflict("force and steps", "only build and push can be forced");
        }
        if self.rollback {
            self.check_rollback()?;
        }
        if wants(Step::Sign) && self.key.is_none() {
            let hint = format!("give key-file, or {}, or leave sign out of steps", ways("key"));
            return Err(InputError::Missing { name: "key", hint });
        }
        if (wants(Step::Deploy) || wants(Step::Promote)) && self.key.is_none() && self.public_key.is_none() {
            let hint = "deploy and promote verify the signature: give public-key, or the private key".to_owned();
            return Err(InputError::Missing { name: "public-key", hint });
        }
        if self.steps == [Step::Promote] && self.moving_tag.is_none() {
            return conflict("steps and moving-tag", "there is nothing to promote to");
        }
        Ok(())
    }

    /// A rollback asks for what is there, in a request that the key signs.
    fn check_rollback(&self) -> Result<(), InputError> {
        let conflict = |inputs, why| Err(InputError::Conflict { inputs, why });
        if !self.wants(Step::Deploy) || [Step::Build, Step::Push, Step::Sign].iter().any(|step| self.wants(*step)) {
            return conflict(
                "rollback and steps",
                "a rollback deploys what is signed already: deploy and promote alone",
            );
        }
        if self.handoff.form == Form::Plain {
            return conflict("rollback and handoff-form", "the plain form cannot say that an older version is meant");
        }
        if self.key.is_none() {
            let hint = "the host goes back only for a request that the release key has signed: give key-file, or";
            return Err(InputError::Missing { name: "key", hint: format!("{hint} {}", ways("key")) });
        }
        Ok(())
    }
}

impl Check {
    /// Makes sense of what `tagship verify` was given.
    ///
    /// # Errors
    /// As for [`Inputs::parse`].
    pub fn parse(mut raw: Raw) -> Result<Check, InputError> {
        let image = image(&raw)?;
        let target = match (raw.get("tag"), raw.get("digest")) {
            (Some(text), None) => Target::Tag(typed("tag", text)?),
            (None, Some(text)) => Target::Digest(typed("digest", text)?),
            (Some(_), Some(_)) => {
                return Err(InputError::Conflict { inputs: "tag and digest", why: "give one of them" });
            }
            (None, None) => {
                return Err(InputError::Missing { name: "tag", hint: "give --tag or --digest".to_owned() });
            }
        };
        let key = match (pem("public-key", raw.get("public-key"))?, raw.take_secret("key")) {
            (Some(public), _) => CheckKey::Public(public),
            (None, Some(pem)) => {
                CheckKey::Private(Key { pem, password: password(&mut raw)?.unwrap_or_else(|| Secret::new(Vec::new())) })
            }
            (None, None) => {
                let hint = "give the file of the key that must have signed as --public-key".to_owned();
                return Err(InputError::Missing { name: "public-key", hint });
            }
        };
        // The environment of a shell that releases has a token, which reading may not need.
        if raw.get("registry-user").is_none() {
            drop(raw.take_secret("registry-token"));
        }
        Ok(Check { image, target, access: access(&mut raw)?, key, log: transparency_log(&raw)? })
    }
}

fn image(raw: &Raw) -> Result<Repository, InputError> {
    let hint =
        "give the repository with its registry, such as git.example.org/chris/app (as a flag: --image)".to_owned();
    typed("image", raw.get("image").ok_or(InputError::Missing { name: "image", hint })?)
}

fn parse_steps(text: Option<&str>) -> Result<Vec<Step>, InputError> {
    let Some(text) = text else { return Ok(Step::ALL.to_vec()) };
    let mut steps = Vec::new();
    for word in text.split([',', '\n', ' ']).map(str::trim).filter(|word| !word.is_empty()) {
        let Some(step) = Step::ALL.into_iter().find(|step| step.name() == word) else {
            return Err(InputError::invalid("steps", text, "the steps are build, push, sign, deploy and promote"));
        };
        if steps.contains(&step) {
            return Err(InputError::invalid("steps", text, format!("{step} is there twice")));
        }
        steps.push(step);
    }
    if steps.is_empty() {
        return Err(InputError::invalid("steps", text, "it names no step"));
    }
    steps.sort_unstable();
    Ok(steps)
}

fn build(raw: &Raw) -> Result<Build, InputError> {
    let platform = match raw.get("platforms").map(str::trim) {
        None | Some("") => None,
        Some(text) if text.contains([',', '\n', ' ']) => {
            return Err(InputError::invalid("platforms", text, "this version builds for a single platform"));
        }
        Some(text) if !text.contains('/') => {
            return Err(InputError::invalid("platforms", text, "write it as os/architecture, such as linux/amd64"));
        }
        Some(text) => Some(text.to_owned()),
    };
    Ok(Build {
        context: raw.get("context").unwrap_or(".").into(),
        file: raw.get("file").map(PathBuf::from),
        target: raw.get("target").map(str::to_owned),
        args: lines::parse("build-args", raw.get("build-args").unwrap_or_default())?,
        labels: lines::parse("labels", raw.get("labels").unwrap_or_default())?,
        platform,
    })
}

fn annotations(raw: &Raw) -> Result<BTreeMap<String, String>, InputError> {
    let annotations = lines::parse("annotations", raw.get("annotations").unwrap_or_default())?;
    // Those come by themselves; an input that gave one of them would contradict the facts.
    match MEANINGFUL.iter().find(|name| annotations.contains_key(**name)) {
        Some(own) => Err(InputError::invalid("annotations", own, "this annotation comes by itself")),
        None => Ok(annotations),
    }
}

fn transparency_log(raw: &Raw) -> Result<Option<TransparencyLog>, InputError> {
    const NAME: &str = "rekor-url";
    if !yes_or_no("tlog", raw.get("tlog"))? {
        let of_the_log = [(NAME, "tlog and rekor-url"), ("rekor-public-key", "tlog and rekor-public-key")];
        return match of_the_log.into_iter().find(|(name, _)| !raw.is_default(name)) {
            Some((_, inputs)) => Err(InputError::Conflict { inputs, why: "with tlog false no log is asked" }),
            None => Ok(None),
        };
    }
    let text = raw.get(NAME).unwrap_or_default();
    // What stands before an @ may be a password.
    let wrong = |why: &dyn ToString| match text.contains('@') {
        true => InputError::unshown(NAME, why.to_string()),
        false => InputError::invalid(NAME, text, why.to_string()),
    };
    let url = reqwest::Url::parse(text).map_err(|error| wrong(&error))?;
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
        return Err(wrong(&"it is no http or https address"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(&"it has a user or a password in it"));
    }
    Ok(Some(TransparencyLog { url, public_key: pem("rekor-public-key", raw.get("rekor-public-key"))? }))
}

fn handoff(raw: &Raw) -> Result<Handoff, InputError> {
    let form = match raw.get("handoff-form") {
        None | Some("full") => Form::Full,
        Some("plain") => Form::Plain,
        Some(other) => return Err(InputError::invalid("handoff-form", other, "it is full or plain")),
    };
    Ok(Handoff {
        directory: raw.get("handoff").unwrap_or("/data").into(),
        form,
        timeout: raw.get("timeout").map(duration).transpose()?,
    })
}

/// Whole seconds, or a number with units as in `90s`, `10m` or `1h 30m`.
fn duration(text: &str) -> Result<Duration, InputError> {
    let wrong = |why: &dyn ToString| InputError::invalid("timeout", text, why.to_string());
    let whole = text.trim();
    let duration = match whole.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => {
            let parsed: jiff::SignedDuration = whole.parse().map_err(|_| wrong(&"write it as 90s, 10m or 1h"))?;
            parsed.try_into().map_err(|_| wrong(&"it is negative"))?
        }
    };
    match duration {
        Duration::ZERO => Err(wrong(&"it is no time to wait: write one, as 90s, 10m or 1h")),
        _ if duration > LONGEST_TIMEOUT => Err(wrong(&"it is longer than a week")),
        _ => Ok(duration),
    }
}

fn formats(text: Option<&str>) -> Result<Formats, InputError> {
    const NAME: &str = "signature-formats";
    let Some(text) = text else { return Ok(Formats::BOTH) };
    let words = text.split([',', '\n', ' ']).map(str::trim).filter(|word| !word.is_empty());
    let named = words.map(|word| Format::ALL.into_iter().find(|format| format.name() == word));
    let listed: Option<Vec<Format>> = named.collect();
    listed
        .and_then(|listed| Formats::among(&listed))
        .ok_or_else(|| InputError::invalid(NAME, text, "the formats are sig and bundle"))
}

fn yes_or_no(name: &'static str, text: Option<&str>) -> Result<bool, InputError> {
    match text {
        Some("true") => Ok(true),
        None | Some("false") => Ok(false),
        Some(other) => Err(InputError::invalid(name, other, "it is true or false")),
    }
}

fn typed<T: FromStr<Err = ReferenceError>>(name: &'static str, text: &str) -> Result<T, InputError> {
    text.parse().map_err(|error: ReferenceError| InputError::invalid(name, text, error.why()))
}

#[cfg(test)]
mod tests;
