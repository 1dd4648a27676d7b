//! What was going on when, and for how long anything of a kind was: pure arithmetic on microseconds.

use std::collections::BTreeMap;

/// Whom a deploy waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// The image's registry, with what its answers cost to verify.
    Registry,
    /// The container engine.
    Engine,
    /// The service manager.
    Systemd,
    /// An application, until it is healthy.
    Wait,
    /// The settle window.
    Settle,
}

impl Category {
    /// Every one, in the order in which a deploy meets them.
    pub const ALL: [Self; 5] = [Self::Registry, Self::Engine, Self::Systemd, Self::Wait, Self::Settle];

    /// The word for it in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Engine => "engine",
            Self::Systemd => "systemd",
            Self::Wait => "wait",
            Self::Settle => "settle",
        }
    }
}

/// One call, in microseconds since the trace began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// Who was waited for.
    pub category: Category,
    /// What for.
    pub name: String,
    /// When it began.
    pub begun: u64,
    /// When it had ended.
    pub ended: u64,
}

/// Where the time went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// From the trace's begin to its end.
    pub whole: u64,
    /// For how long at least one call of a category was under way.
    pub waited: BTreeMap<Category, u64>,
    /// The rest: for how long nobody else was waited for.
    pub own: u64,
}

impl Summary {
    /// Sums up a trace of this length.
    pub fn of(intervals: &[Interval], whole: u64) -> Self {
        let covered = |wanted: Option<Category>| {
            let some = intervals.iter().filter(|interval| wanted.is_none_or(|category| category == interval.category));
            union(some.map(|interval| (interval.begun.min(whole), interval.ended.min(whole))))
        };
        let waited = Category::ALL.into_iter().map(|category| (category, covered(Some(category)))).collect();
        Self { whole, waited, own: whole.saturating_sub(covered(None)) }
    }
}

/// How much time lies in at least one of these spans.
pub fn union(spans: impl IntoIterator<Item = (u64, u64)>) -> u64 {
    let mut spans: Vec<(u64, u64)> = spans.into_iter().collect();
    spans.sort_unstable();
    let (mut sum, mut covered) = (0_u64, 0_u64);
    for (begun, ended) in spans {
        let fresh = ended.saturating_sub(begun.max(covered));
        sum = sum.saturating_add(fresh);
        covered = covered.max(ended);
    }
    sum
}

/// For each interval the row to show it in, counted within its category: those of one row do not overlap, since viewers
/// take what overlaps in a row for nested.
pub(super) fn rows(intervals: &[Interval]) -> Vec<usize> {
    let mut order: Vec<(usize, &Interval)> = intervals.iter().enumerate().collect();
    order.sort_by_key(|(_, interval)| (interval.begun, interval.ended));
    let mut free: BTreeMap<Category, Vec<u64>> = BTreeMap::new();
    let mut placed: Vec<(usize, usize)> = Vec::with_capacity(order.len());
    for (index, interval) in order {
        let ends = free.entry(interval.category).or_default();
        let row = match ends.iter().position(|end| *end <= interval.begun) {
            Some(row) => row,
            None => {
                ends.push(0);
                ends.len() - 1
            }
        };
        if let Some(end) = ends.get_mut(row) {
            *end = interval.ended;
        }
        placed.push((index, row));
    }
    placed.sort_unstable();
    placed.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(category: Category, begun: u64, ended: u64) -> Interval {
        Interval { category, name: String::new(), begun, ended }
    }

    #[test]
    fn time_counts_once_however_often_it_is_covered() {
        for (what, spans, sum) in [
            ("none", &[][..], 0),
            ("one", &[(3, 5)][..], 2),
            ("an empty one", &[(4, 4)], 0),
            ("one that ends before it begins", &[(5, 3)], 0),
            ("apart, out of order", &[(10, 12), (0, 5)], 7),
            ("touching", &[(0, 5), (5, 7)], 7),
            ("overlapping", &[(0, 5), (3, 8)], 8),
            ("nested", &[(0, 10), (2, 3), (4, 9)], 10),
            ("the same twice", &[(1, 4), (1, 4)], 3),
            ("a bridge between two", &[(0, 3), (6, 9), (2, 7)], 9),
        ] {
            assert_eq!(union(spans.iter().copied()), sum, "{what}");
        }
    }

    #[test]
    fn what_nobody_else_had_is_our_own() {
        let intervals = [
            interval(Category::Registry, 10, 20),
            interval(Category::Systemd, 30, 60),
            interval(Category::Systemd, 40, 70),
            interval(Category::Engine, 65, 80),
        ];
        let summary = Summary::of(&intervals, 100);
        assert_eq!(summary.own, 100 - 10 - 50);
        assert_eq!(summary.waited[&Category::Systemd], 40);
        assert_eq!(summary.waited[&Category::Engine], 15);
        assert_eq!(summary.waited[&Category::Settle], 0);
        assert_eq!(Summary::of(&[], 7).own, 7);
        // Begun before the end, and not ended by then: it cannot make our share negative.
        assert_eq!(Summary::of(&[interval(Category::Wait, 0, 500)], 100).own, 0);
    }

    proptest! {
        #[test]
        fn the_union_is_what_counting_each_moment_gives(spans in proptest::collection::vec((0_u64..60, 0_u64..60), 0..12)) {
            let moments = (0..60).filter(|at| spans.iter().any(|(begun, ended)| begun <= at && at < ended)).count();
            prop_assert_eq!(union(spans), moments as u64);
        }

        #[test]
        fn nothing_overlaps_in_a_row(spans in proptest::collection::vec((0_u64..60, 0_u64..20, 0_usize..5), 0..12)) {
            let intervals: Vec<_> =
                spans.iter().map(|(begun, long, kind)| interval(Category::ALL[*kind], *begun, begun + long)).collect();
            let rows = rows(&intervals);
            for (one, row) in intervals.iter().zip(&rows) {
                for (other, at) in intervals.iter().zip(&rows) {
                    let apart = std::ptr::eq(one, other) || one.category != other.category || row != at
                        || one.ended <= other.begun || other.ended <= one.begun;
                    prop_assert!(apart, "{:?} and {:?}", one, other);
                }
            }
        }
    }
}
