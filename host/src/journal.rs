//! The deploy in flight, on disk, with all that ending it after a crash needs.
//!
//! Persist, then act, then answer: each method returns once what it says would survive a power cut. What a deploy
//! records is `deploy`'s, claimed requests are `requests`', what was proven is `history`'s.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tagship_core::{
    explain::Explain,
    handoff::{names::RequestId, status::Status},
    reference::Tag,
    signature::Evidence,
};

use crate::{
    deploy::{self, InFlight},
    state_dir::{StateDir, StateError},
    trust::Release,
};

const JOURNAL: &str = "journal.json";

/// The app's journal, read once and written through.
#[derive(Debug)]
pub struct Journal {
    dir: StateDir,
    current: Option<Current>,
}

/// The deploy in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Current {
    /// The request that asked for it; none if the operator did, or if it was postponed.
    pub request: Option<RequestId>,
    /// A request asked for it, and has its answer: that this would be ended later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub postponed: bool,
    /// The tag asked for.
    pub asked: Tag,
    /// What is deployed, and why it is believed; none where the operator puts back what was never verified.
    pub release: Option<(Release, Evidence)>,
    /// When it began.
    pub started: Timestamp,
    /// What the deploy has recorded: none before its first effect.
    pub entry: Option<InFlight>,
    /// How it ended, once it has.
    pub verdict: Option<Status>,
}

impl Journal {
    /// Reads the app's journal; an empty one if there is none.
    pub fn open(dir: StateDir) -> Result<Self, StateError> {
        let current = dir.read_json(JOURNAL)?.unwrap_or_default();
        Ok(Self { dir, current })
    }

    /// The deploy in flight.
    pub fn current(&self) -> Option<&Current> {
        self.current.as_ref()
    }

    /// Notes that a deploy is about to begin.
    pub fn begin(&mut self, current: Current) -> Result<(), StateError> {
        self.current = Some(current);
        self.write()
    }

    /// Notes how the deploy in flight ended, before anybody is told.
    pub fn ended(&mut self, verdict: &Status) -> Result<(), StateError> {
        if let Some(current) = &mut self.current {
            current.verdict = Some(verdict.clone());
        }
        self.write()
    }

    /// Leaves the deploy of this request, which cannot be ended now, for a later run. The request has a verdict by now,
    /// its only one.
    pub fn postpone(&mut self, request: Option<RequestId>) -> Result<(), StateError> {
        match &mut self.current {
            Some(current) if request.is_some() && current.request == request => {
                (current.request, current.postponed) = (None, true);
                self.write()
            }
            _ => Ok(()),
        }
    }

    /// Forgets the deploy in flight: everybody has been told.
    pub fn finish(&mut self) -> Result<(), StateError> {
        self.current = None;
        self.write()
    }

    fn write(&self) -> Result<(), StateError> {
        self.dir.write_json(JOURNAL, &self.current)
    }
}

impl deploy::Journal for Journal {
    fn save(&mut self, entry: &InFlight) -> Result<(), Box<dyn Explain + Send + Sync>> {
        if let Some(current) = &mut self.current {
            current.entry = Some(entry.clone());
        }
        self.write().map_err(|error| -> Box<dyn Explain + Send + Sync> { Box::new(error) })
    }
}

#[cfg(test)]
mod tests {
    use tagship_core::handoff::status::Outcome;

    use super::*;
    use crate::{
        deploy::{Journal as _, Phase, RecordedGoal},
        state_dir::tests::fresh,
    };

    fn current() -> Current {
        Current {
            request: Some(RequestId::generate()),
            postponed: false,
            asked: "v1.0.0".parse().unwrap(),
            release: None,
            started: Timestamp::UNIX_EPOCH,
            entry: None,
            verdict: None,
        }
    }

    #[test]
    fn a_deploy_in_flight_survives_step_by_step() {
        let (_temp, dir) = fresh();
        let mut expected = current();
        let mut journal = Journal::open(dir.clone()).unwrap();
        journal.begin(expected.clone()).unwrap();
        assert_eq!(Journal::open(dir.clone()).unwrap().current(), Some(&expected));

        let entry = InFlight {
            goal: RecordedGoal::PutBack,
            services: vec![],
            groups: vec![],
            phase: Phase::Replacing(1),
            image: None,
        };
        journal.save(&entry).unwrap();
        expected.entry = Some(entry);
        assert_eq!(Journal::open(dir.clone()).unwrap().current(), Some(&expected));

        let verdict = Status::new(Outcome::RolledBack, "unhealthy", "web is unhealthy");
        journal.ended(&verdict).unwrap();
        expected.verdict = Some(verdict);
        assert_eq!(Journal::open(dir.clone()).unwrap().current(), Some(&expected));

        journal.finish().unwrap();
        assert_eq!(Journal::open(dir).unwrap().current(), None);
    }

    #[test]
    fn a_journal_of_before_anything_could_be_postponed_is_read() {
        let (_temp, dir) = fresh();
        let expected = current();
        Journal::open(dir.clone()).unwrap().begin(expected.clone()).unwrap();
        assert!(!String::from_utf8(dir.read(JOURNAL).unwrap().unwrap()).unwrap().contains("postponed"));
        assert_eq!(Journal::open(dir).unwrap().current(), Some(&expected));
    }

    #[test]
    fn a_damaged_journal_is_no_empty_one() {
        let (_temp, dir) = fresh();
        for text in ["", "{", "{\"asked\":\"v1\"}", "[]"] {
            dir.write(JOURNAL, text.as_bytes()).unwrap();
            assert_eq!(Journal::open(dir.clone()).unwrap_err().kind(), "state-damaged", "{text}");
        }
    }
}
