//! Claimed requests on disk: those without an answer whole, all others by their identifier.
//!
//! What is in an entry and how it moves on is the inbox's business; the deploy in flight is `journal`'s.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use tagship_core::handoff::names::RequestId;

use crate::{
    inbox::{Entry, Ledger},
    state_dir::{StateDir, StateError},
};

const OPEN: &str = "requests.json";
const SEEN: &str = "seen";
const SPENT: &str = "spent";
/// How many identifiers are remembered. A request is dead once its Not-After has passed, hours after it was made; this
/// many cover more than a week of a request a minute. Forgotten are the oldest, as many at once, so that a flood of
/// requests makes neither the file nor the memory grow without end.
const REMEMBERED: usize = 20_000;
/// How long a used rollback request is remembered beyond its Not-After, should the clock be set back.
const AFTERWARDS: SignedDuration = SignedDuration::from_hours(24);

/// The app's claimed requests, read once and written through.
#[derive(Debug)]
pub struct Requests {
    dir: StateDir,
    content: Mutex<Content>,
}

#[derive(Debug)]
struct Content {
    open: BTreeMap<RequestId, Entry>,
    seen: Seen,
    /// The rollback requests that were made use of, and until when each could be used again. Apart from the others:
    /// whoever can write in the hand-off directory can push any number of identifiers out of those.
    spent: BTreeMap<RequestId, Timestamp>,
}

impl Requests {
    /// Reads them; none if there are none.
    pub fn open(dir: StateDir) -> Result<Self, StateError> {
        let open: Vec<Entry> = dir.read_json(OPEN)?.unwrap_or_default();
        let open = open.into_iter().map(|entry| (entry.id, entry)).collect();
        let spent = dir.read_json(SPENT)?.unwrap_or_default();
        let content = Content { open, seen: Seen::read(&dir)?, spent };
        Ok(Self { dir, content: Mutex::new(content) })
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, content: &Content) -> Result<(), StateError> {
        self.dir.write_json(OPEN, &content.open.values().collect::<Vec<_>>())
    }
}

impl Ledger for Requests {
    fn knows(&self, id: RequestId) -> Result<bool, StateError> {
        let content = self.content();
        // A crash may have come between an entry and its identifier.
        Ok(content.seen.has(id) || content.open.contains_key(&id) || content.spent.contains_key(&id))
    }

    fn open_entries(&self) -> Result<Vec<Entry>, StateError> {
        Ok(self.content().open.values().cloned().collect())
    }

    fn put(&self, entry: &Entry) -> Result<(), StateError> {
        let mut content = self.content();
        let before = content.open.insert(entry.id, entry.clone());
        // The identifier last: known without an entry, a request that was never answered would be passed over.
        let listed = self.write(&content);
        let is_listed = listed.is_ok();
        let noted = listed.and_then(|()| content.seen.add(&self.dir, entry.id));
        if noted.is_err() {
            // Whoever asked is told that it was not taken: it must not go out with the next one's, and be deployed.
            match before {
                Some(before) => content.open.insert(entry.id, before),
                None => content.open.remove(&entry.id),
            };
            if is_listed {
                self.write(&content)?;
            }
        }
        noted
    }

    fn spend(&self, id: RequestId, not_after: Timestamp) -> Result<(), StateError> {
        let mut content = self.content();
        let now = Timestamp::now();
        content.spent.retain(|_, until| until.saturating_add(AFTERWARDS).is_ok_and(|until| now <= until));
        content.spent.insert(id, not_after);
        self.dir.write_json(SPENT, &content.spent)
    }

    fn close(&self, id: RequestId) -> Result<(), StateError> {
        let mut content = self.content();
        let noted = content.seen.add(&self.dir, id);
        // It has its answer, noted or not.
        let listed = if content.open.remove(&id).is_some() { self.write(&content) } else { Ok(()) };
        noted.and(listed)
    }
}

/// The identifiers of all requests that were claimed, up to so many.
#[derive(Debug)]
struct Seen {
    ids: HashSet<RequestId>,
    /// The same in the order of the file: the oldest first.
    order: VecDeque<RequestId>,
}

impl Seen {
    fn read(dir: &StateDir) -> Result<Self, StateError> {
        let lines = dir.read(SEEN)?.unwrap_or_default();
        let order: VecDeque<RequestId> =
            String::from_utf8_lossy(&lines).lines().filter_map(|id| id.parse().ok()).collect();
        Ok(Self { ids: order.iter().copied().collect(), order })
    }

