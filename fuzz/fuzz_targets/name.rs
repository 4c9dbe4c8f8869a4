//! A name that was parsed prints so that it can be parsed again.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use slim_wire::limits::NAME_COMPONENT_BYTES;
use slim_wire::{Id, TextName, hash_component};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Text(&'a str),
    Parts([&'a str; 3], u128),
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Text(text) => {
        let Ok(name) = text.parse::<TextName>() else { return };
        let [org, namespace, app] = name.components();
        let plain = match name.id().to_u64().expect("ids in texts have 64 bits") {
            u64::MAX => format!("{org}/{namespace}/{app}"),
            id => format!("{org}/{namespace}/{app}/{id}"),
        };
        assert_eq!(plain.parse::<TextName>().as_ref(), Ok(&name));
        assert_eq!(name.to_string(), display(&name));
    }
    Input::Parts(parts, id) => match TextName::new(parts, Id::new(id)) {
        Ok(name) => {
            assert_eq!((name.components(), name.id()), (parts, Id::new(id)));
            assert_eq!(name.to_name().prefix.0, parts.map(hash_component));
            assert_eq!(name.to_string(), display(&name));
        }
        Err(_) => assert!(parts.iter().any(|part| part.len() > NAME_COMPONENT_BYTES)),
    },
});

/// The form of the documents, on one line: four hexadecimal numbers, then the texts.
fn display(name: &TextName) -> String {
    let [a, b, c] = name.to_name().prefix.0;
    let [org, namespace, app] = name.components().map(one_line);
    let id = match name.id() {
        Id::ANY => u128::from(u64::MAX),
        id => id.as_u128(),
    };
    format!("{a:x}/{b:x}/{c:x}/{id:x} ({org}/{namespace}/{app}/{id:x})")
}

fn one_line(text: &str) -> String {
    let escaped = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}
