//! Undoing what a scenario does to a host, also when it fails.

use crate::{Host, host::IMAGE};

/// Something that was changed on a host. Dropping it puts that right.
#[must_use]
pub struct Mend<'a> {
    host: &'a Host,
    script: String,
    root: bool,
}

impl Host {
    /// Changes something as the user `app`; `back` is what undoes it, however much of the change was made.
    pub fn changed(&self, change: &str, back: &str) -> Mend<'_> {
        let mend = Mend { host: self, script: back.to_owned(), root: false };
        self.app(change).ok();
        mend
    }

    /// The same as root.
    pub fn changed_by_root(&self, change: &str, back: &str) -> Mend<'_> {
        let mend = Mend { host: self, script: back.to_owned(), root: true };
        self.root(change).ok();
        mend
    }

    /// Stops the registry. Its services stop after their target, which alone nobody would wait for.
    pub fn without_registry(&self) -> Mend<'_> {
        const SERVICES: &str = "registry.target docker-registry.service nginx.service";
        self.changed_by_root(&format!("systemctl stop {SERVICES}"), &format!("systemctl start {SERVICES}"))
    }

    /// A file of the administrator's that says this of the image.
    pub fn administrator(&self, says: &str) -> Mend<'_> {
        self.changed_by_root(
            &format!("mkdir -p /etc/tagship; printf 'image: {IMAGE}\\n{says}\\n' >/etc/tagship/demo.yaml"),
            "rm -r /etc/tagship",
        )
    }

    /// Changes the companion's configuration, which it reads anew for each request. Of two such changes the later one
    /// must be dropped first.
    pub fn configured(&self, edit: &str) -> Mend<'_> {
        let saved = format!("~/demo.yaml.{}", ulid::Ulid::generate());
        self.changed(
            &format!("cp ~/.config/tagship/demo.yaml {saved}; cd ~/.config/tagship; {edit}"),
            &format!("mv {saved} ~/.config/tagship/demo.yaml"),
        )
    }
}

impl Drop for Mend<'_> {
    fn drop(&mut self) {
        let ran = if self.root { self.host.root(&self.script) } else { self.host.app(&self.script) };
        assert!(ran.code == 0 || std::thread::panicking(), "not mended: {}\n{}", self.script, ran.text);
    }
}
