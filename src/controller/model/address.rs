//! How one node reaches another.

use serde_json::{Value, json};

use crate::controller::store::{NodeAddress, NodeRecord};

/// The endpoint by which `source` connects to `destination`, and the client block as JSON.
///
/// Nodes of one group reach each other where they listen; others by what is given as external.
///
/// # Errors
/// Why it cannot, in words.
pub(super) fn between(
    source: &NodeRecord,
    destination: &NodeRecord,
) -> Result<(String, String), String> {
    let near = source.group == destination.group;
    let addresses = &destination.connections;
    let (address, place) = if near {
        let first = addresses.first();
        first.map(|address| (address, &address.endpoint))
    } else {
        let external = |address: &NodeAddress| address.external_endpoint.is_some();
        let first = addresses.iter().find(|address| external(address));
        first.and_then(|address| Some((address, address.external_endpoint.as_ref()?)))
    }
    .ok_or_else(|| match near {
        true => format!("node {} listens nowhere", destination.id),
        false => format!("no external endpoint defined for node {}", destination.id),
    })?;
    let scheme = if address.mtls_required { "https" } else { "http" };
    let endpoint =
        if place.contains("://") { place.clone() } else { format!("{scheme}://{place}") };
    let config = json!({ "endpoint": endpoint, "tls": tls(address.mtls_required, near) });
    Ok((endpoint, config.to_string()))
}

/// Where nodes find their certificates is a convention of the published controller.
fn tls(required: bool, near: bool) -> Value {
    if !required {
        return json!({ "insecure": true });
    }
    json!({
        "insecure": false,
        "insecure_skip_verify": near,
        "cert_file": "/svids/tls.crt",
        "key_file": "/svids/tls.key",
        "ca_file": "/svids/svid_bundle.pem",
    })
}

/// The endpoint in a client block.
///
/// # Errors
/// Why there is none, in the words of the published controller.
pub fn endpoint_in(config: &str) -> Result<String, &'static str> {
    let block: Value = serde_json::from_str(config).map_err(|_| "config data is not JSON")?;
    let endpoint = block.get("endpoint").and_then(Value::as_str).filter(|text| !text.is_empty());
    endpoint.map(str::to_owned).ok_or("endpoint not found in config data")
}
