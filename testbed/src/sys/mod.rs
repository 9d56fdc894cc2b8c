//! The four things the kernel offers only by way of `unsafe`: attaching to a TAP, a packet ring, the repair mode of its
//! TCP, and a real-time priority.
#![allow(unsafe_code)]

mod options;
pub mod packet;
pub mod repair;
pub mod tap;
pub mod urgent;
