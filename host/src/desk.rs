//! One deploy from its approval to its verdict, whoever asked for it: journal, deploy, history, in this order.
//!
//! How a request comes in and how its answer goes out is `deploy_command`'s; the operator's side is in `operate`.

mod ending;
mod mark;
mod outside;
mod words;

use std::collections::BTreeSet;

use jiff::Timestamp;
use tagship_core::{
    handoff::{
        names::RequestId,
        status::{Outcome, Status},
    },
    reference::{Digest, Tag},
};

use crate::{
    config::{App, ServiceName, Settings},
    deploy::{
        self, Candidate, Containers, Ended, Failure, Ground, HealthState, ImageId, InFlight, Store, Units, Verdict,
    },
    history::{By, History},
    journal::{Current, Journal},
    report::{self, Told},
    state_dir::{StateDir, StateError},
    stop::Stop,
    verify::{self, Approved, Registry},
};

pub use outside::{Adapters, AdaptersOf, Host};
pub use words::refusal;
use words::{in_the_way, words};

/// What is remembered of one app, and who may change it: the holder of the app's lock.
pub struct Desk<'h, H> {
    app: App,
    dir: StateDir,
    host: &'h H,
    journal: Journal,
    history: History,
    /// The last good deploy's image, from which on older ones may go.
    untidy: Option<(ImageId, Settings, Told)>,
}

/// Who asks for a deploy, and under which tag.
#[derive(Debug, Clone)]
pub struct Order {
    /// The request; none if the operator asks, or if it has its answer by now.
    pub request: Option<RequestId>,
    /// Who asks.
    pub by: By,
    /// The tag asked for.
    pub asked: Tag,
    /// When work on it began.
    pub started: Timestamp,
}

impl Order {
    /// The operator's word, from now on.
    pub fn of_operator(asked: Tag) -> Self {
        Self { request: None, by: By::Operator, asked, started: Timestamp::now() }
    }
}

impl<'h, H: Host> Desk<'h, H> {
    /// Opens what is remembered. The caller holds the lock.
    pub fn open(app: &App, dir: StateDir, host: &'h H) -> Result<Self, StateError> {
        let journal = Journal::open(dir.clone())?;
        let history = History::open(&dir)?;
        Ok(Self { app: app.clone(), dir, host, journal, history, untidy: None })
    }

