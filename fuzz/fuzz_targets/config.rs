//! Any text is a configuration, or there is an error that says where it is not one.

#![no_main]

mod findings;

use libfuzzer_sys::fuzz_target;
use slim_config::parse;

use crate::findings::{Fixed, check};

fuzz_target!(|text: &str| {
    match parse("fuzz.yaml", text, &Fixed) {
        Ok(loaded) => {
            assert_eq!(loaded.warnings.errors().count(), 0);
            assert!(!loaded.config.services.is_empty());
            check(&loaded.warnings, text);
        }
        Err(found) => {
            assert!(found.errors().next().is_some(), "refused without an error");
            check(&found, text);
        }
    }
});
