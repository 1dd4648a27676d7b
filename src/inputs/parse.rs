//! From text to `Inputs`: each value in its grammar, then all of them against each other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tagship_core::reference::{Digest, ReferenceError, Repository};
use tagship_core::registry::Target;
use tagship_core::secret::Secret;
use tagship_core::signature::annotations::MEANINGFUL;
use tagship_core::signature::{Format, Formats};

use super::secrets::is_in;
use super::{
    Access, Build, Check, CheckKey, Form, Handoff, InputError, Inputs, Key, Origin, Pem, Raw, Step, TransparencyLog,
    lines,
};

/// The largest file that an input may name: keys, passwords and certificates are far smaller.
const LARGEST_FILE: u64 = 1024 * 1024;

/// The most that is read from a pipe, which does not tell beforehand how much there is.
const LARGEST_PIPE: u64 = 64 * 1024;

/// The longest timeout that is taken: no job lives longer, and clocks can be added to it without running over.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

impl Inputs {
    /// Makes sense of what was given. Files that inputs name are read here, once.
    ///
    /// # Errors
    /// The first input that is missing, malformed, unreadable or in contradiction to another, by its name.
    pub fn parse(mut raw: Raw, steps: Option<Step>, origin: Origin) -> Result<Inputs, InputError> {
        let steps = match steps {
            Some(step) => vec![step],
            None => parse_steps(raw.get("steps"))?,
        };
        let image = image(&raw)?;
        let tag = match raw.get("tag").or(origin.git_tag.as_deref()) {
            Some(text) => typed("tag", text)?,
            None => {
                let hint = "run on the push of a git tag, or give the version to release".to_owned();
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
        if wants(Step::Sign) && self.key.is_none() {
            let hint = "give key or key-file, or leave sign out of steps".to_owned();
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
                return Err(InputError::Missing { name: "tag", hint: "give the tag or the digest".to_owned() });
            }
        };
        let key = match (pem("public-key", raw.get("public-key"))?, raw.take_secret("key")) {
            (Some(public), _) => CheckKey::Public(public),
            (None, Some(pem)) => {
                CheckKey::Private(Key { pem, password: password(&mut raw)?.unwrap_or_else(|| Secret::new(Vec::new())) })
            }
            (None, None) => {
                let hint = "give the file of the key that must have signed".to_owned();
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

/// The password that `tagship keygen` encrypts the new key with.
///
/// # Errors
/// When it is missing, or its file cannot be read.
pub fn new_password(mut raw: Raw) -> Result<Secret, InputError> {
    let hint = "set TAGSHIP_KEY_PASSWORD, or give --key-password-file".to_owned();
    password(&mut raw)?
        .filter(|password| !password.is_empty())
        .ok_or(InputError::Missing { name: "key-password", hint })
}

fn image(raw: &Raw) -> Result<Repository, InputError> {
    let hint = "give the repository with its registry, such as git.example.org/chris/app".to_owned();
    typed("image", raw.get("image").ok_or(InputError::Missing { name: "image", hint })?)
}

fn password(raw: &mut Raw) -> Result<Option<Secret>, InputError> {
    secret(raw, "key-password", "key-password-file", "key-password and key-password-file")
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

fn access(raw: &mut Raw) -> Result<Access, InputError> {
    let secret = secret(raw, "registry-token", "registry-token-file", "registry-token and registry-token-file")?;
    let login = match (raw.get("registry-user"), secret) {
        (Some(user), Some(secret)) => Some((user.to_owned(), secret)),
        (None, None) => None,
        (Some(_), None) => {
            let hint = "in a workflow, check that the repository has the secret that the input names".to_owned();
            return Err(InputError::Missing { name: "registry-token", hint });
        }
        (None, Some(_)) => {
            let hint = "give the name of the user whom the token belongs to".to_owned();
            return Err(InputError::Missing { name: "registry-user", hint });
        }
    };
    let ca = pem("ca", raw.get("ca"))?.map(|pem| pem.bytes);
    Ok(Access { login, auth_file: raw.get("registry-auth-file").map(PathBuf::from), ca })
}

fn key(raw: &mut Raw) -> Result<Option<Key>, InputError> {
    let pem = secret(raw, "key", "key-file", "key and key-file")?;
    match (pem, password(raw)?) {
        (Some(pem), password) => Ok(Some(Key { pem, password: password.unwrap_or_else(|| Secret::new(Vec::new())) })),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let hint = "in a workflow, check that the repository has the secret that the input names".to_owned();
            Err(InputError::Missing { name: "key", hint })
        }
    }
}

/// A secret from its own input or from the file that another names. One line end after it is no part of it.
fn secret(
    raw: &mut Raw,
    name: &'static str,
    file: &'static str,
    both: &'static str,
) -> Result<Option<Secret>, InputError> {
    let value = raw.take_secret(name);
    // A message shows the paths that cannot be read, and no runner masks a secret that is written on one line instead
    // of its own many.
    if raw.get(file).is_some_and(|path| path.contains('\n') || path.starts_with("-----BEGIN")) {
        return Err(InputError::NotAPath { name: file, meant: name });
    }
    let path = raw.get(file).map(PathBuf::from);
    match (value, path) {
        (Some(_), Some(_)) => Err(InputError::Conflict { inputs: both, why: "give one of them" }),
        (None, Some(path)) => match read(file, &path) {
            Ok(bytes) => Ok(Some(Secret::new(without_line_end(bytes)))),
            // A password or a token on one line, perhaps: in base64 it may even look like a path.
            Err(InputError::Unreadable { source, .. }) if is_no_file(&source) => {
                Err(InputError::NotAPath { name: file, meant: name })
            }
            Err(error) => Err(error),
        },
        (value, None) => Ok(value),
    }
}

fn is_no_file(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename)
}

fn without_line_end(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    bytes
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
    let log = TransparencyLog { url, public_key: pem("rekor-public-key", raw.get("rekor-public-key"))? };
    Ok(yes_or_no("tlog", raw.get("tlog"))?.then_some(log))
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
        Duration::ZERO => Err(wrong(&"it is nothing")),
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

/// PEM text as it is, or the file that a path names. What holds a block is text, whatever stands before it.
fn pem(name: &'static str, text: Option<&str>) -> Result<Option<Pem>, InputError> {
    match text.map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) if text.contains("-----BEGIN ") => {
            Ok(Some(Pem { name: name.to_owned(), bytes: format!("{text}\n").into_bytes() }))
        }
        Some(path) => Ok(Some(Pem { name: path.to_owned(), bytes: read(name, Path::new(path))? })),
    }
}

/// Reads a small file whole. The buffer never grows, so that no copy of a secret stays behind in freed memory.
fn read(name: &'static str, path: &Path) -> Result<Vec<u8>, InputError> {
    let unreadable = |source| InputError::Unreadable { name, path: path.to_owned(), source };
    let wrong = |why| Err(unreadable(std::io::Error::other(why)));
    // Opening a FIFO that nobody writes to would wait for a writer, without a word and for ever.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| unreadable(errno.into()))?;
    let file = File::from(file);
    let meta = file.metadata().map_err(unreadable)?;
    if meta.file_type().is_fifo() {
        let bytes = read_pipe(file).map_err(unreadable)?;
        return match bytes.len() as u64 {
            0 => wrong("it is a pipe that nobody writes to"),
            length if length > LARGEST_PIPE => wrong("the pipe holds more than 64 kibibytes"),
            _ => Ok(bytes),
        };
    }
    if !meta.is_file() {
        return wrong("it is neither a regular file nor a pipe");
    }
    if meta.len() > LARGEST_FILE {
        return wrong("the file is larger than a mebibyte");
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default() + 1);
    file.take(LARGEST_FILE).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// Reads a pipe, such as a shell's `<(…)`, to its end. Waits for its writer, which may ask a person for a password, but
/// only if there is one.
fn read_pipe(file: File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(LARGEST_PIPE as usize + 2);
    let mut pipe = file.take(LARGEST_PIPE + 1);
    match pipe.read_to_end(&mut bytes) {
        // Nothing yet, and somebody who may write still.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            rustix::fs::fcntl_setfl(pipe.get_ref(), OFlags::empty())?;
            pipe.read_to_end(&mut bytes)?;
        }
        read => {
            read?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
