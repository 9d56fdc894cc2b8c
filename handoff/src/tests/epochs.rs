use crate::Epoch;

/// Milliseconds since 1970: this century.
const NOW: u64 = 1_800_000_000_000;

#[test]
fn a_later_life_is_greater_than_every_epoch_before_it_whatever_clocks_say() {
    for known in
        [Epoch { life: NOW, count: u64::MAX }, Epoch { life: NOW + 5_000, ..Epoch::FIRST.recovered() }]
    {
        for clock in [0, NOW - 1, NOW, NOW + 1, NOW + 5_000, NOW + 9_000] {
            let next = Epoch::first_of_life(clock, Some(known));
            assert!(next > known && next.is_first() && next.life >= clock, "{known:?} at {clock}: {next:?}");
        }
    }
}

#[test]
fn a_life_after_the_last_that_is_believed_is_believed_a_moment_later() {
    // The last that is.
    let life = |life| Epoch { life, ..Epoch::FIRST };
    let greatest = (0..64).rev().map(|bit| 1_u64 << bit).fold(0_u64, |greatest, more| {
        let further = greatest.saturating_add(more);
        if life(further).is_plausible(NOW) { further } else { greatest }
    });
    assert!(life(greatest).is_plausible(NOW) && !life(greatest + 1).is_plausible(NOW));
    assert!(Epoch::first_of_life(NOW + 1, Some(life(greatest))).is_plausible(NOW + 1));
}

#[test]
fn who_has_lost_its_clock_is_believed_and_believes() {
    assert!(Epoch::first_of_life(0, None).is_plausible(NOW));
    assert!(Epoch::first_of_life(NOW, None).is_plausible(0));
}
