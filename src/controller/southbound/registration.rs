//! Who a node says that it is.

use std::net::IpAddr;

use slim_compat_grpc::proto::southbound::{ConnectionDetails, RegisterNodeRequest};

use crate::controller::store::{NodeAddress, NodeRecord};

/// Longest text in a registration, in bytes.
const TEXT_BYTES: usize = 1024;

/// Addresses of one node.
const ADDRESSES: usize = 64;

/// The record of a node that registers from `peer`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn record(request: RegisterNodeRequest, peer: IpAddr) -> Result<NodeRecord, String> {
    let RegisterNodeRequest { node_id, connection_details, group_name, product } = request;
    let group = group_name.filter(|group| !group.is_empty());
    if node_id.is_empty() {
        return Err("expected a node id, got an empty one".into());
    }
    if connection_details.len() > ADDRESSES {
        return Err(format!("expected at most {ADDRESSES} addresses of a node"));
    }
    for text in [Some(&node_id), group.as_ref(), product.as_ref()].into_iter().flatten() {
        check(text)?;
    }
    let connections = connection_details.into_iter().map(|details| address(details, peer));
    let connections = connections.collect::<Result<_, _>>()?;
    let id = match &group {
        Some(group) => format!("{group}/{node_id}"),
        None => node_id,
    };
    let product = product.filter(|product| !product.is_empty());
    Ok(NodeRecord { id, group, connections, product })
}

fn address(details: ConnectionDetails, peer: IpAddr) -> Result<NodeAddress, String> {
    let ConnectionDetails {
        endpoint,
        mtls_required,
        local_endpoint,
        external_endpoint,
        group_name,
    } = details;
    let texts = [Some(&endpoint), local_endpoint.as_ref(), external_endpoint.as_ref()];
    texts.into_iter().chain([group_name.as_ref()]).flatten().try_for_each(|text| check(text))?;
    let host = local_endpoint.filter(|host| !host.is_empty()).unwrap_or_else(|| match peer {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    });
    let port = endpoint.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let endpoint = port.map_or(host.clone(), |port| format!("{host}:{port}"));
    let external_endpoint = external_endpoint.filter(|text| !text.is_empty());
    let group = group_name.filter(|group| !group.is_empty());
    Ok(NodeAddress { endpoint, mtls_required, external_endpoint, group })
}

fn check(text: &str) -> Result<(), String> {
    if text.len() > TEXT_BYTES || text.chars().any(char::is_control) {
        return Err(format!("expected texts of at most {TEXT_BYTES} bytes without control signs"));
    }
    Ok(())
}

/// An address as the log shows it.
pub(super) fn shown(address: &NodeAddress) -> String {
    let NodeAddress { endpoint, mtls_required, external_endpoint, group } = address;
    let mut text = format!("endpoint: {endpoint}");
    if *mtls_required {
        text += ", mtls";
    }
    if let Some(external) = external_endpoint {
        text += &format!(", externalEndpoint: {external}");
    }
    if let Some(group) = group {
        text += &format!(", group: {group}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(endpoint: &str) -> ConnectionDetails {
        ConnectionDetails { endpoint: endpoint.into(), ..ConnectionDetails::default() }
    }

    fn register(node: &str, details: ConnectionDetails) -> RegisterNodeRequest {
        let connection_details = vec![details];
        RegisterNodeRequest { node_id: node.into(), connection_details, ..Default::default() }
    }

    fn endpoint(details: ConnectionDetails, peer: &str) -> String {
        let record = record(register("slim/0", details), peer.parse().expect("an address"));
        record.expect("good").connections.remove(0).endpoint
    }

    #[test]
    fn a_node_is_reached_at_the_port_it_names_of_the_address_it_comes_from() {
        assert_eq!(endpoint(details("0.0.0.0:46357"), "127.0.0.1"), "127.0.0.1:46357");
        assert_eq!(endpoint(details("[::]:46357"), "::1"), "[::1]:46357");
        let named = ConnectionDetails { local_endpoint: Some("node.a".into()), ..details("0:1") };
        assert_eq!(endpoint(named, "127.0.0.1"), "node.a:1");
        assert_eq!(endpoint(details("nonsense"), "127.0.0.1"), "127.0.0.1");
    }

    #[test]
    fn a_group_is_the_first_part_of_the_id() {
        let peer = IpAddr::from([127, 0, 0, 1]);
        let mut request = register("slim/0", details("0.0.0.0:1"));
        request.group_name = Some(String::new());
        assert_eq!(record(request.clone(), peer).expect("good").id, "slim/0");
        request.group_name = Some("east".into());
        assert_eq!(record(request, peer).expect("good").id, "east/slim/0");
    }

    #[test]
    fn what_cannot_be_kept_or_shown_is_refused() {
        let peer = IpAddr::from([127, 0, 0, 1]);
        for id in ["", "slim/\n0", &"a".repeat(TEXT_BYTES + 1)] {
            record(register(id, details("0.0.0.0:1")), peer).expect_err("refused");
        }
        let many = RegisterNodeRequest {
            connection_details: vec![details("0.0.0.0:1"); ADDRESSES + 1],
            ..register("slim/0", details("0.0.0.0:1"))
        };
        record(many, peer).expect_err("refused");
    }

    #[test]
    fn an_address_is_shown_as_in_the_documents() {
        let mut address = NodeAddress {
            endpoint: "127.0.0.1:46357".into(),
            mtls_required: false,
            external_endpoint: None,
            group: None,
        };
        assert_eq!(shown(&address), "endpoint: 127.0.0.1:46357");
        address.mtls_required = true;
        address.external_endpoint = Some("x:1".into());
        address.group = Some("g".into());
        assert_eq!(
            shown(&address),
            "endpoint: 127.0.0.1:46357, mtls, externalEndpoint: x:1, group: g"
        );
    }
}