    /// The world outside.
    pub fn host(&self) -> &'h H {
        self.host
    }

    /// What was proven here.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Ends what an earlier run left in the middle. Returns its request and its verdict; none if nothing was left.
    ///
    /// Call [`close`](Self::close) once the verdict has been told. After an error what was left is still there, and
    /// nothing new may begin.
    pub async fn recover(
        &mut self,
        settings: &Settings,
        told: &Told,
    ) -> Result<Option<(Option<RequestId>, Status)>, Failure> {
        if let Some(ended) = self.conclude_ended() {
            return Ok(Some(ended));
        }
        let Some(current) = self.journal.current().cloned() else { return Ok(None) };
        let order = self.order_of(&current);
        let order = Order { request: order.request.filter(|_| order.by == By::Request), ..order };
        let digest = current.release.as_ref().map(|(release, _)| release.digest);
        let status = match current.entry {
            None => {
                let status = self.untouched(&order, digest);
                self.kept(|desk| desk.journal.ended(&status));
                status
            }
            Some(entry) => {
                told.tell(
                    "recover",
                    "start",
                    "an earlier run was stopped in the middle of a deploy; ending that first",
                );
                let adapters = self.host.adapters(settings).await?;
                let revoked = self.history.signed_by(&settings.verify.revoked_keys);
                let ground = ground(settings, &adapters, &revoked, (told, self.host.stop()));
                let ended = deploy::recover(&ground, &mut self.journal, entry).await?;
                self.settle(&order, digest, ended)
            }
        };
        self.conclude(&order, &status);
        Ok(Some((order.request, status)))
    }

    /// Says how the deploy that an earlier run left has ended, if it had: that run was killed between writing it down and
    /// saying so, or between saying so and answering. Its request and its verdict.
    ///
    /// Call [`close`](Self::close) once the verdict has been told.
    pub fn conclude_ended(&mut self) -> Option<(Option<RequestId>, Status)> {
        let current = self.journal.current()?.clone();
        let verdict = current.verdict.clone()?;
        let order = self.order_of(&current);
        if self.history.last().is_none_or(|last| last.status != verdict) {
            self.conclude(&order, &verdict);
        }
        Some((order.request, verdict))
    }

    /// Whose word the deploy was that an earlier run left.
    fn order_of(&self, current: &Current) -> Order {
        let by = match current.request {
            // That it would be ended later was this request's verdict, its only one. What is ended now is nobody's.
            _ if current.postponed => By::Companion,
            Some(id) if self.verdict_of(id).is_some() => By::Companion,
            Some(_) => By::Request,
            None => By::Operator,
        };
        Order { request: current.request, by, asked: current.asked.clone(), started: current.started }
    }

    /// Makes ready for something new: ends what an earlier run left in the middle, and finds out what a version must not
    /// be below. Otherwise the refusal.
    pub async fn make_way(&mut self, settings: &Settings, told: &Told) -> Result<(), Status> {
        let recovered = self.recover(settings, told).await;
        if recovered.map_err(|failure| in_the_way("an interrupted deploy must be ended first", &failure))?.is_some() {
            self.close();
        }
        self.recall(settings, told).await
    }

    /// The verdict on a request whose deploy was stopped before its first effect.
    pub fn untouched(&self, order: &Order, digest: Option<Digest>) -> Status {
        Status { digest, ..self.dated(order, nothing_touched()) }
    }

    /// What would keep a deploy from beginning, as far as it shows without a request: a sentence for each.
    pub async fn obstacles(&self, settings: &Settings) -> Vec<String> {
        let mut obstacles: Vec<String> = verify::doubt(&settings.verify).into_iter().collect();
        let adapters = match self.host.adapters(settings).await {
            Ok(adapters) => adapters,
            Err(failure) => {
                obstacles.push(words(&failure, &[]));
                return obstacles;
            }
        };
        for name in settings.before.iter().chain(settings.all_services()) {
            let unit = adapters.units.inspect(name).await.map_err(|error| Failure::of(&error).at(name));
            if let Err(failure) = unit.and_then(|unit| deploy::check_loaded(name, &unit)) {
                obstacles.push(words(&failure, &[]));
            }
        }
        obstacles
    }

    /// Whether an earlier run left a deploy that has not been ended or told yet.
    pub fn has_left_over(&self) -> bool {
        self.journal.current().is_some()
    }

    /// The verdict on this request, if it is the last one that there was: whoever asked may not have been told yet.
    pub fn verdict_of(&self, request: RequestId) -> Option<&Status> {
        self.history.last().map(|last| &last.status).filter(|status| status.request == Some(request))
    }

    /// The request whose deploy was left over.
    pub fn in_flight(&self) -> Option<RequestId> {
        self.journal.current().and_then(|current| current.request)
    }

    /// The request whose deploy was left over without a verdict.
    pub fn unended(&self) -> Option<RequestId> {
        self.journal.current().filter(|current| current.verdict.is_none()).and_then(|current| current.request)
    }

    /// Leaves the deploy of this request, which cannot be ended now, for a later run. The request has a verdict by now,
    /// its only one.
    pub fn postpone(&mut self, request: Option<RequestId>) {
        self.kept(|desk| desk.journal.postpone(request));
    }

    /// Deploys what was approved, unless it runs already. `registry` is where it was approved by; none if that was done
    /// from what is kept here.
    pub async fn deploy(
        &mut self,
        settings: &Settings,
        order: &Order,
        (approved, registry): (Approved, Option<&H::Registry>),
        told: &Told,
    ) -> Status {
        let digest = Some(approved.release.digest);
        let status = match self.host.adapters(settings).await {
            Err(failure) => self.status(order, digest, &Ended::refused(failure)),
            Ok(adapters) => match self.running_image(&approved, settings, &adapters).await {
                Some((image, unchecked)) => self.unchanged(order, approved, image, &unchecked),
                None => self.deploy_with(settings, order, (approved, registry), &adapters, told).await,
            },
        };
        self.conclude(order, &status);
        status
    }

    /// Puts back what an earlier deploy found, verified or not: the operator's word.
    pub async fn put_back(&mut self, settings: &Settings, order: &Order, earlier: &InFlight, told: &Told) -> Status {
        let status = match self.host.adapters(settings).await {
            Err(failure) => self.status(order, None, &Ended::refused(failure)),
            Ok(adapters) => {
                self.begin(order, None);
                let revoked = self.history.signed_by(&settings.verify.revoked_keys);
                let ground = ground(settings, &adapters, &revoked, (told, self.host.stop()));
                let ended = deploy::put_back(&ground, &mut self.journal, earlier).await;
                self.settle(order, None, ended)
            }
        };
        self.conclude(order, &status);
        status
    }

    /// Notes a verdict that needed no deploy.
    pub fn refuse(&mut self, order: &Order, status: Status) -> Status {
        let status = self.dated(order, status);
        self.conclude(order, &status);
        status
    }

    /// Forgets the deploy in flight if it has ended: everybody has been told. What is left in the middle stays.
    pub fn close(&mut self) {
        if self.journal.current().is_some_and(|current| current.verdict.is_some()) {
            self.kept(|desk| desk.journal.finish());
        }
    }

    /// Removes what good deploys have made superfluous. Nobody waits for that: call it once the answers are out. Whether
    /// there was anything to look for.
    pub async fn tidy(&mut self) -> bool {
        let Some((image, settings, told)) = self.untidy.take() else { return false };
        let gone = async {
            let adapters = self.host.adapters(&settings).await?;
            self.host.tidy(&adapters.store, &settings, &image, &self.dir).await
        };
        match gone.await {
            Ok(0) => {}
            Ok(1) => told.tell("prune", "removed", "1 old image was removed"),
            Ok(gone) => told.tell("prune", "removed", &format!("{gone} old images were removed")),
            Err(failure) => told.tell("prune", "warning", &format!("old images stay: {}", failure.words())),
        }
        true
    }

    async fn deploy_with(
        &mut self,
        settings: &Settings,
        order: &Order,
        (approved, registry): (Approved, Option<&H::Registry>),
        adapters: &AdaptersOf<H>,
        told: &Told,
    ) -> Status {
        let digest = approved.release.digest;
        let tag = approved.release.tag.clone();
        self.begin(order, Some(&approved));
        let candidate = Candidate { verified: approved.verified, tag };
        let revoked = self.history.signed_by(&settings.verify.revoked_keys);
        let ground = ground(settings, adapters, &revoked, (told, self.host.stop()));
        // Where the registry does not say, the pull fails, and says why.
        let contents = async { registry?.contents(digest).await.ok()? };
        let ended = deploy::deploy(&ground, &mut self.journal, candidate, contents).await;
        let image = ended.image.clone().filter(|_| ended.verdict == Verdict::Deployed);
        let status = self.settle(order, Some(digest), ended);
        self.untidy = image.map(|image| (image, settings.clone(), told.clone())).or(self.untidy.take());
        status
    }

    fn begin(&mut self, order: &Order, approved: Option<&Approved>) {
        let current = Current {
            request: order.request,
            postponed: false,
            asked: order.asked.clone(),
            release: approved.map(|approved| (approved.release.clone(), approved.verified.evidence().clone())),
            started: order.started,
            entry: None,
            verdict: None,
        };
        // If this cannot be written, the deploy's own first record cannot either, and it is refused there.
        self.kept(|desk| desk.journal.begin(current));
    }

    /// The local image of a release, if it was proven here, every service runs it now, and would after its next start;
    /// and which of them have no healthcheck.
    async fn running_image<'s>(
        &self,
        approved: &Approved,
        settings: &'s Settings,
        Adapters { store, containers, .. }: &AdaptersOf<H>,
    ) -> Option<(ImageId, Vec<&'s ServiceName>)> {
        let proven = self.history.running().filter(|proven| proven.release.digest == approved.release.digest)?;
        let mut unchecked = Vec::new();
        for service in settings.all_services() {
            let container = containers.find(service).await.ok()??;
            if !container.running || !container.health.is_well() || container.image != proven.image {
                return None;
            }
            // A name that somebody moved or removed is put right by a deploy.
            let local = deploy::local_name(settings, service).ok()?;
            if store.resolve(&local).await.ok()? != Some(container.image) {
                return None;
            }
            if container.health == HealthState::None {
                unchecked.push(service);
            }
        }
        Some((proven.image.clone(), unchecked))
    }

    /// Does what can fail without changing what happened: it is said, and the answer still goes out. Whether it worked.
    fn kept(&mut self, write: impl FnOnce(&mut Self) -> Result<(), StateError>) -> bool {
        let written = write(self);
        if let Err(error) = &written {
            report::error(error);
        }
        written.is_ok()
    }
}

/// What is said of a request whose deploy was stopped before its first effect.
pub fn nothing_touched() -> Status {
    let reason = "the companion was stopped before anything was touched; request it anew";
    Status::new(Outcome::Interrupted, "interrupted", reason)
}

fn ground<'a, U, S, C>(
    settings: &'a Settings,
    Adapters { units, store, containers }: &'a Adapters<U, S, C>,
    revoked: &'a BTreeSet<ImageId>,
    (told, stop): (&'a Told, &'a Stop),
) -> Ground<'a, U, S, C> {
    Ground { settings, units, store, containers, revoked, report: told, stop }
}
