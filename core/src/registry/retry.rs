//! How long to wait for a registry, and when to ask again.
//!
//! What is worth another try is decided where requests are made.

use std::time::{Duration, Instant};

/// How patient a client is. The defaults tell "the registry is down" within seconds, yet outlast a restart of it.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// The longest wait for a connection.
    pub(crate) connect: Duration,
    /// The longest silence while an answer is awaited or read.
    pub(crate) idle: Duration,
    /// The longest time for one request with its answer, redirects included.
    pub(crate) request: Duration,
    /// How often a request is made at most.
    pub(crate) tries: u32,
    /// The pause before the second try; it doubles with each further one.
    pub(crate) pause: Duration,
    /// No try begins later than this after the first.
    pub(crate) patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(10),
            request: Duration::from_secs(30),
            tries: 3,
            pause: Duration::from_millis(500),
            patience: Duration::from_secs(6),
        }
    }
}

/// The tries of one request.
pub(super) struct Tries<'a> {
    limits: &'a Limits,
    begun: Instant,
    made: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, begun: Instant::now(), made: 0 }
    }

    /// The pause before another try, `None` when there shall be none; `asked` is what the server wants (Retry-After).
    pub(super) fn pause(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.made = self.made.saturating_add(1);
        if self.made >= self.limits.tries {
            return None;
        }
        let doubled = self.limits.pause.saturating_mul(1 << (self.made - 1).min(16));
        let pause = asked.unwrap_or(doubled.mul_f64(jitter()));
        (self.begun.elapsed().saturating_add(pause) <= self.limits.patience).then_some(pause)
    }
}

/// A factor from 0.5 to 1, so that clients that failed together do not come back together.
fn jitter() -> f64 {
    getrandom::u32().map_or(1.0, |random| 0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let limits = Limits { tries: 4, ..Limits::default() };
        let mut tries = Tries::new(&limits);
        for (from, to) in [(250, 500), (500, 1000), (1000, 2000)] {
            let pause = tries.pause(None).unwrap().as_millis();
            assert!((from..=to).contains(&pause), "{pause}");
        }
        assert_eq!(tries.pause(None), None);
    }

    #[test]
    fn the_server_may_ask_for_a_pause_but_not_for_a_long_one() {
        let limits = Limits::default();
        assert_eq!(Tries::new(&limits).pause(Some(Duration::from_secs(2))), Some(Duration::from_secs(2)));
        assert_eq!(Tries::new(&limits).pause(Some(Duration::from_secs(7))), None);
        assert_eq!(Tries::new(&limits).pause(Some(Duration::MAX)), None);
    }
}