    fn has(&self, id: RequestId) -> bool {
        self.ids.contains(&id)
    }

    fn add(&mut self, dir: &StateDir, id: RequestId) -> Result<(), StateError> {
        if self.has(id) {
            return Ok(());
        }
        // On disk first: what only the memory knows would be answered anew by the next run.
        dir.append(SEEN, &id.to_string())?;
        self.ids.insert(id);
        self.order.push_back(id);
        if self.order.len() <= 2 * REMEMBERED {
            return Ok(());
        }
        let forgotten = self.order.len().saturating_sub(REMEMBERED);
        let kept: String = self.order.iter().skip(forgotten).map(|id| format!("{id}\n")).collect();
        dir.write(SEEN, kept.as_bytes())?;
        for id in self.order.drain(..forgotten) {
            self.ids.remove(&id);
        }
        Ok(())
    }
}

/// Stands in for requests that cannot be read: takes none, so that each is refused at once and says why, and leaves what
/// is damaged as it is. What was refused stays known where that can be read. What an earlier run had put into the damaged
/// list, and whose claim a crash left behind, is refused here, and answered once more when the list is back.
#[derive(Debug)]
pub struct Unreadable {
    dir: StateDir,
    why: StateError,
    seen: Mutex<Option<Seen>>,
}

impl Unreadable {
    /// For requests that could not be opened for this reason.
    pub fn new(dir: StateDir, why: StateError) -> Self {
        let seen = Mutex::new(Seen::read(&dir).ok());
        Self { dir, why, seen }
    }
}

impl Ledger for Unreadable {
    fn knows(&self, id: RequestId) -> Result<bool, StateError> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(seen.as_ref().is_some_and(|seen| seen.has(id)))
    }

    fn open_entries(&self) -> Result<Vec<Entry>, StateError> {
        Ok(Vec::new())
    }

    fn put(&self, _: &Entry) -> Result<(), StateError> {
        Err(self.why.again())
    }

    fn spend(&self, _: RequestId, _: Timestamp) -> Result<(), StateError> {
        Err(self.why.again())
    }

    fn close(&self, id: RequestId) -> Result<(), StateError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_mut().map_or(Ok(()), |seen| seen.add(&self.dir, id))
    }
}

#[cfg(test)]
mod tests {
    use tagship_core::explain::Explain;

    use super::*;
    use crate::{
        inbox::{EntryForm, Stage},
        state_dir::tests::fresh,
    };

    fn entry(stage: Stage) -> Entry {
        let form = EntryForm::Full { text: "v1.0.0\n".into() };
        Entry { id: RequestId::generate(), claimed: Timestamp::UNIX_EPOCH, form, stage, handoff: None }
    }

    #[test]
    fn open_requests_survive_and_closed_ones_stay_known() {
        let (_temp, dir) = fresh();
        let requests = Requests::open(dir.clone()).unwrap();
        let (first, second) = (entry(Stage::Waiting), entry(Stage::Begun));
        requests.put(&first).unwrap();
        requests.put(&second).unwrap();
        requests.put(&Entry { stage: Stage::Begun, ..first.clone() }).unwrap();

        let again = Requests::open(dir.clone()).unwrap();
        assert_eq!(again.open_entries().unwrap().len(), 2);
        assert!(again.open_entries().unwrap().iter().all(|entry| entry.stage == Stage::Begun));
        again.close(first.id).unwrap();

        let last = Requests::open(dir).unwrap();
        assert_eq!(last.open_entries().unwrap(), [second]);
        assert!(last.knows(first.id).unwrap());
        assert!(!last.knows(RequestId::generate()).unwrap());
    }

    #[test]
    fn what_never_had_an_entry_can_be_closed() {
        let (_temp, dir) = fresh();
        let id = RequestId::generate();
        Requests::open(dir.clone()).unwrap().close(id).unwrap();
        assert!(Requests::open(dir).unwrap().knows(id).unwrap());
    }

    #[test]
    fn only_so_many_identifiers_are_remembered_and_the_newest_are() {
        let (_temp, dir) = fresh();
        let ids: Vec<RequestId> = (0..2 * REMEMBERED).map(|_| RequestId::generate()).collect();
        let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
        dir.write(SEEN, lines.as_bytes()).unwrap();
        let requests = Requests::open(dir.clone()).unwrap();
        assert!(requests.knows(*ids.first().unwrap()).unwrap());
        let one_more = RequestId::generate();
        requests.close(one_more).unwrap();
        assert!(requests.knows(one_more).unwrap());
        assert!(requests.knows(*ids.last().unwrap()).unwrap());
        assert!(!requests.knows(*ids.first().unwrap()).unwrap());
        assert_eq!(dir.read(SEEN).unwrap().unwrap().len(), REMEMBERED * 27);
    }

