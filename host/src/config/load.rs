//! From files to [`Settings`]: reading, merging with the administrator's word, and every check that spans keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use tagship_core::{
    reference::Tag,
    signature::{Formats, KeyError, PublicKey},
};

use super::{
    App, AppUnits, ConfigError, Health, OwnershipError, RootFile, ServiceName, Settings, VerifySettings,
    admin::{self, Binding},
    file::{self, AppFile, Belongings, HandoffOnly, NamesOnly, VerifyBlock},
    read::{read, utf8, yaml_files},
};

/// The shortest and the longest wait for health that make sense: below, no container starts; above, no budget holds it.
const HEALTH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60 * 60));
/// Longest settle window: beyond it a deploy is a watch.
const LONGEST_SETTLE: Duration = Duration::from_secs(10 * 60);
/// The longest deploy.
const LONGEST_BUDGET: Duration = Duration::from_secs(24 * 60 * 60);

/// How the user's files end: one name an app.
const USERS: &[&str] = &["yaml"];

/// Where configurations are.
#[derive(Debug, Clone)]
pub struct Places {
    /// `~/.config/tagship`, or below `$XDG_CONFIG_HOME`.
    pub user: PathBuf,
    /// `/etc/tagship`.
    pub admin: PathBuf,
    /// What `~` means.
    pub home: PathBuf,
    /// How a file is read that has to be root's.
    trusted: fn(&Path) -> Result<RootFile, OwnershipError>,
}

