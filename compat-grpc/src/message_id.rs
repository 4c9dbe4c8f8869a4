//! Ids of messages between controllers and nodes.

/// An id for a new message of the control plane, from bits that are random: a UUID of version 4.
pub fn new_message_id(random: u128) -> String {
    const VERSION: u32 = 76;
    const VARIANT: u32 = 62;
    let uuid = random & !(0xF << VERSION) & !(0b11 << VARIANT) | (4 << VERSION) | (0b10 << VARIANT);
    let digits = format!("{uuid:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_4_made_of_all_other_bits() {
        for (random, id) in [
            (0, "00000000-0000-4000-8000-000000000000"),
            (u128::MAX, "ffffffff-ffff-4fff-bfff-ffffffffffff"),
            (0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, "01234567-89ab-4def-8123-456789abcdef"),
        ] {
            assert_eq!(new_message_id(random), id);
        }
    }
}
