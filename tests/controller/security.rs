use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use slim_compat_grpc::proto::northbound::NodeListRequest;
use slim_compat_grpc::proto::northbound::control_plane_service_client::ControlPlaneServiceClient;
use slim_compat_grpc::proto::southbound::controller_service_client::ControllerServiceClient;
use slim_compat_grpc::proto::southbound::{ControlMessage, control_message::Payload};
use tonic::codegen::tokio_stream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use crate::fake_node::{message, registration};
use crate::program::Controller;
use crate::support::in_time;
use crate::support::pki::Authority;

async fn channel(
    controller: &Controller,
    tls: ClientTlsConfig,
    south: bool,
) -> Result<Channel, tonic::transport::Error> {
    let address = if south { controller.south } else { controller.north };
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("a URI");
    let endpoint = endpoint.tls_config(tls.domain_name("node")).expect("usable");
    in_time("a connection or a refusal", endpoint.connect()).await
}

fn with<T>(message: T, pair: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(pair) = pair {
        let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
        request.metadata_mut().insert("authorization", value.parse().expect("ASCII"));
    }
    request
}

async fn list(channel: Channel, pair: Option<&str>) -> Result<usize, Status> {
    let mut client = ControlPlaneServiceClient::new(channel);
    let listed = client.list_nodes(with(NodeListRequest {}, pair)).await?;
    Ok(listed.into_inner().entries.len())
}

/// The first answer that a node gets.
async fn register(channel: Channel, pair: Option<&str>) -> Result<Option<ControlMessage>, Status> {
    let who = Payload::RegisterNodeRequest(registration("slim/0", 1, true));
    let messages = tokio_stream::iter([message(who)]);
    let mut client = ControllerServiceClient::new(channel);
    client.open_control_channel(with(messages, pair)).await?.into_inner().message().await
}

#[tokio::test]
async fn both_apis_have_tls_and_ask_for_what_they_are_told_to() {
    let authority = Authority::new();
    let certificate = format!(
        r#", tls: {{ cert_file: "{}", key_file: "{}" }}, auth: {{ basic: {{ username: alice, password: "a secret" }} }}"#,
        authority.text("chain.crt"),
        authority.text("server.key"),
    );
    let controller = Controller::start_with(&certificate, "").await;
    let root = std::fs::read(authority.path("root.crt")).expect("a file");
    let tls = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&root));
    for pair in [None, Some("alice:guess"), Some("bob:a secret")] {
        let north = channel(&controller, tls(), false).await.expect("TLS");
        let error = list(north, pair).await.expect_err("not let in");
        assert_eq!(error.code(), Code::Unauthenticated, "{error}");
        let south = channel(&controller, tls(), true).await.expect("TLS");
        let error = register(south, pair).await.expect_err("not let in");
        assert_eq!(error.code(), Code::Unauthenticated, "{error}");
    }
    let pair = Some("alice:a secret");
    let north = channel(&controller, tls(), false).await.expect("TLS");
    assert_eq!(list(north, pair).await.expect("let in"), 0);
    let south = channel(&controller, tls(), true).await.expect("TLS");
    register(south, pair).await.expect("let in").expect("a greeting");
}

#[tokio::test]
async fn with_the_published_form_of_tls_callers_need_a_certificate() {
    let authority = Authority::new();
    let files = format!(
        r#", tls: {{ useSpiffe: false, certFile: "{}", keyFile: "{}", caFile: "{}" }}"#,
        authority.text("chain.crt"),
        authority.text("server.key"),
        authority.text("root.crt"),
    );
    let controller = Controller::start_with(&files, "").await;
    let root = std::fs::read(authority.path("root.crt")).expect("a file");
    let tls = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&root));
    // With TLS 1.3 the refusal may come after the connection seems to be there.
    if let Ok(channel) = channel(&controller, tls(), false).await {
        list(channel, None).await.expect_err("no certificate");
    }
    let (chain, key) = authority.issue("operator");
    let identity = || Identity::from_pem(&chain, &key);
    let north = channel(&controller, tls().identity(identity()), false).await.expect("TLS");
    assert_eq!(list(north, None).await.expect("let in"), 0);
    let south = channel(&controller, tls().identity(identity()), true).await.expect("TLS");
    register(south, None).await.expect("let in").expect("a greeting");
}
