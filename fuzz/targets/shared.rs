#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gitlab_aws_driver_fuzz::shared(data));
