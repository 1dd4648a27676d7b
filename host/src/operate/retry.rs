//! `tagship-host deploy APP --retry TAG`: a version that was rejected here is tried again, because something else was to
//! blame.

use jiff::Timestamp;
use tagship_core::{handoff::status::Status, reference::Tag};

use crate::{
    answer::Progress,
    config::Settings,
    desk::{self, Desk, Host, Order},
    report::Told,
    state_dir::StateError,
    verify,
};

/// Forgets what spoke against the version, and deploys it by the rules that hold for requests. Returns how that ended.
pub async fn run<H: Host>(desk: &mut Desk<'_, H>, settings: &Settings, tag: &Tag) -> Result<Status, StateError> {
    let told = Told::new(Progress::none());
    let order = Order { request: None, asked: tag.clone(), started: Timestamp::now() };
    if let Err(failure) = desk.make_way(settings, &told).await {
        return Ok(desk.refuse(&order, desk::in_the_way(&failure)));
    }
    match desk.forgive(tag)? {
        true => told.tell("verify", "retry", &format!("{tag} was rejected here; it is tried again")),
        false => told.tell("verify", "retry", &format!("{tag} was not rejected here; it is deployed as any other")),
    }
    let approved = async {
        let registry = desk.host().registry(settings).await?;
        verify::approve_retry(settings, &desk.history().trust, &registry, tag, order.started).await
    };
    Ok(match approved.await {
        Ok(approved) => desk.deploy(settings, &order, approved, &told).await,
        Err(denied) => desk.refuse(&order, desk::refusal(&denied)),
    })
}
