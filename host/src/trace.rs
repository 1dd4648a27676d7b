//! Where a deploy's time goes: what others were waited for, and for how long, in a file that a trace viewer opens.
//!
//! Off unless asked for, and then no clock is read. Neither the state machine nor the adapters know of it: [`Traced`]
//! stands between them. What is told are names of calls, services and images, nothing else.

mod document;
mod intervals;
mod traced;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use tagship_core::explain::Explain;

pub use intervals::{Category, Interval, Summary, union};
pub use traced::Traced;

use crate::state_dir::replace;

/// A trace under way, or none. Clones are the same trace.
#[derive(Debug, Clone, Default)]
pub struct Trace(Option<Arc<Record>>);

#[derive(Debug)]
struct Record {
    file: PathBuf,
    begun: Timestamp,
    origin: Instant,
    intervals: Mutex<Vec<Interval>>,
}

/// The trace could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the trace to {}", .file.display())]
pub struct TraceError {
    file: PathBuf,
    source: io::Error,
}

impl Explain for TraceError {
    fn kind(&self) -> &'static str {
        "trace-unwritten"
    }

    fn hint(&self) -> Option<String> {
        Some("name a file in a directory that the app's user may write; the deploy itself is not affected".into())
    }
}

/// A call under way; dropping it ends it, however it ended.
#[must_use]
pub struct Span(Option<(Arc<Record>, Interval)>);

impl Trace {
    /// A trace into this file, beginning now; none without a file.
    pub fn to(file: Option<PathBuf>) -> Self {
        Self(file.map(|file| {
            let (begun, origin) = (Timestamp::now(), Instant::now());
            Arc::new(Record { file, begun, origin, intervals: Mutex::default() })
        }))
    }

    /// Begins a call.
    pub fn span(&self, category: Category, name: impl FnOnce() -> String) -> Span {
        Span(self.0.as_ref().map(|record| {
            let begun = record.now();
            (Arc::clone(record), Interval { category, name: name(), begun, ended: begun })
        }))
    }

    /// Writes what was traced so far under this title, in the place of an earlier file. Returns where, and the sums; none
    /// if there is no trace.
    pub fn write(&self, title: &str) -> Result<Option<(&Path, Summary)>, TraceError> {
        let Some(record) = &self.0 else { return Ok(None) };
        let (whole, intervals) = (record.now(), self.intervals());
        let summary = Summary::of(&intervals, whole);
        let text = document::render(title, &record.begun.to_string(), &intervals, &summary);
        let failed = |source| TraceError { file: record.file.clone(), source };
        // Whoever opens it while a deploy ends sees the earlier one.
        replace(&record.file, text.as_bytes()).map_err(failed)?;
        Ok(Some((&record.file, summary)))
    }

    /// What was traced so far.
    fn intervals(&self) -> Vec<Interval> {
        let read = |record: &Arc<Record>| record.intervals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.0.as_ref().map(read).unwrap_or_default()
    }
}

impl Record {
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some((record, mut interval)) = self.0.take() {
            interval.ended = record.now();
            record.intervals.lock().unwrap_or_else(PoisonError::into_inner).push(interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_nothing_is_kept_nor_even_named() {
        let trace = Trace::to(None);
        drop(trace.span(Category::Engine, || unreachable!("a name for nobody")));
        assert!(trace.intervals().is_empty() && trace.write("x").unwrap().is_none());
    }

    #[test]
    fn a_trace_replaces_the_one_before() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("trace.json");
        std::fs::write(&file, "earlier").unwrap();
        let trace = Trace::to(Some(file.clone()));
        drop(trace.span(Category::Systemd, || "restart web".into()));
        let open = trace.span(Category::Settle, || "still under way".into());
        let (path, summary) = trace.write("deploy app").unwrap().unwrap();
        assert_eq!(path, file);
        assert_eq!(summary.waited.len(), Category::ALL.len());
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("restart web") && !text.contains("under way"), "{text}");
        drop(open);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1, "nothing but the file is left");
    }

    #[test]
    fn a_trace_that_cannot_be_written_says_where() {
        let trace = Trace::to(Some("/nonexistent/trace.json".into()));
        let error = trace.write("x").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/trace.json") && error.hint().is_some());
    }
}
