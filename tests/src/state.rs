//! What runs on the host at one moment, to compare with another: "nothing was touched" is two equal states.

use std::collections::BTreeMap;

use crate::SERVICES;

/// One service's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Container id: a restart makes a new one.
    pub container: String,
    /// Id of the image the container runs.
    pub image: String,
    /// `healthy`, `starting`, `unhealthy`, or empty without a healthcheck.
    pub health: String,
}

/// Everything a refused or rolled back release must leave alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// By service name.
    pub services: BTreeMap<String, Service>,
    /// What the local names stand for that the services run, and so would run after the next restart: image ids.
    pub names: BTreeMap<String, String>,
    /// The digest that the registry's moving tag names.
    pub moving: Option<String>,
}

impl State {
    /// The one image that all services run.
    ///
    /// # Panics
    /// When they run different ones, or none runs.
    pub fn image(&self) -> &str {
        let mut images: Vec<&str> = self.services.values().map(|s| s.image.as_str()).collect();
        images.sort_unstable();
        images.dedup();
        assert!(images.len() == 1, "not one image on all services: {self:#?}");
        images[0]
    }

    /// Requires every service of the stack to be there and healthy, all on one image.
    pub fn healthy(self) -> Self {
        let missing: Vec<_> = SERVICES.iter().filter(|name| !self.services.contains_key(**name)).collect();
        assert!(missing.is_empty(), "{missing:?} do not run: {self:#?}");
        self.image();
        for (name, service) in &self.services {
            assert!(service.health == "healthy", "{name} is {}: {self:#?}", service.health);
        }
        self
    }
}
