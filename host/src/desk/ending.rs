//! What a deploy's end means: what is remembered of it, whose fault it was, and the verdict.

use jiff::Timestamp;
use tagship_core::{
    handoff::status::{Outcome, Status},
    reference::Digest,
};

use super::{
    Desk, Host, Order,
    words::{self, service, unproven, words},
};
use crate::{
    config::ServiceName,
    deploy::{Ended, ImageId, Left, Role, Verdict, Was},
    history::{self, Proven},
    journal::Current,
    trust::Rejected,
    verify::Approved,
};

impl<H: Host> Desk<'_, H> {
    /// Words the end of the deploy in flight, and remembers what it has proven and how it ended, in this order.
    pub(super) fn settle(&mut self, order: &Order, digest: Option<Digest>, ended: Ended) -> Status {
        let status = self.status(order, digest, &ended);
        if ended.verdict == Verdict::RolledBack
            && let Some(rejected) = self.blamed(&ended)
        {
            self.kept(|desk| desk.history.reject(&desk.dir, rejected));
        }
        let mut remembered = true;
        if ended.verdict == Verdict::Deployed
            && let Some(Current { release, entry, .. }) = self.journal.current().cloned()
        {
            remembered = match (release, ended.image) {
                (Some((release, evidence)), Some(image)) => {
                    let proven = Proven { release, image, evidence, at: Timestamp::now() };
                    self.kept(|desk| desk.history.prove(&desk.dir, proven, entry))
                }
                _ => self.kept(|desk| desk.history.went_back(&desk.dir, entry)),
            };
        }
        // What was proven and could not be written is left in flight: the next run finds that, and writes it.
        if remembered {
            self.kept(|desk| desk.journal.ended(&status));
        }
        status
    }

    /// The image that a rollback speaks against: it did not get well, and what was there before then did, on the same
    /// services. Where one of them was not well before either, or where the time, the engine or the disk was lacking,
    /// nobody is blamed.
    pub(super) fn blamed(&self, ended: &Ended) -> Option<Rejected> {
        let Current { release, entry, .. } = self.journal.current()?;
        let ((release, _), cause) = (release.as_ref()?, ended.cause.as_ref()?);
        // Not where systemd ended the restart, or somebody replaced the container: that may have any reason.
        let its_own = matches!(cause.kind.as_str(), "unhealthy" | "container-exited");
        let mut services = entry.iter().flat_map(|entry| &entry.services);
        if !its_own || services.any(|service| matches!(service.was, Was::Failing)) {
            return None;
        }
        let (digest, tag, reason) = (release.digest, release.tag.clone(), cause.reason.clone());
        Some(Rejected { digest, tag, at: Timestamp::now(), reason })
    }

    /// Whether something runs again that no deploy here has proven.
    fn is_unproven(&self, ended: &Ended) -> bool {
        let proven = |image: &ImageId| self.history.proven().iter().any(|proven| proven.image == *image);
        let again = ended.services.iter().filter(|end| end.role == Role::Service && end.state == Left::Restored);
        again.filter_map(|end| end.image.as_ref()).any(|image| !proven(image))
    }

    pub(super) fn unchanged(
        &mut self,
        order: &Order,
        approved: Approved,
        image: ImageId,
        unchecked: &[&ServiceName],
    ) -> Status {
        let Approved { release, verified } = approved;
        let digest = Some(release.digest);
        let reason = words::unchanged(&release.tag, unchecked);
        let proven = Proven { release, image, evidence: verified.evidence().clone(), at: Timestamp::now() };
        let status = Status::new(Outcome::Unchanged, "unchanged", &reason);
        let status = Status { digest, previous_digest: self.history.running_digest(), ..self.dated(order, status) };
        self.kept(|desk| desk.history.prove(&desk.dir, proven, None));
        status
    }

    /// Adds a verdict to the history, and tells it to the system journal.
    pub(super) fn conclude(&mut self, order: &Order, status: &Status) {
        let verdict = history::Verdict { time: Timestamp::now(), by: order.by, status: status.clone() };
        self.host.verdict(&self.app, &verdict);
        self.kept(|desk| desk.history.conclude(&desk.dir, verdict));
    }

    pub(super) fn dated(&self, order: &Order, status: Status) -> Status {
        Status {
            tag: Some(order.asked.clone()),
            request: order.request,
            started: Some(order.started),
            finished: Some(Timestamp::now()),
            ..status
        }
    }

    pub(super) fn status(&self, order: &Order, digest: Option<Digest>, ended: &Ended) -> Status {
        let outcome = match ended.verdict {
            Verdict::Deployed => Outcome::Deployed,
            Verdict::RolledBack => Outcome::RolledBack,
            Verdict::Failed => Outcome::Failed,
            Verdict::Refused => Outcome::Refused,
            Verdict::Interrupted => Outcome::Interrupted,
        };
        let (kind, reason) = match &ended.cause {
            Some(cause) if outcome == Outcome::RolledBack && self.is_unproven(ended) => {
                (cause.kind.as_str(), words(&unproven(cause), &ended.broken))
            }
            Some(cause) => (cause.kind.as_str(), words(cause, &ended.broken)),
            None => ("deployed", words::success(&order.asked, &ended.services)),
        };
        Status {
            digest,
            previous_digest: self.history.running_digest(),
            services: ended.services.iter().map(service).collect(),
            ..self.dated(order, Status::new(outcome, kind, &reason))
        }
    }
}
