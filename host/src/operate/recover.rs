//! `tagship-host recover`: after a crash, the local names stand again for what was proven, before anything starts.
//!
//! Services that a boot starts run whatever their names stand for. Where a deploy was cut off, that may be an image that
//! nobody has found healthy. So a unit that they are ordered after calls this first. It asks the image store alone and
//! gives up after a while, so that no service waits for ever; the journal is left as it is for `deploy`, which proves
//! health and answers.

use std::{future::Future, time::Duration};

use tokio::time::timeout;

use crate::{
    deploy::{self, Failure, InFlight, Store},
    journal::Journal,
    report::Urgency,
};

/// The longest that the services wait for it. Each name takes milliseconds; the engine's own start the rest.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is to be said about it.
#[derive(Debug)]
pub struct Told {
    /// A line for each name that was moved, or could not be.
    pub lines: Vec<(Urgency, String)>,
    /// No name is left where it should not be.
    pub all_back: bool,
}

/// The deploy that was cut off, if one was and had not ended.
pub fn left_over(journal: &Journal) -> Option<&InFlight> {
    let current = journal.current().filter(|current| current.verdict.is_none())?;
    current.entry.as_ref()
}

/// Puts back the names that the deploy may have moved.
pub async fn run<S: Store>(store: impl Future<Output = Result<S, Failure>>, entry: &InFlight) -> Told {
    let work = async { Ok::<_, Failure>(deploy::names_back(&store.await?, entry).await) };
    let moved = match timeout(PATIENCE, work).await {
        Ok(Ok(moved)) => moved,
        Ok(Err(failure)) => return nothing(&failure.reason),
        Err(_) => return nothing(&format!("the engine has not answered within {} s", PATIENCE.as_secs())),
    };
    let all_back = moved.iter().all(|name| name.outcome.is_ok());
    let lines = moved.into_iter().map(|moved| match moved.outcome {
        Ok(Some(image)) => (Urgency::Notice, format!("{} stands for image {image} again", moved.name)),
        Ok(None) => (Urgency::Notice, format!("{} stands for nothing again: nothing was proven", moved.name)),
        Err(failure) => (Urgency::Error, format!("{} could not be put back: {}", moved.name, failure.reason)),
    });
    Told { lines: lines.collect(), all_back }
}

fn nothing(why: &str) -> Told {
    let line = format!("the local names could not be put back: {why}; services may start with an unproven image");
    Told { lines: vec![(Urgency::Error, line)], all_back: false }
}
