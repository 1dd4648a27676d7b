//! The world outside, as one app's deploys need it: whoever has it makes the adapters. What they are for is not known here.

use std::future::Future;

use crate::{
    config::{App, Settings},
    deploy::{Containers, Failure, ImageId, Store, Units},
    history,
    state_dir::StateDir,
    stop::Stop,
    verify::{Denied, Registry},
};

/// The world outside, as one app's deploys need it: one place makes the adapters.
pub trait Host: Sized + Sync {
    /// The registry.
    type Registry: Registry;
    /// The service manager.
    type Units: Units;
    /// The image store.
    type Store: Store;
    /// The containers.
    type Containers: Containers;

    /// Connects to the configured image's registry.
    fn registry(&self, settings: &Settings) -> impl Future<Output = Result<Self::Registry, Denied>>;

    /// Connects to the service manager and the engine.
    fn adapters(&self, settings: &Settings) -> impl Future<Output = Result<AdaptersOf<Self>, Failure>>;

    /// Whether the program is to end.
    fn stop(&self) -> &Stop;

    /// Tells a verdict to where the app's user cannot change it.
    fn verdict(&self, app: &App, verdict: &history::Verdict);

    /// Tells a change of the mark to there, too.
    fn marked(&self, app: &App, marked: &history::Marked);

    /// Removes what the store need not keep any longer, now that `running` is proven. Returns how many images went. `dir`
    /// tells whether other apps are at work, who use the same store.
    fn tidy(
        &self,
        store: &Self::Store,
        settings: &Settings,
        running: &ImageId,
        dir: &StateDir,
    ) -> impl Future<Output = Result<usize, Failure>>;
}

/// The ways to the service manager and the engine.
pub struct Adapters<U, S, C> {
    /// The service manager.
    pub units: U,
    /// The image store.
    pub store: S,
    /// The containers.
    pub containers: C,
}

/// The adapters of a host.
pub type AdaptersOf<H> = Adapters<<H as Host>::Units, <H as Host>::Store, <H as Host>::Containers>;
