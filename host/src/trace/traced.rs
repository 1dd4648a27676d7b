//! The ports of a deploy with a clock beside them: each call is passed on as it is, and leaves an interval in the trace.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use tagship_core::{
    reference::{Digest, Repository, Tag},
    registry::RegistryError,
    signature::{CheckError, Expectation, Policy, Verified},
};

use super::{Category, Trace};
use crate::{
    config::ServiceName,
    deploy::{
        ContainerFacts, Containers, Contents, Failure, ImageId, Leave, LocalName, Proof, Pulled, Room, Store,
        UnitFacts, Units, Wanted,
    },
    verify::Registry,
};

/// An adapter whose calls are traced; without a trace, the adapter alone.
#[derive(Debug)]
pub struct Traced<T> {
    inner: T,
    trace: Trace,
}

impl<T> Traced<T> {
    /// Has the adapter's calls traced.
    pub fn new(inner: T, trace: &Trace) -> Self {
        Self { inner, trace: trace.clone() }
    }

    /// The adapter itself.
    pub fn inner(&self) -> &T {
        &self.inner
    }
}

impl<R: Registry> Registry for Traced<R> {
    async fn resolve(&self, tag: &Tag) -> Result<Option<Digest>, RegistryError> {
        let _span = self.trace.span(Category::Registry, || format!("resolve {tag}"));
        self.inner.resolve(tag).await
    }

    async fn contents(&self, digest: Digest) -> Result<Option<Contents>, RegistryError> {
        let _span = self.trace.span(Category::Registry, || format!("contents {digest}"));
        self.inner.contents(digest).await
    }

    async fn check(&self, expected: &Expectation, policy: &Policy) -> Result<Verified, CheckError> {
        let _span = self.trace.span(Category::Registry, || format!("check {}", expected.digest));
        self.inner.check(expected, policy).await
    }
}

impl<U: Units> Units for Traced<U> {
    type Error = U::Error;

    async fn inspect(&self, service: &ServiceName) -> Result<UnitFacts, U::Error> {
        let _span = self.trace.span(Category::Systemd, || format!("inspect {service}"));
        self.inner.inspect(service).await
    }

    async fn restart(&self, service: &ServiceName) -> Result<(), U::Error> {
        let _span = self.trace.span(Category::Systemd, || format!("restart {service}"));
        self.inner.restart(service).await
    }

    async fn stop(&self, service: &ServiceName) -> Result<(), U::Error> {
        let _span = self.trace.span(Category::Systemd, || format!("stop {service}"));
        self.inner.stop(service).await
    }

    async fn tail(&self, service: &ServiceName, since: Option<SystemTime>) -> Vec<String> {
        let _span = self.trace.span(Category::Systemd, || format!("read the log of {service}"));
        self.inner.tail(service, since).await
    }
}

impl<S: Store> Store for Traced<S> {
    type Error = S::Error;

    async fn rooms(&self) -> Result<Vec<Room>, S::Error> {
        let _span = self.trace.span(Category::Engine, || "room for images".to_owned());
        self.inner.rooms().await
    }

    async fn layers(&self) -> Result<BTreeSet<Digest>, S::Error> {
        let _span = self.trace.span(Category::Engine, || "list layers".to_owned());
        self.inner.layers().await
    }

    async fn pull(&self, verified: &Verified, progress: &(dyn Fn(&str) + Sync)) -> Result<Pulled, S::Error> {
        let _span = self.trace.span(Category::Engine, || format!("pull {}", verified.digest()));
        self.inner.pull(verified, progress).await
    }

    async fn resolve(&self, name: &LocalName) -> Result<Option<ImageId>, S::Error> {
        let _span = self.trace.span(Category::Engine, || format!("resolve {name}"));
        self.inner.resolve(name).await
    }

    async fn has(&self, image: &ImageId) -> Result<bool, S::Error> {
        let _span = self.trace.span(Category::Engine, || format!("look for image {}", image.short()));
        self.inner.has(image).await
    }

    async fn digests(&self, image: &ImageId, of: &Repository) -> Result<Vec<Digest>, S::Error> {
        let _span = self.trace.span(Category::Engine, || format!("digests of image {}", image.short()));
        self.inner.digests(image, of).await
    }

    async fn keep(&self, image: &ImageId) -> Result<(), S::Error> {
        let _span = self.trace.span(Category::Engine, || format!("keep image {}", image.short()));
        self.inner.keep(image).await
    }

    async fn place(&self, leave: Leave<'_>, name: &LocalName) -> Result<(), S::Error> {
        let _span = self.trace.span(Category::Engine, || format!("name {name}"));
        self.inner.place(leave, name).await
    }

    async fn forget(&self, name: &LocalName) -> Result<(), S::Error> {
        let _span = self.trace.span(Category::Engine, || format!("forget {name}"));
        self.inner.forget(name).await
    }
}

impl<C: Containers> Containers for Traced<C> {
    type Error = C::Error;

    async fn find(&self, service: &ServiceName) -> Result<Option<ContainerFacts>, C::Error> {
        let _span = self.trace.span(Category::Engine, || format!("find the container of {service}"));
        self.inner.find(service).await
    }

    async fn prove(&self, want: Wanted<'_>) -> Result<Proof, Failure> {
        let _span = self.trace.span(Category::Wait, || format!("health of {}", want.service));
        self.inner.prove(want).await
    }

    async fn hold(&self, proofs: &[Proof], window: Duration) -> Result<(), Failure> {
        let _span = self.trace.span(Category::Settle, || "nothing changes".to_owned());
        self.inner.hold(proofs, window).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, digest, image_of};

    #[tokio::test]
    async fn a_call_is_passed_on_and_leaves_an_interval() {
        let temp = tempfile::tempdir().unwrap();
        let trace = Trace::to(Some(temp.path().join("trace.json")));
        let world = Traced::new(World::default(), &trace);
        let (web, image) = ("web".parse().unwrap(), image_of(digest("old")));
        let facts = world.inspect(&web).await.unwrap();
        assert_eq!(facts, world.inner().inspect(&web).await.unwrap());
        assert_eq!(world.has(&image).await.unwrap(), world.inner().has(&image).await.unwrap());
        world.hold(&[], Duration::ZERO).await.unwrap();
        let seen: Vec<_> = trace.intervals().into_iter().map(|interval| (interval.category, interval.name)).collect();
        let expected = [
            (Category::Systemd, "inspect web".to_owned()),
            (Category::Engine, format!("look for image {}", image.short())),
            (Category::Settle, "nothing changes".to_owned()),
        ];
        assert_eq!(seen, expected);
    }
}