impl Places {
    /// Those of the user who runs this program.
    pub fn of_user() -> Result<Self, ConfigError> {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = absolute("HOME").ok_or(ConfigError::NoHome)?;
        let user = absolute("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")).join("tagship");
        Ok(Self { user, admin: PathBuf::from("/etc/tagship"), home, trusted: RootFile::read })
    }

    /// The app's validated configuration.
    pub fn load(&self, app: &App) -> Result<Settings, ConfigError> {
        let (path, bytes) = self.read(app)?;
        let raw: AppFile = file::parse(&path, utf8(&path, &bytes)?)?;
        let settings = self.settle(app, &path, raw)?;
        self.refuse_shared(&path, &settings)?;
        Ok(settings)
    }

    /// The app's units alone, also from a configuration that is otherwise wrong: what they may run does not depend on it.
    pub fn units(&self, app: &App) -> Result<AppUnits, ConfigError> {
        let (path, bytes) = self.read(app)?;
        let NamesOnly { image, moving_tag, local_image, before, services } = file::parse(&path, utf8(&path, &bytes)?)?;
        let image = image.ok_or_else(|| ConfigError::MissingKey { path: path.clone(), key: "image" })?;
        let services = services.into_iter().flat_map(|group| group.0).collect();
        Ok(AppUnits { image, moving_tag, local_image, before, services })
    }

    /// The hand-off directory alone, also from a configuration that is otherwise wrong, so that its error can be
    /// answered there.
    pub fn handoff(&self, app: &App) -> PathBuf {
        let path = self.path(app);
        read(&path)
            .ok()
            .and_then(|bytes| file::parse::<HandoffOnly>(&path, utf8(&path, &bytes).ok()?).ok())
            .and_then(|only| self.absolute(&path, "handoff", &only.handoff?).ok())
            .unwrap_or_else(|| self.default_handoff(app.as_str()))
    }

    /// Every app that has a file here, by name.
    pub fn apps(&self) -> Vec<String> {
        let files = yaml_files(&self.user, USERS).unwrap_or_default();
        files.iter().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect()
    }

    fn read(&self, app: &App) -> Result<(PathBuf, Vec<u8>), ConfigError> {
        let path = self.path(app);
        match read(&path) {
            Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(ConfigError::Missing { app: app.clone(), path, others: self.apps() })
            }
            bytes => Ok((path, bytes?)),
        }
    }

    fn path(&self, app: &App) -> PathBuf {
        self.user.join(format!("{app}.yaml"))
    }

    fn default_handoff(&self, app: &str) -> PathBuf {
        self.home.join("tagship").join(app)
    }

    fn absolute(&self, file: &Path, key: &'static str, path: &Path) -> Result<PathBuf, ConfigError> {
        let full = match path.strip_prefix("~") {
            Ok(rest) => self.home.join(rest),
            Err(_) => path.to_owned(),
        };
        if !full.is_absolute() || full.components().any(|part| part == Component::ParentDir) {
            let why = format!("{} is not a full path; begin it with / or ~/, without ..", path.display());
            return Err(ConfigError::value(file, key, why));
        }
        Ok(full)
    }

    fn settle(&self, app: &App, path: &Path, raw: AppFile) -> Result<Settings, ConfigError> {
        let missing = |key| ConfigError::MissingKey { path: path.to_owned(), key };
        let image = raw.image.ok_or_else(|| missing("image"))?;
        let services: Vec<Vec<ServiceName>> = raw.services.into_iter().map(|group| group.0).collect();
        if services.is_empty() {
            return Err(missing("services"));
        }
        refuse_twice(path, services.iter().flatten(), &raw.before)?;
        if raw.local_image.is_none() && raw.moving_tag.is_none() {
            let why = "without a moving tag the services' units need `local-image` for a name to run";
            return Err(ConfigError::value(path, "moving-tag", why));
        }
        if raw.keep_images < 2 {
            let why = "at least 2: the running version and the one to go back to";
            return Err(ConfigError::value(path, "keep-images", why));
        }
        let health = Health { timeout: raw.health.timeout, settle: raw.health.settle, missing: raw.health.missing };
        within(path, "health.timeout", health.timeout, HEALTH)?;
        within(path, "health.settle", health.settle, (Duration::ZERO, LONGEST_SETTLE))?;
        within(path, "budget", raw.budget, (health.timeout, LONGEST_BUDGET))?;

        let bound =
            admin::binding(&self.admin, &image, &services.iter().flatten().chain(&raw.before).collect::<Vec<_>>())?;
        if let Some(Binding { image: Some(pinned), path: admin, .. }) = &bound
            && *pinned != image
        {
            return Err(ConfigError::Pinned {
                path: path.to_owned(),
                image: image.to_string(),
                admin: admin.clone(),
                bound: pinned.to_string(),
            });
        }
        let above = match &bound {
            None => AdminsLimits::default(),
            Some(Binding { path: admin, floor, revoked_keys, .. }) => {
                let revoked = self.keys(admin, "revoked-keys", revoked_keys, PublicKey::from_pem)?;
                let revoked_keys = revoked.into_iter().map(|(_, key)| key).collect();
                AdminsLimits { floor: floor.clone(), revoked_keys }
            }
        };
        let (from, verify) = match bound {
            Some(Binding { path: admin, verify: Some(verify), .. }) => (admin, Some(verify)),
            _ => (path.to_owned(), raw.verify),
        };
        let verify = verify.ok_or_else(|| missing("verify.keys"))?;
        let handoff = match raw.handoff {
            Some(given) => self.absolute(path, "handoff", &given)?,
            None => self.default_handoff(app.as_str()),
        };
        let file::Rollback::Automatic = raw.rollback;
        Ok(Settings {
            app: app.clone(),
            image,
            moving_tag: raw.moving_tag,
            local_image: raw.local_image,
            handoff,
            requesters: raw.requesters,
            verify: self.verification(&from, verify, above)?,
            before: raw.before,
            services,
            health,
            budget: raw.budget,
            keep_images: raw.keep_images,
            reserve_space: raw.reserve_space,
        })
    }

    /// Refuses what another app's file names as well: two apps would answer each other's requests, or restart each
    /// other's services. A file that cannot be read is that app's own trouble.
    fn refuse_shared(&self, path: &Path, settings: &Settings) -> Result<(), ConfigError> {
        let mine: BTreeSet<&ServiceName> = settings.all_services().chain(&settings.before).collect();
        for other in yaml_files(&self.user, USERS)?.into_iter().filter(|other| other != path) {
            let Some(theirs) =
                read(&other).ok().and_then(|bytes| file::parse::<Belongings>(&other, utf8(&other, &bytes).ok()?).ok())
            else {
                continue;
            };
            let name = other.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let handoff = match theirs.handoff {
                Some(given) => self.absolute(&other, "handoff", &given).ok(),
                None => Some(self.default_handoff(name)),
            };
            let shared = |what, name| ConfigError::Shared { path: path.to_owned(), other: other.clone(), what, name };
            if handoff.is_some_and(|theirs| same_directory(&theirs, &settings.handoff)) {
                return Err(shared("hand-off directory", settings.handoff.display().to_string()));
            }
            let services = theirs.services.iter().flat_map(|group| &group.0).chain(&theirs.before);
            if let Some(service) = services.into_iter().find(|service| mine.contains(service)) {
                return Err(shared("service", service.to_string()));
            }
        }
        Ok(())
    }

    fn verification(
        &self,
        path: &Path,
        block: VerifyBlock,
        AdminsLimits { floor, revoked_keys }: AdminsLimits,
    ) -> Result<VerifySettings, ConfigError> {
        if block.keys.is_empty() {
            return Err(ConfigError::MissingKey { path: path.to_owned(), key: "verify.keys" });
        }
        let formats = Formats::among(&block.formats)
            .ok_or_else(|| ConfigError::value(path, "verify.formats", "an empty list accepts nothing"))?;
        let mut keys = self.keys(path, "verify.keys", &block.keys, PublicKey::from_pem)?;
        keys.retain(|(_, key)| !revoked_keys.contains(key));
        if keys.is_empty() {
            let why = "the administrator's list of revoked keys (`revoked-keys` in /etc/tagship) has all of them; name a \
                       new key, as examples/rotation says";
            return Err(ConfigError::value(path, "verify.keys", why));
        }
        let rekor_keys = self.keys(path, "verify.rekor-keys", &block.rekor_keys, PublicKey::of_log)?;
        Ok(VerifySettings {
            keys: files(keys),
            formats,
            rekor: block.rekor,
            rekor_keys: files(rekor_keys),
            annotations: block.annotations,
            requests: block.requests,
            downgrade: block.downgrade,
            floor,
            revoked_keys,
        })
    }

    /// Reads public keys. One that cannot be used is found here, and not by the next release.
    fn keys(
        &self,
        path: &Path,
        key: &'static str,
        files: &[PathBuf],
        understood: fn(String, &[u8]) -> Result<PublicKey, KeyError>,
    ) -> Result<Vec<(RootFile, PublicKey)>, ConfigError> {
        let read = |file: &PathBuf| {
            let untrusted = |source| ConfigError::Untrusted { path: path.to_owned(), key, source };
            let unusable = |source| ConfigError::Unusable { path: path.to_owned(), key, source };
            let read = (self.trusted)(file).map_err(untrusted)?;
            let key = understood(read.path().display().to_string(), read.bytes()).map_err(unusable)?;
            Ok((read, key))
        };
        files.iter().map(read).collect()
    }
}

