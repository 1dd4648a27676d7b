//! The mark, where it is not a deploy that changes it.

use super::{Desk, Host};
use crate::{
    history::{By, Marked},
    state_dir::StateError,
    trust::Release,
};

impl<H: Host> Desk<'_, H> {
    /// Sets the mark by the operator's word, to what was verified anew; on disk before anybody is told. Returns what
    /// became of it; none if it stood there already.
    pub fn set_mark(&mut self, mark: Release) -> Result<Option<Marked>, StateError> {
        let previous = self.history.trust.mark().cloned();
        if previous.as_ref().is_some_and(|previous| previous.digest == mark.digest && previous.tag == mark.tag) {
            return Ok(None);
        }
        self.history.set_mark(&self.dir, mark.clone())?;
        let marked = Marked { by: By::Operator, mark, previous };
        self.host.marked(&self.app, &marked);
        Ok(Some(marked))
    }
}
