//! Certificates, keys and authorities in files that change while the node runs.

mod support;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use slim_quic::client::link::{Link, LinkError, LinkOptions};
use tokio::net::TcpStream;

use support::metrics::Metrics;
use support::native::{Raw, client_config, message, text};
use support::node::{Node, config};
use support::pki::Authority;
use support::{eventually, in_time};

/// Both ways to a server with TLS.
const WAYS: [&str; 2] = ["https", "quic"];

/// A folder as Kubernetes mounts a secret: `name` leads by `..data`, which is swapped, to the file.
fn mount(folder: &Path) {
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        symlink(Path::new("..data").join(name), folder.join(name)).expect("linked");
    }
}

/// Another generation of all files at once.
fn swap(folder: &Path, generation: usize, files: [&str; 3]) {
    let data = format!("..{generation}");
    std::fs::create_dir(folder.join(&data)).expect("a folder");
    for (name, content) in ["tls.crt", "tls.key", "ca.crt"].into_iter().zip(files) {
        std::fs::write(folder.join(&data).join(name), content).expect("written");
    }
    symlink(&data, folder.join("..data_tmp")).expect("linked");
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("renamed");
}

async fn launch(folder: &Path, more: &str) -> Node {
    let file = |name| folder.join(name).display().to_string();
    let tls = format!("cert_file: {}, key_file: {}{more}", file("tls.crt"), file("tls.key"));
    Node::launch(&config("", &format!("endpoint: \"127.0.0.1:0\", tls: {{ {tls} }}"))).await
}

async fn connect(node: &Node, way: &str, options: &LinkOptions) -> Result<Link, LinkError> {
    let address = format!("{way}://{}", node.address);
    in_time("a link or a refusal", Link::connect(&address, options)).await
}

fn own(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

/// The certificate that a new connection over TCP is shown.
async fn shown_tcp(authority: &Authority, node: &Node) -> CertificateDer<'static> {
    let stream = TcpStream::connect(node.address).await.expect("accepted");
    let name = ServerName::try_from("node").expect("a name");
    let connector = authority.connector(&rustls::version::TLS13);
    let stream = in_time("a handshake", connector.connect(name, stream)).await.expect("trusted");
    let chain = stream.get_ref().1.peer_certificates().expect("a chain");
    chain[0].clone().into_owned()
}

/// The certificate that a new connection over QUIC is shown.
async fn shown_quic(node: &Node) -> CertificateDer<'static> {
    let config = client_config(slim_wire::ALPN, quinn::TransportConfig::default());
    let raw = Raw::try_connect(node.address, config).await.expect("accepted");
    let identity = raw.connection.peer_identity().expect("a certificate");
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().expect("a chain");
    chain[0].clone()
}

fn taken(metrics: &Metrics) -> u64 {
    metrics.with("slim_reloads_total", "result", "taken")
}

fn refused(metrics: &Metrics) -> u64 {
    metrics.with("slim_reloads_total", "result", "refused")
}

