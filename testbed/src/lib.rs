//! The testbed of ferry: network namespaces, real kernels and an emulated link, and the demos and benchmarks
//! that run in them.
//!
//! Everything happens inside fresh mount, PID and network namespaces ([`enter`]), so that the kernel takes the
//! whole world away when the process ends, however it ends. The world itself is in [`world`].

pub mod analysis;
pub mod bench;
pub mod calibrate;
pub mod capture;
pub mod clients;
pub mod clock;
pub mod control;
pub mod cores;
pub mod correspondent;
pub mod crash;
pub mod demo;
pub mod drive;
pub mod enter;
pub mod errands;
pub mod error;
pub mod ferry;
pub mod link;
pub mod namespace;
pub mod netstat;
pub mod nodes;
pub mod pcapng;
pub mod privileges;
pub mod progress;
pub mod regression;
pub mod report;
pub mod simulated;
pub mod straight;
pub mod sys;
pub mod timeline;
pub mod trace;
pub mod trial;
pub mod world;

pub use error::{Error, Result};
