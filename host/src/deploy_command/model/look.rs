//! Looks whether what is promised holds: at any time, after a run that was not killed, and at the end.

use std::{collections::BTreeSet, fs};

use tagship_core::{
    handoff::{
        host::HostFile,
        log::LogLine,
        names::{self, Name, RequestId},
        status::{Outcome, Status},
    },
    reference::Tag,
};

use super::{
    Form, Plain, VERSIONS,
    asked::{Asked, Past},
    play::{Model, incumbent, version_name},
};
use crate::{
    history::History,
    inbox::Ledger as _,
    journal::Journal,
    requests::Requests,
    state_dir::StateDir,
    testing::{digest, image_of, tag},
};

impl Model {
    /// Looks at everything, as a reader may at any time.
    pub(super) fn look(&mut self) {
        for name in self.dir.names().unwrap() {
            let kind = Name::of(name.as_encoded_bytes());
            let name = name.to_str().unwrap();
            let path = self.path(name);
            // What somebody planted is not the companion's.
            if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
                continue;
            }
            match kind {
                Name::Answer(id) => self.look_at_answer(id.unwrap(), fs::read_to_string(path).unwrap()),
                Name::Log(id) => {
                    assert!(self.asked.iter().any(|asked| Some(asked.id) == id), "a log for nobody: {name}");
                    let log = fs::read(path).unwrap();
                    let whole = log.strip_suffix(b"\n").unwrap_or_else(|| panic!("half a line in {name}: {log:?}"));
                    assert!(whole.split(|byte| *byte == b'\n').all(|line| LogLine::parse(line).is_some()), "{name}");
                }
                Name::Status => self.look_at_plain_answer(&fs::read(path).unwrap()),
                Name::Host => drop(HostFile::parse(&fs::read(path).unwrap()).unwrap()),
                _ => {}
            }
        }
        for asked in self.asked.iter().filter(|asked| asked.answer.is_some()) {
            assert!(self.path(&asked.id.status_name()).is_file(), "the answer of {asked:?} is gone");
        }
        let state = self.world.state();
        for image in state.names.values().chain(state.runs.values().map(|(image, _)| image)) {
            let verified = (0..VERSIONS).any(|version| *image == image_of(digest(&version_name(version))));
            assert!(verified || *image == incumbent(), "{image} may not run");
        }
    }

    fn look_at_answer(&mut self, id: RequestId, text: String) {
        let at = self.asked.iter().position(|asked| asked.id == id);
        let at = at.unwrap_or_else(|| panic!("an answer for nobody: {text}"));
        if let Some(before) = &self.asked[at].answer {
            assert_eq!(*before, text, "an answer was changed");
            return;
        }
        let status = Status::parse(text.as_bytes()).unwrap();
        let moments = self.world.state().moments.clone();
        let tags = self.asked.iter().map(|asked| (asked.tag.clone(), Some(asked.id)));
        let plain = self.plain.iter().filter_map(plain_tag).map(|tag| (tag, None));
        let versions = (0..VERSIONS).map(version_name).map(|name| (tag(&name), image_of(digest(&name))));
        let past = Past {
            moments: &moments,
            troubles: self.troubles,
            went_back: self.went_back(),
            registry_failed: self.registry_failed,
            engine_failed: self.engine_failed,
            sick: &|image| self.sick.contains(image),
            tags: &tags.chain(plain).collect::<Vec<_>>(),
            versions: &versions.collect::<Vec<_>>(),
        };
        self.asked[at].judge(&status, &past);
        self.asked[at].answer = Some(text);
        self.asked[at].outcome = Some(status.outcome);
    }

    /// Whether anybody asked to go back: it may be done before it is answered.
    fn went_back(&self) -> bool {
        self.asked.iter().flat_map(|asked| &asked.files).any(|file| file.form == Form::Back)
    }

    fn look_at_plain_answer(&self, bytes: &[u8]) {
        let status = Status::parse(bytes).unwrap();
        assert_eq!(status.request, None);
        // The word for what is no tag could be one.
        let told = status.tag.clone().filter(|tag| tag.as_str() != "invalid");
        assert!(self.plain.iter().any(|plain| plain_tag(plain) == told), "{status:?} for nobody");
    }

    /// After a run that was not killed, whoever had asked before it has an answer, and so has whatever it claimed: its
    /// file is gone, so nobody starts another run for it.
    pub(super) fn look_after_run(&mut self) {
        self.look();
        assert_eq!(Requests::open(self.state()).unwrap().open_entries().unwrap(), [], "claimed, and left lying");
        for asked in &self.asked {
            let waited = asked.files.iter().any(|file| file.waits && !file.withdrawn);
            assert!(!waited || asked.answer.is_some(), "no answer for {asked:?}");
        }
    }

    /// Looks at what an undisturbed run leaves.
    pub(super) fn end(&mut self) {
        self.look();
        let state = self.state();
        for asked in &self.asked {
            assert_eq!(asked.answer.is_some(), asked.is_due(), "{asked:?}");
        }
        for name in self.dir.names().unwrap() {
            let name = name.to_str().unwrap();
            let left = matches!(
                Name::of(name.as_bytes()),
                Name::Request(_) | Name::Trigger | Name::ClaimedRequest(_) | Name::ClaimedTrigger
            );
            assert!(!left, "{name} is still there");
        }
        assert!(self.plain.is_empty() || self.path(names::STATUS).is_file(), "no plain answer");
        assert_eq!(Journal::open(state.clone()).unwrap().current(), None);
        assert_eq!(Requests::open(state.clone()).unwrap().open_entries().unwrap(), []);

        let history = History::open(&state).unwrap();
        let proven = history.running().map(|proven| proven.image.clone());
        let before = self.world.state().runs.values().any(|(image, _)| *image == incumbent());
        assert_eq!(self.world.running(), proven.or(before.then(incumbent)), "what runs is not what is known to run");
        let stands = self.world.state().names.values().cloned().collect::<BTreeSet<_>>();
        assert_eq!(stands, self.world.running().into_iter().collect(), "what would run after a restart");
        let host = HostFile::parse(&fs::read(self.path(names::HOST)).unwrap()).unwrap();
        assert_eq!(host.running.map(|running| running.digest), history.running_digest());

        self.look_at_history(&state);
        self.look_at_placed();
    }

    /// What is remembered of a request last is what was answered.
    fn look_at_history(&self, state: &StateDir) {
        let (verdicts, damaged, _) = History::verdicts(state, usize::MAX).unwrap();
        assert_eq!(damaged, 0);
        for asked in &self.asked {
            let last = verdicts.iter().rev().find(|verdict| verdict.status.request == Some(asked.id));
            if let Some(verdict) = last {
                let answer = Status::parse(asked.answer.as_ref().unwrap().as_bytes()).unwrap();
                assert_eq!((verdict.status.outcome, &verdict.status.kind), (answer.outcome, &answer.kind), "{asked:?}");
            }
        }
    }

    /// What was put in place was asked for by a request whose answer does not deny it.
    fn look_at_placed(&self) {
        for image in &self.world.state().placed {
            let touched = |asked: &Asked| {
                let touches = matches!(
                    asked.outcome,
                    Some(Outcome::Deployed | Outcome::RolledBack | Outcome::Failed | Outcome::Interrupted)
                );
                touches && asked.image == *image
            };
            let plainly = |plain: &Plain| plain_tag(plain).is_some_and(|tag| image_of(digest(tag.as_str())) == *image);
            let known = self.asked.iter().any(touched) || self.plain.iter().any(plainly);
            assert!(known, "{image} was put in place, and every answer denies it");
        }
    }
}

fn plain_tag(plain: &Plain) -> Option<Tag> {
    match plain {
        Plain::Version(version) => Some(tag(&version_name(*version))),
        Plain::Absent => Some(tag("v9.9.9")),
        Plain::Nothing => None,
    }
}
