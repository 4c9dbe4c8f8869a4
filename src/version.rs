//! What the programs say about their build.

use std::fmt;

/// Displays as the documents show it: one line each for version, build date, commit and profile,
/// every line with its end.
#[derive(Clone, Copy, Debug)]
pub struct Version;

impl Version {
    /// The version alone.
    pub const NUMBER: &str = env!("CARGO_PKG_VERSION");
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Version:\t{}", Self::NUMBER)?;
        writeln!(f, "Build Date:\t{}", env!("SLIM_BUILD_DATE"))?;
        writeln!(f, "Git SHA:\t{}", env!("SLIM_GIT_SHA"))?;
        writeln!(f, "Profile:\t{}", env!("SLIM_PROFILE"))
    }
}
