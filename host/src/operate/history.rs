//! `tagship-host history`: how every deploy ended, from the file of verdicts, compared with the system's journal.
//!
//! The app's user can change the file. What stands in the journal they can add to, but neither change nor remove: a
//! verdict that only one of both has is pointed out.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;
use tagship_core::{reference::Digest, text};

use super::table;
use crate::{history::Verdict, journald::Noted};

/// What is shown.
#[derive(Debug, Clone, Serialize)]
pub struct Past {
    /// The verdicts of the file, the newest first.
    verdicts: Vec<Verdict>,
    /// What the system's journal says otherwise.
    differences: Vec<Difference>,
    /// Whether there was anything in the journal to compare with.
    compared: bool,
}

/// What only one of file and journal has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "only-in")]
enum Difference {
    /// It was taken out of the file, or changed there.
    Journal(Noted),
    /// It was put into the file, or changed there.
    File(Noted),
    /// Lines of the file that are none.
    Damaged {
        /// How many.
        lines: usize,
    },
}

impl Past {
    /// Compares the file's verdicts, the oldest first, with what the journal was told. `is_cut`: the file has, or had, older
    /// ones, which were not read.
    pub fn new(verdicts: Vec<Verdict>, damaged: usize, is_cut: bool, told: &[Noted]) -> Self {
        let keys = |all: &[Noted]| all.iter().map(Noted::key).collect::<BTreeSet<_>>();
        let in_file: Vec<Noted> = verdicts.iter().map(Noted::of).collect();
        let (of_file, of_journal) = (keys(&in_file), keys(told));
        // The journal forgets its oldest entries, at its rotation or at a boot. By their order, not by a clock: from the
        // first verdict on that it still has, it has all. Where it has any, it has the newest.
        let none = in_file.len().saturating_sub(usize::from(!told.is_empty()));
        let since = in_file.iter().position(|one| of_journal.contains(&one.key())).unwrap_or(none);
        let lacks = |there: &BTreeSet<String>| {
            let there = there.clone();
            move |one: &&Noted| !there.contains(&one.key())
        };
        // So does the file, and where it was cut the journal may reach further back.
        let newest = told.len().saturating_sub(1);
        let shared = told.iter().position(|one| of_file.contains(&one.key())).unwrap_or(newest);
        let told_since = told.iter().skip(if is_cut { shared } else { 0 });
        let mut differences: Vec<_> = told_since.filter(lacks(&of_file)).cloned().map(Difference::Journal).collect();
        let young = in_file.iter().skip(since);
        differences.extend(young.filter(lacks(&of_journal)).cloned().map(Difference::File));
        differences.extend((damaged > 0).then_some(Difference::Damaged { lines: damaged }));
        Self { verdicts: verdicts.into_iter().rev().collect(), differences, compared: !told.is_empty() }
    }

    /// Whether file and journal say the same, as far as the journal reaches back.
    pub fn agrees(&self) -> bool {
        self.differences.is_empty()
    }

    /// As a table for a reader.
    pub fn render(&self) -> String {
        let mut rows = vec![["TIME", "TAG", "OUTCOME", "KIND", "BY", "DIGEST"].map(str::to_owned)];
        rows.extend(self.verdicts.iter().map(|verdict| {
            let one = Noted::of(verdict);
            let digest = one.digest.as_ref().map(Digest::short);
            let tag = one.tag.unwrap_or_else(|| "-".into());
            [time(one.time), tag, one.outcome, one.kind, one.by, digest.unwrap_or_else(|| "-".into())]
        }));
        match rows.len() {
            1 => "No deploy has ended here yet.\n".to_owned(),
            _ => table::columns(&rows),
        }
    }

    /// What is to be said beside the table: a line each.
    pub fn remarks(&self) -> Vec<String> {
        let one = |told: &Noted| {
            let tag = told.tag.as_deref().unwrap_or("-");
            text::escape(&format!("{} {tag} {} ({})", time(told.time), told.outcome, told.kind))
        };
        let line = |difference: &Difference| match difference {
            Difference::Journal(told) => format!("only in the system's journal, not in the file: {}", one(told)),
            Difference::File(told) => format!("only in the file, not in the system's journal: {}", one(told)),
            Difference::Damaged { lines } => format!("lines of the file that cannot be read: {lines}"),
        };
        let none = (!self.compared).then(|| "the system's journal has none of these to compare with".to_owned());
        none.into_iter().chain(self.differences.iter().map(line)).collect()
    }
}

fn time(time: Timestamp) -> String {
    format!("{time:.0}")
}

#[cfg(test)]
mod tests {
    use tagship_core::handoff::{
        names::RequestId,
        status::{Outcome, Status},
    };

    use super::*;
    use crate::history::By;

