#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ferry_tests::fuzz::greeting(octets));