/// What the administrator's file says beside `verify`.
#[derive(Default)]
struct AdminsLimits {
    floor: Option<Tag>,
    revoked_keys: Vec<PublicKey>,
}

fn files(keys: Vec<(RootFile, PublicKey)>) -> Vec<RootFile> {
    keys.into_iter().map(|(file, _)| file).collect()
}

fn refuse_twice<'a>(
    path: &Path,
    services: impl Iterator<Item = &'a ServiceName>,
    before: &'a [ServiceName],
) -> Result<(), ConfigError> {
    let mut seen = BTreeMap::new();
    for (key, name) in services.map(|name| ("services", name)).chain(before.iter().map(|name| ("before", name))) {
        match seen.insert(name, key) {
            Some(first) if first == key => return Err(ConfigError::value(path, key, format!("{name} is there twice"))),
            Some(first) => return Err(ConfigError::value(path, key, format!("{name} is in `{first}`, too"))),
            None => {}
        }
    }
    Ok(())
}

fn within(
    path: &Path,
    key: &'static str,
    value: Duration,
    (least, most): (Duration, Duration),
) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::value(path, key, format!("{value:?} is not between {least:?} and {most:?}")))
}

/// Whether two paths lead to one directory, by name or through links.
fn same_directory(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    a == b || real(a) == real(b)
}

#[cfg(test)]
mod tests;
