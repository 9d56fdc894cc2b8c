//! The three things the kernel offers only by way of `unsafe`: attaching to a TAP, a packet ring, and the repair
//! mode of its TCP.
#![allow(unsafe_code)]

mod options;
pub mod packet;
pub mod repair;
pub mod tap;
