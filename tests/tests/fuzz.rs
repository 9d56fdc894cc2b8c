//! The fuzz targets without a fuzzer: every committed finding and corpus entry again, and octets that are drawn.

#![allow(clippy::unwrap_used, reason = "a corpus that cannot be read fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use ferry_node::driver::understood;
use ferry_tests::fuzz::{TARGETS, seeds};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn entries(target: &str) -> Vec<PathBuf> {
    fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn no_target_finds_anything_in_its_corpus() {
    for (name, target) in TARGETS {
        let entries = entries(name);
        assert!(entries.len() >= 5, "{name} has only {} corpus entries", entries.len());
        for path in entries {
            let octets = fs::read(&path).unwrap();
            let found = std::panic::catch_unwind(|| target(&octets));
            assert!(found.is_ok(), "{}", path.display());
        }
    }
}

#[test]
fn the_corpora_are_small() {
    let octets: u64 = TARGETS
        .iter()
        .flat_map(|(name, _)| entries(name))
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert!(octets < 2 << 20, "{octets} octets");
}

#[test]
fn no_target_finds_anything_in_octets_that_make_sense() {
    for (name, octets) in seeds() {
        let (_, target) = TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
        target(&octets);
    }
    assert!(TARGETS.iter().all(|(name, _)| seeds().iter().any(|(seed, _)| seed == name)), "one has no seed");
}

#[test]
fn what_the_corpus_of_links_begins_with_is_understood_to_its_last_whole_frame() {
    for (_, octets) in seeds().into_iter().filter(|(name, _)| *name == "greeting") {
        let (side, said) = octets.split_first().unwrap();
        let heard = understood(said, side % 2 == 0, 7);
        assert_eq!((heard.closes, heard.octets.len()), (None, said.len() - 7), "{octets:?}");
    }
}

#[test]
fn no_target_finds_anything_in_octets_that_are_drawn() {
    for (name, target) in TARGETS {
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(300) });
        let drawn = prop::collection::vec(any::<u8>(), 0..500);
        runner
            .run(&drawn, |octets| {
                target(&octets);
                Ok(())
            })
            .unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// `FERRY_BLESS=1` writes what each corpus begins with.
#[test]
fn every_seed_can_be_written_into_its_corpus() {
    if std::env::var_os("FERRY_BLESS").is_none() {
        return;
    }
    for (index, (name, octets)) in seeds().into_iter().enumerate() {
        fs::create_dir_all(corpus(name)).unwrap();
        fs::write(corpus(name).join(format!("seed-{index}")), octets).unwrap();
    }
}
