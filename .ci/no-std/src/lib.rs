//! Nothing but what a program without `std` must bring to link the cores.
#![no_std]

extern crate ferry_handoff as _;
extern crate ferry_mipv6 as _;
extern crate ferry_stack as _;

use core::alloc::{GlobalAlloc, Layout};

struct Nowhere;

// SAFETY: it never gives memory out, which an allocator may do at any time.
unsafe impl GlobalAlloc for Nowhere {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static NOWHERE: Nowhere = Nowhere;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
