//! `tagship-host deploy APP --retry TAG`: a version that was rejected here is tried again, because something else was to
//! blame.

use tagship_core::{handoff::status::Status, reference::Tag};

use crate::{
    answer::Progress,
    config::Settings,
    desk::{self, Desk, Host, Order},
    report::Told,
    trust::judge::Authority,
    verify::{self, Denied},
};

/// Deploys a version by the rules that hold for requests, whatever was found before. Returns how that ended: if well, it
/// is rejected no longer.
pub async fn run<H: Host>(desk: &mut Desk<'_, H>, settings: &Settings, tag: &Tag) -> Status {
    let told = Told::new(Progress::none());
    let order = Order::of_operator(tag.clone());
    if let Err(refusal) = desk.make_way(settings, &told).await {
        return desk.refuse(&order, refusal);
    }
    told.tell("verify", "retry", &format!("{tag} is tried again, whatever was found before"));
    let approved = async {
        let registry = desk.host().registry(settings).await?;
        let (trust, asked) = (&desk.history().trust, (tag, Authority::Retry));
        let approved = verify::approve_tag(settings, trust, &registry, asked, order.started).await?;
        Ok::<_, Denied>((approved, registry))
    };
    match approved.await {
        Ok((approved, registry)) => desk.deploy(settings, &order, (approved, Some(&registry)), &told).await,
        Err(denied) => desk.refuse(&order, desk::refusal(&denied)),
    }
}
