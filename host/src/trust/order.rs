//! Which of two releases is the newer one.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};
use semver::Version;
use tagship_core::reference::Tag;

use super::{Refusal, Release};

/// How far a signed time may lie ahead: clocks of runner and host differ a little.
const LEEWAY: SignedDuration = SignedDuration::from_mins(5);

/// How a release stands to another.
///
/// Semantic versions are ordered by their precedence (semver 2.0.0, clause 11), with or without a leading `v`. If either
/// is none, the signed times decide; without those, or where two images have the same, there is no order. The same tag on
/// the same digest is always equal.
pub fn compare(new: &Release, old: &Release, now: Timestamp) -> Result<Option<Ordering>, Refusal> {
    if let (Some(new), Some(old)) = (version(&new.tag), version(&old.tag)) {
        return Ok(Some(new.cmp_precedence(&old)));
    }
    if new.digest == old.digest && new.tag == old.tag {
        return Ok(Some(Ordering::Equal));
    }
    let (Some(created), Some(before)) = (new.created, old.created) else { return Ok(None) };
    if created.duration_since(now) > LEEWAY {
        return Err(Refusal::FromTheFuture { asked: new.tag.clone(), created });
    }
    // Times are of whole seconds, in one of which two images can be signed.
    let tells = |order: &Ordering| order.is_ne() || new.tag == old.tag || new.digest == old.digest;
    Ok(Some(created.cmp(&before)).filter(tells))
}

/// Whether a tag is a semantic version at or above the floor.
pub fn at_least(tag: &Tag, floor: &Tag) -> bool {
    match (version(tag), version(floor)) {
        (Some(version), Some(floor)) => version.cmp_precedence(&floor).is_ge(),
        _ => tag == floor,
    }
}

/// Whether a tag is a semantic version.
pub fn is_version(tag: &Tag) -> bool {
    version(tag).is_some()
}

/// Orders waiting tags before anything is verified: semantic versions by precedence, above all other tags.
pub fn newer_request(a: &Tag, b: &Tag) -> Ordering {
    match (version(a), version(b)) {
        (Some(a), Some(b)) => a.cmp_precedence(&b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

fn version(tag: &Tag) -> Option<Version> {
    let text = tag.as_str();
    Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tagship_core::reference::Digest;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn release(tag: &str, created: Option<i64>) -> Release {
        Release {
            tag: tag.parse().unwrap(),
            digest: Digest::of(tag.as_bytes()),
            created: created.map(|second| Timestamp::from_second(second).unwrap()),
            commit: None,
            signed: created.is_some(),
        }
    }

    #[test]
    fn semantic_versions_are_ordered_by_precedence() {
        for (new, old, expected) in [
            ("v0.2.9", "v0.2.8", Ordering::Greater),
            ("v0.2.10", "v0.2.9", Ordering::Greater),
            ("0.2.9", "v0.2.9", Ordering::Equal),
            ("v1.0.0-rc.1", "v1.0.0", Ordering::Less),
            ("v1.0.0-rc.11", "v1.0.0-rc.2", Ordering::Greater),
            ("v9.9.9", "v10.0.0", Ordering::Less),
        ] {
            // Signed times that say the opposite do not count.
            let compared = compare(&release(new, Some(1)), &release(old, Some(2)), now());
            assert_eq!(compared, Ok(Some(expected)), "{new} {old}");
        }
    }

    #[test]
    fn other_tags_are_ordered_by_their_signed_time() {
        for (new, old, expected) in [
            (("nightly", Some(2)), ("nightly-a", Some(1)), Some(Ordering::Greater)),
            (("nightly", Some(1)), ("v1.0.0", Some(2)), Some(Ordering::Less)),
            (("v1.0.0", Some(2)), ("nightly", Some(1)), Some(Ordering::Greater)),
            (("v1.0", None), ("v1.0.0", Some(1)), None),
            (("nightly", Some(1)), ("other", None), None),
            (("nightly", Some(1)), ("other", Some(1)), None),
            (("nightly", Some(1)), ("v1.0.0", Some(1)), None),
            (("nightly", None), ("nightly", None), Some(Ordering::Equal)),
        ] {
            assert_eq!(compare(&release(new.0, new.1), &release(old.0, old.1), now()), Ok(expected), "{new:?} {old:?}");
        }
    }

    /// The table in docs/host.md, each row.
    #[test]
    fn the_manual_says_what_comes_after_what() {
        const MANUAL: &str = include_str!("../../../docs/host.md");
        let side = |cell: &str| {
            let tag = cell.split('`').nth(1).unwrap();
            let hour =
                cell.split_once("signed at ").map(|(_, time)| time.split_once(':').unwrap().0.parse::<i64>().unwrap());
            release(tag, hour.map(|hour| NOW - 86_400 + hour * 3600))
        };
        let (_, table) = MANUAL.split_once("| asked for | the mark | so it is | because |").unwrap();
        let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
        assert!(rows.len() > 10);
        for row in rows {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let expected = match cells[3] {
                "newer" => Some(Ordering::Greater),
                "equal" => Some(Ordering::Equal),
                "older" => Some(Ordering::Less),
                "unordered" => None,
                other => panic!("{other}"),
            };
            assert_eq!(compare(&side(cells[1]), &side(cells[2]), now()), Ok(expected), "{row}");
        }
    }

    #[test]
    fn a_time_to_come_is_refused_where_it_counts() {
        let ahead = |tag, by| release(tag, Some(NOW + by));
        let old = release("old", Some(1));
        assert_eq!(compare(&ahead("new", 300), &old, now()), Ok(Some(Ordering::Greater)));
        assert!(matches!(compare(&ahead("new", 301), &old, now()), Err(Refusal::FromTheFuture { .. })));
        assert!(compare(&ahead("v2.0.0", 301), &release("v1.0.0", Some(1)), now()).is_ok());
    }

    #[test]
    fn the_floor_holds_for_versions_and_bars_other_tags() {
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        for (asked, floor, expected) in [
            ("v0.2.0", "v0.2.0", true),
            ("0.2.1", "v0.2.0", true),
            ("v0.2.0-rc.1", "v0.2.0", false),
            ("v0.1.9", "v0.2.0", false),
            ("nightly", "v0.2.0", false),
            ("v9", "v0.2.0", false),
        ] {
            assert_eq!(at_least(&tag(asked), &tag(floor)), expected, "{asked}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_two_is_the_reverse_of_the_other_two(
            a in "(v?[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}(-[a-z]{1,3})?|[a-z]{1,5})", at in proptest::option::of(0..NOW),
            b in "(v?[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}(-[a-z]{1,3})?|[a-z]{1,5})", bt in proptest::option::of(0..NOW),
        ) {
            let (a, b) = (release(&a, at), release(&b, bt));
            let forth = compare(&a, &b, now()).unwrap();
            let back = compare(&b, &a, now()).unwrap();
            prop_assert_eq!(forth, back.map(Ordering::reverse));
        }
    }
}
