use std::path::PathBuf;

use slim_config::{CtlOptions, Secret};

use crate::ctl::Error;

/// What variables of the environment say, those of release 0.6 (`SLIMCTL_SERVER`) before those of
/// later ones (`SLIMCTL_COMMON_OPTS_SERVER`). One without content says nothing.
pub(super) fn options(variable: &dyn Fn(&str) -> Option<String>) -> Result<CtlOptions, Error> {
    let text = |key: &str| {
        let read = |name: String| variable(&name).filter(|text| !text.is_empty());
        read(format!("SLIMCTL_{key}")).or_else(|| read(format!("SLIMCTL_COMMON_OPTS_{key}")))
    };
    let path = |key: &str| text(key).map(PathBuf::from);
    let insecure = text("TLS_INSECURE").map(|text| {
        boolean(&text)
            .ok_or_else(|| Error::argument("SLIMCTL_TLS_INSECURE", "`true` or `false`", &text))
    });
    Ok(CtlOptions {
        server: text("SERVER"),
        timeout: text("TIMEOUT"),
        basic_auth_creds: text("BASIC_AUTH_CREDS").map(Secret::new),
        token: text("TOKEN").map(Secret::new),
        token_file: path("TOKEN_FILE"),
        tls_insecure: insecure.transpose()?,
        tls_ca_file: path("TLS_CA_FILE"),
        tls_cert_file: path("TLS_CERT_FILE"),
        tls_key_file: path("TLS_KEY_FILE"),
    })
}

/// Truth as Go writes it.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
