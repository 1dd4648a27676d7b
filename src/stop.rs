//! The signals that end a run: SIGTERM, which a runner sends to a job that is cancelled, and SIGINT.
//!
//! What is left undone then is known where work is done.

use std::future::Future;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals of one run. One that comes while nobody waits for it is not lost.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// Real signals reach each test of the process.
    #[cfg(test)]
    pub told: std::sync::Arc<tokio::sync::Notify>,
}

impl Stop {
    /// Takes the signals over: from now on they end nothing by themselves.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn new() -> io::Result<Stop> {
        Ok(Stop {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            #[cfg(test)]
            told: std::sync::Arc::default(),
        })
    }

    /// Waits for one of them. Safe to cancel.
    pub async fn asked(&mut self) {
        #[cfg(test)]
        let told = self.told.notified();
        #[cfg(not(test))]
        let told = std::future::pending::<()>();
        tokio::select! {
            () = told => {}
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Does a thing, or leaves it in the middle when a signal comes: then `None`. After one that came before, it is not
    /// even begun.
    pub async fn or<T>(&mut self, thing: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.asked() => None,
            done = thing => Some(done),
        }
    }
}
