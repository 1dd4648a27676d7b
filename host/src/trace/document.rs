//! A trace as a file: Chrome's Trace Event Format in its object form, which Perfetto, speedscope and chrome://tracing open.

use serde_json::{Map, Value, json};

use super::intervals::{Interval, Summary, rows};

/// Rows of one category are numbered from its own hundred on, so that a viewer shows them together.
const ROWS: usize = 100;

/// The whole file: an event for each interval, and the sums in `otherData`.
pub(super) fn render(title: &str, begun: &str, intervals: &[Interval], summary: &Summary) -> String {
    let mut events = vec![
        json!({"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": "tagship-host"}}),
        named(0, "whole"),
        event(title, "whole", (0, summary.whole), 0),
    ];
    let rows = rows(intervals);
    let mut told = Vec::new();
    for (interval, row) in intervals.iter().zip(rows) {
        let (category, id) = (interval.category.as_str(), (interval.category as usize + 1) * ROWS + row);
        if !told.contains(&id) {
            told.push(id);
            events.push(named(id, category));
        }
        let ended = interval.ended.min(summary.whole);
        events.push(event(&interval.name, category, (interval.begun, ended), id));
    }
    let mut sums = Map::new();
    sums.insert("begun".into(), begun.into());
    sums.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    sums.insert("whole_us".into(), summary.whole.into());
    for (category, waited) in &summary.waited {
        sums.insert(format!("{}_us", category.as_str()), (*waited).into());
    }
    sums.insert("own_us".into(), summary.own.into());
    let document = json!({"displayTimeUnit": "ms", "otherData": sums, "traceEvents": events});
    format!("{document}\n")
}

/// A complete event.
fn event(name: &str, category: &str, (begun, ended): (u64, u64), row: usize) -> Value {
    let lasted = ended.saturating_sub(begun);
    json!({"ph": "X", "name": name, "cat": category, "ts": begun, "dur": lasted, "pid": 1, "tid": row})
}

/// A row's name.
fn named(row: usize, name: &str) -> Value {
    json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": row, "args": {"name": name}})
}

#[cfg(test)]
mod tests {
    use super::{super::intervals::Category, *};

    fn rendered(names: &[&str]) -> Value {
        let interval = |(begun, name): (u64, &&str)| Interval {
            category: Category::Engine,
            name: (*name).to_owned(),
            begun,
            ended: begun + 10,
        };
        let intervals: Vec<_> = (0..).zip(names).map(interval).collect();
        let text = render("deploy \"x\"", "2026-02-03T04:05:06Z", &intervals, &Summary::of(&intervals, 15));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn names_are_escaped() {
        let odd = "a \"quote\", a \\, a\nline\u{1b} and \u{1f600}";
        let document = rendered(&[odd]);
        let events = document["traceEvents"].as_array().unwrap();
        assert!(events.iter().any(|event| event["ph"] == "X" && event["name"] == odd));
        assert!(events.iter().any(|event| event["cat"] == "whole" && event["name"] == "deploy \"x\""));
    }

    #[test]
    fn events_are_complete_and_the_sums_are_theirs() {
        let document = rendered(&["one", "another beside it", "a third"]);
        let events = document["traceEvents"].as_array().unwrap();
        let engine: Vec<_> = events.iter().filter(|event| event["cat"] == "engine").collect();
        assert_eq!(engine.len(), 3);
        assert!(engine.iter().all(|event| event["ts"].is_u64() && event["dur"] == 10 && event["ph"] == "X"));
        // Side by side, so each has a row, and each row its name.
        let names = events.iter().filter(|event| event["name"] == "thread_name" && event["args"]["name"] == "engine");
        assert_eq!(names.count(), 3);
        let sums = &document["otherData"];
        assert_eq!((&sums["whole_us"], &sums["engine_us"], &sums["own_us"]), (&json!(15), &json!(12), &json!(3)));
        assert_eq!(sums["settle_us"], 0);
    }

    #[test]
    fn what_has_not_ended_ends_with_the_trace() {
        let interval = Interval { category: Category::Settle, name: "hold".into(), begun: 5, ended: 900 };
        let summary = Summary::of(std::slice::from_ref(&interval), 20);
        let document: Value = serde_json::from_str(&render("x", "", &[interval], &summary)).unwrap();
        assert!(document["traceEvents"].as_array().unwrap().iter().any(|event| event["dur"] == 15));
    }
}
