//! Tests that need something of the machine: skipped loudly where it is missing, or failed if the machine is one that
//! must have it.

use std::io::Write as _;

/// With 1 in it, a test that would be skipped fails.
const REQUIRED: &str = "FERRY_REQUIRE_NETNS";

/// Says that `test` is skipped, and why. Panics if `FERRY_REQUIRE_NETNS` is 1.
pub fn skip(test: &str, why: &str) {
    skip_if(!is_required(std::env::var(REQUIRED).ok().as_deref()), test, why);
}

fn is_required(value: Option<&str>) -> bool {
    value == Some("1")
}

fn skip_if(allowed: bool, test: &str, why: &str) {
    assert!(allowed, "{test} must not be skipped: {why}");
    // Straight to the descriptor: the test harness would swallow what is printed.
    drop(writeln!(std::io::stderr(), "SKIPPED {test}: {why}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_one_requires() {
        for (value, required) in [(None, false), (Some(""), false), (Some("0"), false), (Some("1"), true)] {
            assert_eq!(is_required(value), required, "{value:?}");
        }
    }

    #[test]
    #[should_panic(expected = "a test must not be skipped: there is no tap")]
    fn a_skip_is_a_failure_where_everything_is_required() {
        skip_if(false, "a test", "there is no tap");
    }
}
