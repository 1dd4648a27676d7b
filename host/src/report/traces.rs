//! What other modules trace, as lines.

use std::fmt;

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::{Urgency, line};

/// Prints what other modules trace, warnings and notices alike, one line an event.
pub fn print_traces() {
    // Only one is ever set, before anything else happens.
    let _ = tracing::subscriber::set_global_default(Traces);
}

struct Traces;

impl Subscriber for Traces {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with("tagship")
    }

    fn event(&self, event: &Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        let urgency = match *event.metadata().level() {
            Level::ERROR => Urgency::Error,
            Level::WARN => Urgency::Warning,
            _ => Urgency::Notice,
        };
        line(urgency, &words.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An event's message, with its other fields behind it.
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}{}", self.0);
        } else {
            self.0.push_str(&format!(" ({} {value:?})", field.name()));
        }
    }
}