    #[test]
    fn a_rollback_that_was_used_is_known_until_its_time_whatever_comes_after_it() {
        let (_temp, dir) = fresh();
        let requests = Requests::open(dir.clone()).unwrap();
        let (used, late) = (entry(Stage::Begun), RequestId::generate());
        requests.put(&used).unwrap();
        requests.spend(late, Timestamp::now() - AFTERWARDS * 2).unwrap();
        requests.spend(used.id, Timestamp::now() + SignedDuration::from_hours(1)).unwrap();
        requests.close(used.id).unwrap();
        // 40,001 closed requests: what 39,999 of them append, without waiting for the disk for each, and two more.
        let mut lines = dir.read(SEEN).unwrap().unwrap();
        lines.extend((1..2 * REMEMBERED).flat_map(|_| format!("{}\n", RequestId::generate()).into_bytes()));
        dir.write(SEEN, &lines).unwrap();
        let requests = Requests::open(dir.clone()).unwrap();
        for _ in 0..2 {
            requests.close(RequestId::generate()).unwrap();
        }
        assert!(!String::from_utf8(dir.read(SEEN).unwrap().unwrap()).unwrap().contains(&used.id.to_string()));
        assert!(requests.knows(used.id).unwrap());
        assert!(Requests::open(dir).unwrap().knows(used.id).unwrap(), "also by the next run");
        assert!(!requests.knows(late).unwrap(), "what could not be used again is forgotten");
    }

    #[test]
    fn what_could_not_be_noted_does_not_go_out_with_the_next_one() {
        for file in [OPEN, SEEN] {
            let (_temp, dir) = fresh();
            let requests = Requests::open(dir.clone()).unwrap();
            let (first, second, third) = (entry(Stage::Waiting), entry(Stage::Waiting), entry(Stage::Waiting));
            requests.put(&first).unwrap();
            // Nothing can be put where a directory is.
            let (path, saved) = (dir.file(file), dir.file("saved"));
            std::fs::rename(&path, &saved).unwrap();
            std::fs::create_dir_all(path.join("full")).unwrap();
            assert!(requests.put(&second).is_err(), "{file}");
            let begun = Entry { stage: Stage::Begun, ..first.clone() };
            assert_eq!(requests.put(&begun).is_err(), file == OPEN, "known already");
            assert_eq!(requests.close(second.id).is_err(), file == SEEN);
            std::fs::remove_dir_all(&path).unwrap();
            std::fs::rename(saved, &path).unwrap();
            requests.put(&third).unwrap();
            let listed = Requests::open(dir).unwrap().open_entries().unwrap();
            assert_eq!(listed.len(), 2, "{file}");
            let first = if file == OPEN { first } else { begun };
            assert!(listed.contains(&first) && listed.contains(&third), "{file}: {listed:?}");
        }
    }

    #[test]
    fn what_was_answered_is_never_open_again() {
        let (_temp, dir) = fresh();
        let answered = entry(Stage::Waiting);
        // As after a crash between the two files.
        dir.write_json(OPEN, &[&answered]).unwrap();
        let requests = Requests::open(dir.clone()).unwrap();
        std::fs::create_dir(dir.file(SEEN)).unwrap();
        requests.close(answered.id).unwrap_err();
        assert_eq!(dir.read_json::<Vec<Entry>>(OPEN).unwrap().unwrap(), []);
    }

    #[test]
    fn half_an_identifier_is_passed_over() {
        let (_temp, dir) = fresh();
        let id = RequestId::generate();
        dir.write(SEEN, format!("01ARZ3NDE\n{id}\n01").as_bytes()).unwrap();
        assert!(Requests::open(dir).unwrap().knows(id).unwrap());
    }

    #[test]
    fn damage_is_no_empty_list() {
        for file in [OPEN, SPENT] {
            let (_temp, dir) = fresh();
            dir.write(file, b"[{").unwrap();
            assert_eq!(Requests::open(dir).unwrap_err().kind(), "state-damaged", "{file}");
        }
    }
}
