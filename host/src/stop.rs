//! Being told to end: SIGTERM from the service manager, SIGINT from a terminal.
//!
//! What is under way is put back then, as after a failure, and everybody has an answer before the program ends. Twice
//! told, or where the whole session ends and nothing can be restarted any more, it ends at once: the next run finds what a
//! crash would have left. What is put back, and how, is `deploy`'s.

use std::{future::Future, io, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::report::{self, Urgency};

/// What no deploy's budget counts: the registry's patience before it, the answer and the old images after it.
const BESIDES: Duration = Duration::from_secs(120);

/// Whether the program was told to end. Clones are told the same.
#[derive(Debug, Clone)]
pub struct Stop(Arc<watch::Sender<Told>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    urgency: Urge,
    /// How long what is being done may take.
    budget: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urge {
    GoOn,
    GoBack,
    EndNow,
}

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Told { urgency: Urge::GoOn, budget: Duration::ZERO })))
    }
}

impl Stop {
    /// Heeds signals from now on; until then they end the program as they end any other.
    ///
    /// `session_ends` is asked at the first: whether there is no service manager any more that would restart anything.
    pub fn heed<F: Future<Output = bool> + Send>(
        &self,
        session_ends: impl Fn() -> F + Send + Sync + 'static,
    ) -> io::Result<()> {
        let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminated.recv() => {}
                    _ = interrupted.recv() => {}
                }
                stop.urge(&session_ends).await;
            }
        });
        Ok(())
    }

    /// What is begun now may take this long. The service manager, which ends what takes too long, is told.
    pub fn allow(&self, budget: Duration) {
        self.0.send_modify(|told| told.budget = budget);
        extend(&[], budget);
    }

    /// Whether the program is to end.
    pub fn is_asked(&self) -> bool {
        self.0.borrow().urgency >= Urge::GoBack
    }

    /// Returns once the program is to end.
    pub async fn asked(&self) {
        self.reached(Urge::GoBack).await;
    }

    /// Returns once it is to end without putting anything right.
    pub async fn at_once(&self) {
        self.reached(Urge::EndNow).await;
    }

    /// What a signal does.
    async fn urge<F: Future<Output = bool>>(&self, session_ends: &impl Fn() -> F) {
        let why = if self.is_asked() {
            "told to stop once more"
        } else if session_ends().await {
            "told to stop with the whole session"
        } else {
            report::line(Urgency::Notice, "told to stop: what is under way is put back");
            self.0.send_modify(|told| told.urgency = Urge::GoBack);
            extend(&[NotifyState::Stopping], self.0.borrow().budget);
            return;
        };
        report::line(Urgency::Notice, &format!("{why}: what is under way is left to the next run"));
        self.0.send_modify(|told| told.urgency = Urge::EndNow);
    }

    async fn reached(&self, urge: Urge) {
        // The sender is here, so it cannot be gone.
        let _ = self.0.subscribe().wait_for(|told| told.urgency >= urge).await;
    }
}

/// Has the service manager wait as long as this may take, from now on. Without one nobody hears it.
fn extend(states: &[NotifyState<'_>], budget: Duration) {
    let longest = format!("EXTEND_TIMEOUT_USEC={}", budget.saturating_add(BESIDES).as_micros());
    let _ = sd_notify::notify(&[states, &[NotifyState::Custom(&longest)]].concat());
}

#[cfg(test)]
impl Stop {
    /// Tells it as the first signal does.
    pub(crate) fn ask(&self) {
        self.0.send_modify(|told| told.urgency = Urge::GoBack);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_first_signal_goes_back_and_the_second_ends() {
        let stop = Stop::default();
        assert!(!stop.is_asked() && stop.asked().now_or_never().is_none());
        let stays = || async { false };
        stop.urge(&stays).await;
        assert!(stop.is_asked() && stop.at_once().now_or_never().is_none());
        stop.clone().urge(&stays).await;
        stop.asked().await;
        stop.at_once().await;
    }

    #[tokio::test]
    async fn nothing_is_put_back_while_the_session_ends() {
        let stop = Stop::default();
        stop.urge(&|| async { true }).await;
        stop.at_once().await;
    }
}
