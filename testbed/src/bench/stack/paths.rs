//! Goodput over bad paths: a client of the kernel's downloads through the emulated link, from us and from Linux.

use core::net::{Ipv6Addr, SocketAddrV6};
use core::time::Duration;

use super::client::{Way, bulk};
use super::ground::{CLIENT_CORE, Ground, TAP, await_server, on};
use super::kernel::Kernel;
use super::ours::{DISCARD, Ours, SOURCE};
use super::{Figures, Scale};
use crate::Result;
use crate::link::Profile;

/// 1 % of frames lost at random, 50 ms there and back.
pub(super) const LOSS: Profile =
    Profile { delay_us: 25_000, rate_mbit: 200, queue_bytes: 2 << 20, loss: 0.01, ..Profile::GOOD };
/// 0.5 % of frames overtaken by those that follow within 4 ms, 50 ms there and back.
pub(super) const REORDER: Profile = Profile {
    delay_us: 25_000,
    rate_mbit: 200,
    queue_bytes: 2 << 20,
    reorder: 0.005,
    reorder_us: 4000,
    ..Profile::GOOD
};
/// A buffer of a fifth of what the path holds, 20 ms there and back.
pub(super) const SHALLOW: Profile =
    Profile { delay_us: 10_000, rate_mbit: 200, queue_bytes: 100 << 10, ..Profile::GOOD };

/// Transfers for a figure of `shallow`: where slow start ends is chance, and it takes CUBIC longer than one lasts to get
/// over that.
pub(super) const TURNS: u32 = 3;

/// As many at a time: the mean of chance over more losses in the same time.
pub(super) const CONNECTIONS: usize = 8;

/// Goodput in Mbit/s, of us and of Linux CUBIC, through links that are alike: each figure is the mean of `turns`
/// transfers, one after the other, with seeds of their own.
pub(super) fn goodput(
    ground: &Ground,
    scale: Scale,
    profile: Profile,
    connections: usize,
    turns: u32,
) -> Result<Figures> {
    let (ours, kernel) = (Ours::start(ground, TAP, Duration::ZERO)?, Kernel::start(ground)?);
    let (to_ours, to_kernel) = (*ours.at(SOURCE).ip(), *Kernel::at(SOURCE).ip());
    let measure = |server: Ipv6Addr, seed: u64| {
        let link = ground.link(Profile { seed, ..profile })?;
        await_server(&ground.far, SocketAddrV6::new(server, DISCARD, 0, 0))?;
        let to = SocketAddrV6::new(server, SOURCE, 0, 0);
        let figure = on(&ground.far, CLIENT_CORE, || {
            bulk(to, Way::Out, connections, scale.span(2000), scale.span(6000))
        });
        drop(link);
        figure.map(|gbit| gbit * 1e3)
    };
    let mean = |server, seeds: &mut dyn Iterator<Item = u64>| {
        let figures = seeds.take(usize::try_from(turns).unwrap_or(1)).map(|seed| measure(server, seed));
        Ok(figures.sum::<Result<f64>>()? / f64::from(turns))
    };
    let (mut mine, mut theirs) = (1.., 1..);
    let figures =
        Figures::alternate(scale.runs, || mean(to_ours, &mut mine), || mean(to_kernel, &mut theirs))?;
    ours.stop()?;
    kernel.stop()?;
    Ok(figures)
}
