//! Claimed requests on disk: those without an answer whole, all others by their identifier.
//!
//! What is in an entry and how it moves on is the inbox's business; the deploy in flight is `journal`'s.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tagship_core::handoff::names::RequestId;

use crate::{
    inbox::{Entry, Ledger},
    state_dir::{StateDir, StateError},
};

const OPEN: &str = "requests.json";
const SEEN: &str = "seen";
/// How many identifiers are remembered. A request is dead once its Not-After has passed, hours after it was made; this
/// many cover more than a week of a request a minute. Forgotten are the oldest, as many at once, so that a flood of
/// requests makes neither the file nor the memory grow without end.
const REMEMBERED: usize = 20_000;

/// The app's claimed requests, read once and written through.
#[derive(Debug)]
pub struct Requests {
    dir: StateDir,
    content: Mutex<Content>,
}

#[derive(Debug)]
struct Content {
    open: BTreeMap<RequestId, Entry>,
    seen: HashSet<RequestId>,
    /// The same in the order of the file: the oldest first.
    order: VecDeque<RequestId>,
}

impl Requests {
    /// Reads them; none if there are none.
    pub fn open(dir: StateDir) -> Result<Self, StateError> {
        let open: Vec<Entry> = dir.read_json(OPEN)?.unwrap_or_default();
        let lines = dir.read(SEEN)?.unwrap_or_default();
        let order: VecDeque<RequestId> =
            String::from_utf8_lossy(&lines).lines().filter_map(|id| id.parse().ok()).collect();
        let open = open.into_iter().map(|entry| (entry.id, entry)).collect();
        let content = Content { open, seen: order.iter().copied().collect(), order };
        Ok(Self { dir, content: Mutex::new(content) })
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, content: &mut Content, id: RequestId) -> Result<(), StateError> {
        if content.seen.contains(&id) {
            return Ok(());
        }
        // On disk first: what only the memory knows would be answered anew by the next run.
        self.dir.append(SEEN, &id.to_string())?;
        content.seen.insert(id);
        content.order.push_back(id);
        if content.order.len() <= 2 * REMEMBERED {
            return Ok(());
        }
        let forgotten = content.order.len().saturating_sub(REMEMBERED);
        let kept: String = content.order.iter().skip(forgotten).map(|id| format!("{id}\n")).collect();
        self.dir.write(SEEN, kept.as_bytes())?;
        for id in content.order.drain(..forgotten) {
            content.seen.remove(&id);
        }
        Ok(())
    }

    fn write(&self, content: &Content) -> Result<(), StateError> {
        self.dir.write_json(OPEN, &content.open.values().collect::<Vec<_>>())
    }
}

impl Ledger for Requests {
    fn knows(&self, id: RequestId) -> Result<bool, StateError> {
        let content = self.content();
        // A crash may have come between an entry and its identifier.
        Ok(content.seen.contains(&id) || content.open.contains_key(&id))
    }

    fn open_entries(&self) -> Result<Vec<Entry>, StateError> {
        Ok(self.content().open.values().cloned().collect())
    }

    fn put(&self, entry: &Entry) -> Result<(), StateError> {
        let mut content = self.content();
        // The identifier last: known without an entry, a request that was never answered would be passed over.
        content.open.insert(entry.id, entry.clone());
        self.write(&content)?;
        self.see(&mut content, entry.id)
    }

    fn close(&self, id: RequestId) -> Result<(), StateError> {
        let mut content = self.content();
        self.see(&mut content, id)?;
        if content.open.remove(&id).is_some() { self.write(&content) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tagship_core::explain::Explain;

    use super::*;
    use crate::{
        inbox::{EntryForm, Stage},
        state_dir::tests::fresh,
    };

    fn entry(stage: Stage) -> Entry {
        let form = EntryForm::Full { text: "v1.0.0\n".into() };
        Entry { id: RequestId::generate(), claimed: Timestamp::UNIX_EPOCH, form, stage }
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
    fn half_an_identifier_is_passed_over() {
        let (_temp, dir) = fresh();
        let id = RequestId::generate();
        dir.write(SEEN, format!("01ARZ3NDE\n{id}\n01").as_bytes()).unwrap();
        assert!(Requests::open(dir).unwrap().knows(id).unwrap());
    }

    #[test]
    fn damage_is_no_empty_list() {
        let (_temp, dir) = fresh();
        dir.write(OPEN, b"[{").unwrap();
        assert_eq!(Requests::open(dir).unwrap_err().kind(), "state-damaged");
    }
}