/// Clients that come and go until they are told to stop: none may be turned away.
async fn come_and_go(authority: &Authority, node: &Node, stop: &AtomicBool) -> usize {
    let options = LinkOptions { trust: authority.trust(), ..LinkOptions::default() };
    let links = AtomicUsize::new(0);
    while !stop.load(Relaxed) {
        for way in WAYS {
            let link = connect(node, way, &options).await.expect("let in");
            link.close().await.expect("nothing is lost");
            links.fetch_add(1, Relaxed);
        }
    }
    links.into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_rotated_twenty_times_and_no_link_is_lost() {
    const ROTATIONS: usize = 20;
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    mount(folder.path());
    let issue = || authority.issue("node");
    let (certificate, key) = issue();
    swap(folder.path(), 0, [&certificate, &key, ""]);
    let node = launch(folder.path(), "").await;
    let options = |name| LinkOptions {
        trust: authority.trust(),
        name: Some(text(name)),
        ..LinkOptions::default()
    };
    let names = ["org/ns/one/1", "org/ns/two/2"];
    let mut lasting = Vec::new();
    for (way, name) in WAYS.into_iter().zip(names) {
        let link = connect(&node, way, &options(name)).await.expect("let in");
        link.subscribe(&text(name)).await.expect("subscribed");
        lasting.push(link);
    }
    let stop = AtomicBool::new(false);
    let rotate = async {
        for rotation in 1..=ROTATIONS {
            let (certificate, key) = issue();
            swap(folder.path(), rotation, [&certificate, &key, ""]);
            let new = own(&certificate);
            eventually("the new certificate is shown over TCP", async || {
                (shown_tcp(&authority, &node).await == new).then_some(())
            })
            .await;
            // QUIC has it before, and so has every core.
            for _ in 0..8 {
                assert_eq!(shown_quic(&node).await, new, "rotation {rotation}");
                assert_eq!(shown_tcp(&authority, &node).await, new, "rotation {rotation}");
            }
            for (from, to) in [(0, 1), (1, 0)] {
                let sent = message(names[from], names[to], rotation.to_string());
                lasting[from].publish(&sent).await.expect("the link is open");
                let received = in_time("a message", lasting[to].receive()).await;
                assert_eq!(received.expect("the link is open").payload, rotation.to_string());
            }
        }
        stop.store(true, Relaxed);
    };
    let (came, ()) = tokio::join!(come_and_go(&authority, &node, &stop), rotate);
    assert!(came > 0);
    let metrics = node.metrics().await;
    assert_eq!((taken(&metrics), refused(&metrics)), (ROTATIONS as u64, 0));
    assert_eq!(metrics.incidents("tls_failed"), 0);
    assert_eq!(node.program.stdout.count("files were read again"), ROTATIONS);
}

#[tokio::test]
async fn files_that_do_not_go_together_change_nothing_until_they_do() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let write = |name, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let (old, old_key) = authority.issue("node");
    write("tls.crt", &old);
    write("tls.key", &old_key);
    let node = launch(folder.path(), "").await;
    let still_old = async || {
        assert_eq!(shown_tcp(&authority, &node).await, own(&old));
        assert_eq!(shown_quic(&node).await, own(&old));
    };
    let (new, new_key) = authority.issue("node");
    // What somebody leaves who writes one file after the other, or only half of one.
    let half = &new_key[..new_key.len() / 2];
    let broken: [(&str, Option<&str>, &str); 4] = [
        ("tls.crt", Some(&new), "certificate and key"),
        ("tls.key", Some(half), "tls.key"),
        ("tls.key", None, "No such file"),
        ("tls.crt", Some("no PEM"), "expected at least one certificate"),
    ];
    for (count, (name, content, told)) in (1..).zip(broken) {
        match content {
            Some(content) => write(name, content),
            None => std::fs::remove_file(folder.path().join(name)).expect("removed"),
        }
        if name == "tls.crt" && count > 1 {
            write("tls.key", &new_key);
        }
        node.until("it is told", |metrics| refused(metrics) >= count).await;
        eventually(told, async || {
            let lines = node.program.stdout.all();
            let kept =
                |line: &&String| line.contains("files cannot be used") && line.contains(told);
            lines.iter().find(kept).map(|_| ())
        })
        .await;
        still_old().await;
    }
    write("tls.crt", &new);
    node.until("all is well again", |metrics| taken(metrics) == 1).await;
    assert_eq!(shown_tcp(&authority, &node).await, own(&new));
    assert_eq!(shown_quic(&node).await, own(&new));
}

#[tokio::test]
async fn another_authority_lets_other_clients_in_and_those_before_go_on() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let (old, new) = (Authority::new(), Authority::new());
    mount(folder.path());
    let (certificate, key) = authority.issue("node");
    let ca = |of: &Authority| std::fs::read_to_string(of.path("root.crt")).expect("PEM");
    swap(folder.path(), 0, [&certificate, &key, &ca(&old)]);
    let file = folder.path().join("ca.crt").display().to_string();
    let node = launch(folder.path(), &format!(", client_ca_file: {file}")).await;
    let of = |clients: &Authority, name| LinkOptions {
        trust: authority.trust(),
        certificate: Some(clients.identity("client")),
        name: Some(text(name)),
        ..LinkOptions::default()
    };
    let names = ["org/ns/one/1", "org/ns/two/2"];
    let mut lasting = Vec::new();
    for (way, name) in WAYS.into_iter().zip(names) {
        let link = connect(&node, way, &of(&old, name)).await.expect("let in");
        link.subscribe(&text(name)).await.expect("subscribed");
        lasting.push(link);
        connect(&node, way, &of(&new, name)).await.expect_err("not yet");
    }
    swap(folder.path(), 1, [&certificate, &key, &ca(&new)]);
    for (way, name) in WAYS.into_iter().zip(names) {
        let options = of(&new, name);
        eventually("others are let in", async || connect(&node, way, &options).await.ok()).await;
        connect(&node, way, &of(&old, name)).await.expect_err("no more");
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let sent = message(names[from], names[to], "still here");
        lasting[from].publish(&sent).await.expect("the link is open");
        in_time("a message", lasting[to].receive()).await.expect("the link is open");
    }
}
