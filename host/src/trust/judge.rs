//! Whether a named, verified image may follow what was proven here before.

use std::cmp::Ordering;

use jiff::Timestamp;
use tagship_core::reference::Tag;

use super::{Refusal, Release, TrustState, order};
use crate::config::{App, Downgrade};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// An ordinary request: it may only go forward.
    Request,
    /// The operator on the host, who wants something tried again: a request that what was rejected does not bind.
    Retry,
    /// The operator on the host, or a rollback request signed by a trusted key: it may go anywhere above the floor.
    Rollback,
}

/// The ruling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It may be deployed.
    Allow,
    /// It may be deployed if the registry's moving tag names the same digest; otherwise this is why not.
    AllowIfMoving(Refusal),
}

/// What is configured of the order of versions.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// For which app.
    pub app: &'a App,
    /// What is done about a version that is not newer.
    pub downgrade: Downgrade,
    /// The administrator's lowest version.
    pub floor: Option<&'a Tag>,
}

/// Rules on a release. The floor binds everybody; all else yields to a deliberate rollback.
pub fn judge(
    release: &Release,
    state: &TrustState,
    authority: Authority,
    Rules { app, downgrade, floor }: Rules<'_>,
    now: Timestamp,
) -> Result<Ruling, Refusal> {
    let app = || app.clone();
    if let Some(floor) = floor
        && !order::at_least(&release.tag, floor)
    {
        return Err(Refusal::BelowFloor { asked: release.tag.clone(), floor: floor.clone() });
    }
    if let (Authority::Request, Some(rejected)) = (authority, state.rejection(release.digest)) {
        let (asked, at, reason) = (release.tag.clone(), rejected.at, rejected.reason.clone());
        return Err(Refusal::Rejected { app: app(), asked, at, reason });
    }
    let (Authority::Request | Authority::Retry, Some(mark)) = (authority, state.mark()) else {
        return Ok(Ruling::Allow);
    };
    let asked = || release.tag.clone();
    let against = match order::compare(release, mark, now)? {
        Some(Ordering::Greater) => return Ok(Ruling::Allow),
        Some(Ordering::Equal) if release.digest != mark.digest => {
            Refusal::Reused { asked: asked(), known: mark.digest, digest: release.digest }
        }
        Some(Ordering::Equal) if state.is_held() => Refusal::Held { app: app(), asked: asked() },
        Some(Ordering::Equal) => return Ok(Ruling::Allow),
        Some(Ordering::Less) => Refusal::Downgrade { app: app(), asked: asked(), mark: mark.tag.clone() },
        None => Refusal::Unordered { asked: asked(), mark: mark.tag.clone() },
    };
    match downgrade {
        Downgrade::Refuse => Err(against),
        Downgrade::MovingTag => Ok(Ruling::AllowIfMoving(against)),
        Downgrade::Allow => Ok(Ruling::Allow),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tagship_core::{explain::Explain, reference::Digest};

    use super::*;
    use crate::trust::Rejected;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn release(tag: &str) -> Release {
        rebuilt(tag, tag)
    }

    fn rebuilt(tag: &str, content: &str) -> Release {
        let digest = Digest::of(content.as_bytes());
        Release { tag: tag.parse().unwrap(), digest, created: None, commit: None, signed: true }
    }

    fn after(tags: &[&str]) -> TrustState {
        let mut state = TrustState::default();
        for tag in tags {
            state.proven(release(tag), now());
        }
        state
    }

    fn rules<'a>(app: &'a App, downgrade: Downgrade) -> Rules<'a> {
        Rules { app, downgrade, floor: None }
    }

    fn ruled(state: &TrustState, asked: &Release, authority: Authority, policy: Downgrade) -> &'static str {
        match judge(asked, state, authority, rules(&"demo".parse().unwrap(), policy), now()) {
            Ok(Ruling::Allow) => "allow",
            Ok(Ruling::AllowIfMoving(_)) => "if moving",
            Err(refusal) => refusal.kind(),
        }
    }

    #[test]
    fn rulings() {
        use Authority::{Request, Rollback};
        for (proven, asked, refuse, moving, allow) in [
            (&[][..], release("v0.1.0"), "allow", "allow", "allow"),
            (&[][..], release("nightly"), "allow", "allow", "allow"),
            (&["v0.2.0"][..], release("v0.3.0"), "allow", "allow", "allow"),
            (&["v0.2.0"][..], release("v0.2.0"), "allow", "allow", "allow"),
            (&["v0.2.0"][..], release("v0.1.0"), "downgrade", "if moving", "allow"),
            (&["v0.2.0"][..], release("nightly"), "unordered", "if moving", "allow"),
            (&["v0.2.0"][..], rebuilt("v0.2.0", "other"), "version-reused", "if moving", "allow"),
            // Rolled back from v0.2.0 to v0.1.0: the mark stays, what it names is held, only above it is free.
            (&["v0.1.0", "v0.2.0", "v0.1.0"][..], release("v0.2.0"), "held", "if moving", "allow"),
            (&["v0.1.0", "v0.2.0", "v0.1.0"][..], release("v0.1.5"), "downgrade", "if moving", "allow"),
            (&["v0.1.0", "v0.2.0", "v0.1.0"][..], release("v0.2.1"), "allow", "allow", "allow"),
            // The hold ends with the next version.
            (&["v0.2.0", "v0.1.0", "v0.3.0"][..], release("v0.3.0"), "allow", "allow", "allow"),
            (&["v0.2.0", "v0.1.0", "v0.3.0"][..], release("v0.2.0"), "downgrade", "if moving", "allow"),
        ] {
            let state = after(proven);
            let named = format!("{} after {proven:?}", asked.tag);
            assert_eq!(ruled(&state, &asked, Request, Downgrade::Refuse), refuse, "{named}, refuse");
            assert_eq!(ruled(&state, &asked, Request, Downgrade::MovingTag), moving, "{named}, moving-tag");
            assert_eq!(ruled(&state, &asked, Request, Downgrade::Allow), allow, "{named}, allow");
            assert_eq!(ruled(&state, &asked, Rollback, Downgrade::Refuse), "allow", "{named}, by the operator");
        }
    }

    #[test]
    fn what_was_rejected_is_for_the_operator_alone() {
        let mut state = after(&["v0.1.0"]);
        let bad = release("v0.2.0");
        state.reject(Rejected { digest: bad.digest, tag: bad.tag.clone(), at: now(), reason: "web is sick".into() });
        assert_eq!(ruled(&state, &release("v0.0.9"), Authority::Retry, Downgrade::Refuse), "downgrade");
        for policy in [Downgrade::Refuse, Downgrade::MovingTag, Downgrade::Allow] {
            assert_eq!(ruled(&state, &bad, Authority::Request, policy), "rejected");
            assert_eq!(ruled(&state, &bad, Authority::Rollback, policy), "allow");
            assert_eq!(ruled(&state, &bad, Authority::Retry, policy), "allow");
            assert_eq!(ruled(&state, &rebuilt("v0.2.0", "mended"), Authority::Request, policy), "allow");
        }
    }

    #[test]
    fn the_floor_binds_everybody() {
        let (app, floor) = ("demo".parse().unwrap(), "v0.2.0".parse().unwrap());
        for authority in [Authority::Request, Authority::Rollback] {
            for asked in ["v0.1.9", "nightly"] {
                let rules = Rules { floor: Some(&floor), ..rules(&app, Downgrade::Allow) };
                let ruling = judge(&release(asked), &TrustState::default(), authority, rules, now());
                assert_eq!(ruling.unwrap_err().kind(), "below-floor");
            }
        }
    }

    proptest! {
        /// Whatever is asked for in whatever order, ordinary requests alone never take the host below its mark.
        #[test]
        fn requests_alone_never_go_back(patches in proptest::collection::vec(0u8..20, 1..30)) {
            let mut state = TrustState::default();
            let mut highest = 0;
            let app = "demo".parse().unwrap();
            for patch in patches {
                let asked = release(&format!("v1.0.{patch}"));
                if judge(&asked, &state, Authority::Request, rules(&app, Downgrade::Refuse), now()) == Ok(Ruling::Allow) {
                    prop_assert!(patch >= highest);
                    highest = patch;
                    state.proven(asked, now());
                }
            }
        }
    }
}