    fn verdict(second: i64, kind: &str, request: Option<RequestId>) -> Verdict {
        let by = if request.is_some() { By::Request } else { By::Operator };
        let time = Timestamp::from_second(second).unwrap();
        let status = Status {
            tag: Some("v1.0.0".parse().unwrap()),
            request,
            started: Some(time),
            ..Status::new(Outcome::Refused, kind, "because")
        };
        Verdict { time, by, status }
    }

    fn told(verdicts: &[Verdict]) -> Vec<Noted> {
        verdicts.iter().map(Noted::of).collect()
    }

    #[test]
    fn what_both_have_is_no_difference() {
        let id = RequestId::generate();
        let all = vec![verdict(1, "a", None), verdict(2, "b", Some(id)), verdict(3, "a", None)];
        let past = Past::new(all.clone(), 0, false, &told(&all));
        assert!(past.agrees() && past.remarks().is_empty());
        assert!(past.render().starts_with("TIME"), "{}", past.render());
        assert_eq!(past.verdicts.first().unwrap().time.as_second(), 3, "the newest first");
    }

    #[test]
    fn what_one_of_both_lacks_is_pointed_out() {
        let all = vec![verdict(1, "a", None), verdict(2, "b", Some(RequestId::generate())), verdict(3, "a", None)];
        for lost in 0..3 {
            let mut fewer = all.clone();
            fewer.remove(lost);
            let past = Past::new(fewer.clone(), 0, false, &told(&all));
            assert!(matches!(past.differences[..], [Difference::Journal(_)]), "taken out of the file: {lost}");
            let past = Past::new(all.clone(), 0, false, &told(&fewer));
            // The oldest may have been forgotten by the journal.
            let found = usize::from(lost > 0);
            assert_eq!(past.differences.len(), found, "put into the file: {lost}");
        }
        let mut changed = all.clone();
        changed[1].status.kind = tagship_core::handoff::fields::Word::lossy("deployed");
        let past = Past::new(changed, 0, false, &told(&all));
        assert!(matches!(past.differences[..], [Difference::Journal(_), Difference::File(_)]));
        assert_eq!(past.remarks().len(), 2);
        // Whatever time it claims.
        let backdated = [all.clone(), vec![verdict(0, "c", None)]].concat();
        assert!(matches!(Past::new(backdated, 0, false, &told(&all)).differences[..], [Difference::File(_)]));
    }

    #[test]
    fn where_the_file_was_cut_the_journal_may_reach_further_back() {
        let all: Vec<_> = (1..6).map(|second| verdict(second, "a", None)).collect();
        let newest = all[2..].to_vec();
        assert!(Past::new(newest.clone(), 0, true, &told(&all)).agrees());
        assert_eq!(Past::new(newest.clone(), 0, false, &told(&all)).differences.len(), 2);
        let taken_out = [&newest[..1], &newest[2..]].concat();
        assert_eq!(Past::new(taken_out, 0, true, &told(&all)).differences.len(), 1);
    }

    #[test]
    fn a_file_in_which_everything_is_invented_does_not_pass_for_a_cut_one() {
        let (all, invented) = ([verdict(1, "a", None), verdict(2, "b", None)], [verdict(3, "c", None)]);
        for is_cut in [false, true] {
            let past = Past::new(invented.to_vec(), 0, is_cut, &told(&all));
            let newest = [Difference::Journal(Noted::of(&all[1])), Difference::File(Noted::of(&invented[0]))];
            assert!(past.differences.ends_with(&newest), "{:?}", past.differences);
            assert!(!Past::new(vec![], 0, is_cut, &told(&all)).agrees(), "an empty one neither");
        }
    }

    #[test]
    fn the_journal_hears_of_it_a_moment_later() {
        let all = [verdict(1, "a", None), verdict(2, "b", Some(RequestId::generate()))];
        let mut later = told(&all);
        later.iter_mut().for_each(|one| one.time += std::time::Duration::from_micros(300));
        assert!(Past::new(all.to_vec(), 0, false, &later).agrees());
    }

    #[test]
    fn a_verdict_said_twice_after_a_crash_is_none() {
        for request in [Some(RequestId::generate()), None] {
            let one = verdict(1, "interrupted", request);
            assert!(Past::new(vec![one.clone()], 0, false, &told(&[one.clone(), one.clone()])).agrees());
            assert!(Past::new(vec![one.clone(), one.clone()], 0, false, &told(&[one])).agrees());
        }
    }

    #[test]
    fn without_a_journal_nothing_is_compared() {
        let past = Past::new(vec![verdict(1, "a", None)], 0, false, &[]);
        assert!(past.agrees());
        assert_eq!(past.remarks(), ["the system's journal has none of these to compare with"]);
        assert_eq!(Past::new(vec![], 0, false, &[]).render(), "No deploy has ended here yet.\n");
        let all = [verdict(1, "a", None)];
        assert!(!Past::new(all.to_vec(), 2, false, &told(&all)).agrees());
        assert_eq!(Past::new(all.to_vec(), 2, false, &[]).remarks().len(), 2);
    }
}
