//! The order of versions: a table of what people write, and the laws any order must obey.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use proptest::prelude::*;
use windlass_packages::version::Version;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

#[test]
fn versions_sort_by_meaning() {
    let ascending = [
        "0",
        "0.0.0.1",
        "0.9",
        "1.0.0-0",
        "1.0-9",
        "1.0-10",
        "1.0-alpha",
        "1.0-alpha.1",
        "1.0-alpha.1.1",
        "1.0-alpha.beta",
        "1.0-beta.2",
        "1.0-beta.11",
        "1.0-beta.99999999999999999999999",
        "1.0-beta.100000000000000000000000",
        "1.0-beta-2",
        "1.0-rc1",
        "1.0",
        "1.0.0.1",
        "1.0.1-rc",
        "1.0.1",
        "1.2",
        "1.10",
        "2016.1.2",
        "2016.1.10",
        "20260102030405.0",
    ];
    for (i, low) in ascending.iter().enumerate() {
        for high in &ascending[i + 1..] {
            assert!(version(low) < version(high), "{low} < {high}");
            assert!(version(high) > version(low), "{high} > {low}");
        }
    }
}

#[test]
fn equal_versions_share_their_key_and_keep_their_text() {
    let equal = [
        ("1.0.0.0", "1.0.0"),
        ("1", "1.0"),
        ("2016.01.02", "2016.1.2"),
        ("1.0-beta.01", "1.0.0-beta.1"),
        ("1.0+build.5", "1.0"),
        ("1.0-rc+a", "1.0-RC+b"),
        ("1.0-000", "1.0-0"),
    ];
    for (left, right) in equal {
        assert_eq!(version(left), version(right));
        assert_eq!(version(left).key(), version(right).key());
        assert_eq!(version(left).to_string(), left);
    }
}

#[test]
fn what_is_no_version_is_refused_with_the_reason() {
    let long = format!("1.{}", "0".repeat(200));
    let bad = [
        "",
        "a",
        "1.",
        ".1",
        "1..2",
        "1.2.3.4.5",
        "1.0-",
        "1.0+",
        "1.0-a..b",
        "1.0-a_b",
        "1.0 ",
        "-1",
        "v1.0",
        "1.0-ä",
        "18446744073709551616",
        "1.0+a+b",
        &long,
    ];
    let texts: Vec<_> = bad
        .iter()
        .map(|text| text.parse::<Version>().unwrap_err())
        .map(|error| format!("{error}; {}", error.fix()))
        .collect();
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn a_version_is_a_string_in_json() {
    let json = serde_json::to_string(&version("1.02.0-Beta+7")).unwrap();
    assert_eq!(json, "\"1.02.0-Beta+7\"");
    assert_eq!(serde_json::from_str::<Version>(&json).unwrap(), version("1.2-beta"));
    assert!(serde_json::from_str::<Version>("\"x\"").is_err());
    assert!(serde_json::from_str::<Version>("1.0").is_err());
}

fn any_version() -> impl Strategy<Value = Version> {
    let numbers = prop::collection::vec(0u64..4, 1..=4);
    let part = prop_oneof!["[0-9]{1,3}", "[a-c]{1,2}", "[a-b-]{1,2}", "[A-C][0-9]"];
    let pre_release = prop::collection::vec(part, 0..=3);
    (numbers, pre_release, prop::option::of("[a-z0-9]{1,3}")).prop_map(|(numbers, pre, meta)| {
        let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        let mut text = numbers.join(".");
        if !pre.is_empty() {
            text = format!("{text}-{}", pre.join("."));
        }
        if let Some(meta) = meta {
            text = format!("{text}+{meta}");
        }
        version(&text)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_order_is_total(a in any_version(), b in any_version(), c in any_version()) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a == b, a.key() == b.key());
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
        if a == b {
            prop_assert_eq!(a.cmp(&c), b.cmp(&c));
        }
    }

    #[test]
    fn text_and_key_read_back(a in any_version()) {
        prop_assert_eq!(&version(a.as_str()), &a);
        prop_assert_eq!(&version(&a.key()), &a);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = text.parse::<Version>();
    }
}
