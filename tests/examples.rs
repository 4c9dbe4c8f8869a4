//! The example programs, run as the tutorials say; their output is that of the documents.

mod support;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use slim_quic::identity::{Algorithm, Jwt, JwtClaims, SigningKey, TokenSource};
use slim_wire::hash_component;

use support::eventually;
use support::node::{Node, Program};
use support::published::{self, Peer};

/// The secret of tests/clients/peer.py.
const SECRET: &str = "a secret that all of the test share";

const WARNING: &str =
    "Warning: Falling back to shared-secret authentication. Don't use this in production!";
const HINT: &str = "Send a message to the group, or type 'exit' or 'quit' to quit.";

// As the documents print them.
const GROUP: &str = "169ca82eb17d6bc2/eef9769a4c6990d1/4abb367236cabc2a/ffffffffffffffff \
                     (agntcy/ns/chat/ffffffffffffffff)";
const MODERATOR: &str =
    "169ca82eb17d6bc2/eef9769a4c6990d1/fc9bbc406957794b/ID (agntcy/ns/moderator/ID)";
const CLIENT_1: &str =
    "169ca82eb17d6bc2/eef9769a4c6990d1/58ec40d7c837e0b9/ID (agntcy/ns/client-1/ID)";
const CLIENT_2: &str =
    "169ca82eb17d6bc2/eef9769a4c6990d1/b521a3788f1267a8/ID (agntcy/ns/client-2/ID)";

/// A built example: `cargo test` builds them all, `cargo test --test examples` none.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("this test");
    let folder = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let program = folder.join("examples").join(name);
    assert!(program.exists(), "{}: run `cargo build --examples` first", program.display());
    Command::new(program)
}

/// A running example, and what it reads.
struct App {
    program: Program,
    input: ChildStdin,
}

impl App {
    /// One that is connected.
    async fn start(example_name: &str, local: &str, endpoint: &str, options: &[&str]) -> Self {
        let app = Self::spawn(example_name, local, endpoint, options);
        app.program.line(&format!("Connected to {endpoint}")).await;
        app
    }

    fn spawn(example_name: &str, local: &str, endpoint: &str, options: &[&str]) -> Self {
        let node = json!({"endpoint": endpoint, "tls": {"insecure": true}}).to_string();
        let mut command = example(example_name);
        command.args(["--local", local, "--slim", &node]).args(options);
        let (program, input) = Program::spawn_with_input(command);
        Self { program, input }
    }

    fn enter(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the app reads");
    }

    /// Waits for a line that is this but for its ids.
    async fn until(&self, line: &str) {
        eventually(line, async || masked(&self.program).contains(&line.to_owned()).then_some(()))
            .await;
    }

    /// The decimal id in what it says about itself.
    fn id(&self) -> u64 {
        let line = self.program.stdout.find("Created app").expect("created");
        // The documents' column.
        assert_eq!(line.find("Created app"), Some(45), "{line}");
        let name = line.split(' ').next().expect("a name");
        name.rsplit('/').next().expect("an id").parse().expect("a number")
    }
}

/// The lines of a program, with ids and runs of spaces made equal.
fn masked(program: &Program) -> Vec<String> {
    program.stdout.all().iter().map(|line| mask(line)).collect()
}

/// The line with `ID` for every number that is neither short nor the hash of a name in the
/// documents.
fn mask(line: &str) -> String {
    let known = ["agntcy", "ns", "moderator", "client-1", "client-2", "chat", "alice", "bob"];
    let known = known.map(|text| format!("{:x}", hash_component(text)));
    let is_id = |word: &str| {
        let digits = word.len() >= 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits && word != "f".repeat(16) && known.iter().all(|hash| hash != word)
    };
    let words = line.split_inclusive(|part: char| !part.is_ascii_alphanumeric() && part != '-');
    let mut text = String::new();
    for part in words {
        let word = part.trim_end_matches(|part: char| !part.is_ascii_alphanumeric());
        match is_id(word) {
            true => text.extend(["ID", &part[word.len()..]]),
            false => text.push_str(part),
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How a member leaves.
#[derive(Clone, Copy)]
enum Leave<'a> {
    /// By this word.
    Word(&'a str),
    /// By Ctrl-D.
    End,
    /// By Ctrl-C.
    Interrupt,
}

async fn leave(mut app: App, how: Leave<'_>) -> Program {
    match how {
        Leave::Word(word) => app.enter(word),
        Leave::Interrupt => app.program.signal(Signal::INT),
        Leave::End => {}
    }
    let App { mut program, input } = app;
    let held = (!matches!(how, Leave::End)).then_some(input);
    assert_eq!(program.exit().await, Some(0));
    drop(held);
    program
}

fn endpoint(scheme: &str, node: SocketAddr) -> String {
    format!("{scheme}://localhost:{}", node.port())
}

/// The tutorial of release 0.6, word for word.
async fn tutorial(scheme: &str, leaving: [Leave<'_>; 2]) {
    let node = Node::start("").await;
    let endpoint = endpoint(scheme, node.address);
    let secret = ["--shared-secret", "secret"];
    let mut first = App::start("group", "agntcy/ns/client-1", &endpoint, &secret).await;
    let mut second = App::start("group", "agntcy/ns/client-2", &endpoint, &secret).await;
    first.until("Waiting for session...").await;
    second.until("Waiting for session...").await;
    let invites = ["--invites", "agntcy/ns/client-1", "--invites", "agntcy/ns/client-2"];
    let options = [&secret[..], &["--remote", "agntcy/ns/chat"], &invites, &["--enable-mls"]];
    let mut moderator =
        App::start("group", "agntcy/ns/moderator", &endpoint, &options.concat()).await;
    for app in [&first, &second, &moderator] {
        app.until(HINT).await;
    }
    moderator.enter("hello");
    first.until(&format!("{MODERATOR} > hello")).await;
    second.until(&format!("{MODERATOR} > hello")).await;
    first.enter("hello, moderator");
    moderator.until(&format!("{CLIENT_1} > hello, moderator")).await;
    second.until(&format!("{CLIENT_1} > hello, moderator")).await;
    second.enter("ünïcode");
    moderator.until(&format!("{CLIENT_2} > ünïcode")).await;
    first.until(&format!("{CLIENT_2} > ünïcode")).await;
    let shown = format!("(agntcy/ns/client-1/{:x}) > ", first.id());
    assert!(first.program.stdout.find(&shown).is_some(), "its own id in the prompt: {shown}");
    second.id();
    moderator.id();

    let second = leave(second, leaving[0]).await;
    moderator.enter("who is there?");
    first.until(&format!("{MODERATOR} > who is there?")).await;
    let moderator = leave(moderator, leaving[1]).await;
    assert_eq!(first.program.exit().await, Some(0), "the group is closed");

    let welcome = format!("Welcome to the group {GROUP}!");
    let begin = |name: &str| {
        let [created, connected] = ["Created app".to_owned(), format!("Connected to {endpoint}")]
            .map(|text| format!("Agntcy/ns/{name}/ID {text}"));
        [WARNING.to_owned(), created, connected]
    };
    let said = [
        format!("{MODERATOR} > hello"),
        format!("{CLIENT_1} > hello, moderator"),
        format!("{CLIENT_2} > ünïcode"),
    ];
    let client = ["Waiting for session...".to_owned(), welcome.clone(), HINT.to_owned()];
    let more = [
        format!("{MODERATOR} > who is there?"),
        "-> Error receiving message: error receiving message: application channel closed".into(),
    ];
    let expected = [&begin("client-1")[..], &client, &said, &more].concat();
    assert_eq!(masked(&first.program), expected);
    let word = |how| match how {
        Leave::Word(word) => Some(word),
        _ => None,
    };
    let bye = word(leaving[0]).map(|word| format!("{CLIENT_2} > {word}"));
    let expected = [&begin("client-2")[..], &client, &said, bye.as_slice()].concat();
    assert_eq!(masked(&second), expected);
    let invited = [
        "Creating new group session (moderator)... \
         169ca82eb17d6bc2/eef9769a4c6990d1/fc9bbc406957794b/ffffffffffffffff \
         (agntcy/ns/moderator/ffffffffffffffff)",
        "agntcy/ns/moderator -> add \
         169ca82eb17d6bc2/eef9769a4c6990d1/58ec40d7c837e0b9/ffffffffffffffff \
         (agntcy/ns/client-1/ffffffffffffffff) to the group",
        "agntcy/ns/moderator -> add \
         169ca82eb17d6bc2/eef9769a4c6990d1/b521a3788f1267a8/ffffffffffffffff \
         (agntcy/ns/client-2/ffffffffffffffff) to the group",
    ]
    .map(str::to_owned);
    let bye = word(leaving[1]).map(|word| format!("{MODERATOR} > {word}"));
    let expected = [
        &begin("moderator")[..],
        &invited,
        &[welcome, HINT.to_owned()],
        &said,
        &more[..1],
        bye.as_slice(),
    ];
    assert_eq!(masked(&moderator), expected.concat());
    assert_eq!(moderator.stderr.all(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_tutorial_prints_what_the_documents_show_over_grpc() {
    tutorial("http", [Leave::Word("EXIT"), Leave::Word("quit")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_tutorial_prints_what_the_documents_show_over_quic() {
    tutorial("quic", [Leave::Interrupt, Leave::End]).await;
}

/// What bob's run came to: its exit code, and who answered how often.
async fn answers(endpoint: &str, options: &[&str]) -> (Option<i32>, Vec<u32>) {
    let common = ["--remote", "agntcy/ns/alice", "--message", "hey there"];
    let options = [&common[..], options].concat();
    let mut bob = App::start("point_to_point", "agntcy/ns/bob", endpoint, &options).await;
    let code = bob.program.exit().await;
    let line = bob.program.line("-> Answered ").await;
    let counts = line.split([':', ',']).filter_map(|part| part.split_once(" by agntcy/ns/alice/"));
    (code, counts.map(|(count, _)| count.trim().parse().expect("a number")).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_to_any_instance_or_to_one_plain_or_encrypted() {
    let node = Node::start("").await;
    for scheme in ["http", "quic"] {
        let endpoint = endpoint(scheme, node.address);
        let secret = ["--shared-secret", "secret"];
        let mut instances = Vec::new();
        for _ in 0..3 {
            let alice = App::start("point_to_point", "agntcy/ns/alice", &endpoint, &secret).await;
            instances.push(alice);
        }
        let with = |options: &[&'static str]| [&secret[..], options].concat();
        let (code, counts) = answers(&endpoint, &with(&["--iterations", "60"])).await;
        assert_eq!((code, counts.len(), counts.iter().sum()), (Some(0), 3, 60), "{counts:?}");
        for option in ["--unicast", "--enable-mls"] {
            assert_eq!(answers(&endpoint, &with(&[option])).await, (Some(0), vec![10]));
        }
        let heard = "-> Received message from 169ca82eb17d6bc2/eef9769a4c6990d1/49ae1b437ae573c4/ID \
                     (agntcy/ns/bob/ID): hey there";
        let heard = format!("Agntcy/ns/alice/ID {heard}");
        eventually("all is heard by some alice", async || {
            let lines = instances.iter().flat_map(|alice| masked(&alice.program));
            (lines.filter(|line| *line == heard).count() == 80).then_some(())
        })
        .await;
        for alice in instances {
            leave(alice, Leave::Interrupt).await;
        }
    }
}

/// A trust domain: its key, and the key set that others know it by.
struct Domain {
    name: &'static str,
    key: KeyPair,
}

impl Domain {
    fn new(name: &'static str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Self { name, key }
    }

    fn key_set(&self) -> String {
        let point = self.key.public_key_raw();
        let [x, y] = [&point[1..33], &point[33..]].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        let key = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "alg": "ES256"});
        json!({ "keys": [key] }).to_string()
    }

    /// The options of an app with a token of this domain.
    fn options(&self, app: &str, folder: &Path) -> Vec<String> {
        let claims = JwtClaims {
            audience: vec!["slim-demo".into()],
            subject: Some(format!("spiffe://{}/{app}", self.name)),
            ..JwtClaims::default()
        };
        let key = SigningKey::new(Algorithm::ES256, &self.key.serialize_pem()).expect("a key");
        let token = Jwt::new(key, claims).expect("claims").token(SystemTime::now());
        let path = folder.join(format!("{app}.token"));
        fs::write(&path, &*token.expect("a token")).expect("written");
        let text = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
        let (jwt, bundle) = (text(path), text(folder.join("bundle.json")));
        let options = ["--jwt", &jwt, "--spire-trust-bundle", &bundle, "--audience", "slim-demo"];
        options.map(str::to_owned).to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_of_two_trust_domains_know_each_other_by_a_trust_bundle() {
    let node = Node::start("").await;
    let endpoint = endpoint("http", node.address);
    let folder = tempfile::tempdir().expect("a folder");
    let [one, two] = ["trust-domain-1.org", "trust-domain-2.org"].map(Domain::new);
    let sets = [&one, &two]
        .map(|domain| (domain.name.to_owned(), BASE64_STANDARD.encode(domain.key_set()).into()));
    let bundle: Map<String, Value> = sets.into_iter().collect();
    fs::write(folder.path().join("bundle.json"), Value::from(bundle).to_string()).expect("written");

    let options = one.options("alice", folder.path());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let alice = App::start("point_to_point", "agntcy/ns/alice", &endpoint, &options).await;
    assert_eq!(alice.program.stdout.all()[0], "Using JWT + JWKS authentication.");
    let of_bob = two.options("bob", folder.path());
    let with = |options: &[&'static str]| {
        of_bob.iter().map(String::as_str).chain(options.iter().copied()).collect::<Vec<_>>()
    };
    for option in ["--unicast", "--enable-mls"] {
        assert_eq!(answers(&endpoint, &with(&[option])).await, (Some(0), vec![10]));
    }
    // A key of somebody else, under the name of a domain that is known: the node passes on what
    // that app asks, and alice has read it when she answers who asks after it.
    let count = node.metrics().await.sum("slim_messages_matched_total");
    let options = ["--remote", "agntcy/ns/alice", "--message", "let me in", "--unicast"];
    let forged = Domain::new("trust-domain-2.org").options("mallory", folder.path());
    let forged: Vec<&str> = forged.iter().map(String::as_str).chain(options).collect();
    let mallory = App::start("point_to_point", "agntcy/ns/bob", &endpoint, &forged).await;
    node.until("mallory asks", |metrics| metrics.sum("slim_messages_matched_total") > count).await;
    assert_eq!(answers(&endpoint, &with(&["--iterations", "1"])).await, (Some(0), vec![1]));
    // Twice ten messages in two sessions, and this one.
    eventually("what alice heard", async || {
        let heard = |part| alice.program.stdout.count(part);
        ((heard("New session"), heard("Received message")) == (3, 21)).then_some(())
    })
    .await;
    assert_eq!(mallory.program.stdout.count("Received message"), 0);
    drop(mallory);
    leave(alice, Leave::Interrupt).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn published_clients_take_part_in_a_group_with_the_tokens_they_know() {
    let Some(python) = published::python("a group of an example and published clients") else {
        return;
    };
    let node = Node::start("").await;
    let mut first = Peer::start(python, node.address, "agntcy/ns/client-1", &["listen"]).await;
    let second = Peer::start(python, node.address, "agntcy/ns/client-2", &["listen"]).await;
    let invites = ["--invites", "agntcy/ns/client-1", "--invites", "agntcy/ns/client-2"];
    let options = [
        &["--shared-secret", SECRET, "--compat", "v0_6", "--enable-mls"],
        &["--remote", "agntcy/ns/chat"][..],
        &invites,
    ];
    let endpoint = endpoint("quic", node.address);
    let mut moderator =
        App::start("group", "agntcy/ns/moderator", &endpoint, &options.concat()).await;
    moderator.until(HINT).await;
    moderator.enter("hello, python");
    for peer in [&first, &second] {
        eventually("the greeting", async || (peer.got("hello, python") > 0).then_some(())).await;
    }
    first.publish("hello, rust");
    moderator.until(&format!("{CLIENT_1} > hello, rust")).await;
    eventually("the answer", async || (second.got("hello, rust") > 0).then_some(())).await;
    leave(moderator, Leave::Word("exit")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_answers_a_published_moderator_and_a_published_caller() {
    let Some(python) = published::python("examples called by published clients") else {
        return;
    };
    let node = Node::start("").await;
    let options = ["--shared-secret", SECRET, "--compat", "v0_6"];
    let endpoint = endpoint("quic", node.address);
    let mut client = App::start("group", "agntcy/ns/client-1", &endpoint, &options).await;
    let role = ["moderate", "agntcy/ns/chat", "agntcy/ns/client-1"];
    let mut moderator = Peer::start(python, node.address, "agntcy/ns/moderator", &role).await;
    client.until(&format!("Welcome to the group {GROUP}!")).await;
    client.until(HINT).await;
    client.enter("hello, python");
    eventually("the greeting", async || (moderator.got("hello, python") > 0).then_some(())).await;
    moderator.publish("hello, rust");
    client.until(&format!("{MODERATOR} > hello, rust")).await;

    let alice = App::start("point_to_point", "agntcy/ns/alice", &endpoint, &options).await;
    for role in ["call", "call-plain"] {
        let role = [role, "agntcy/ns/alice"];
        let mut caller = Peer::start(python, node.address, "agntcy/ns/bob", &role).await;
        caller.publish("hey there");
        eventually("the echo", async || (caller.got("hey there") > 0).then_some(())).await;
    }
    leave(alice, Leave::Interrupt).await;
    leave(client, Leave::Word("exit")).await;
}

/// Exit code and output of an example that ends at once.
fn output(name: &str, options: &[&str]) -> (Option<i32>, String) {
    let mut command = example(name);
    let output = command.args(options).stdin(Stdio::null()).output().expect("it runs");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
    // Help is wrapped.
    (output.status.code(), text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn what_is_wrong_with_the_options_is_named() {
    let secret = ["--shared-secret", "secret"];
    for (node, part) in [
        (r#"{"endpoint": "http://a:1", "tls": {"cafile": "x"}}"#, "tls.cafile: no such key"),
        (r#"{"endpoint": "http://a:1", "tls": {"ca_file": 5}}"#, "ca_file: expected a path"),
        (r#"{"endpoint": "https://a:1", "tls": {"insecure": true}}"#, "tls.insecure: expected"),
        (r#"{"tls": {}}"#, "endpoint: expected an address, got none"),
        (r#"{"endpoint": "#, "expected JSON or an endpoint"),
    ] {
        let options = [&["--local", "a/b/c", "--slim", node], &secret[..]].concat();
        let (code, text) = output("group", &options);
        assert!(code == Some(2) && text.contains(part), "{text}");
    }
    let (code, text) = output("group", &["--local", "a/b/c", "--slim", "http://a:1"]);
    assert!(code == Some(2) && text.contains("--shared-secret <SECRET>"), "{text}");
    let options = [&["--local", "a/b", "--slim", "http://a:1"], &secret[..]].concat();
    let (code, text) = output("point_to_point", &options);
    assert!(code == Some(2) && text.contains(r#"expected "org/namespace/app""#), "{text}");
    let options = [&["--local", "a/b/c", "--slim", "ftp://a:1"], &secret[..]].concat();
    let (code, text) = output("point_to_point", &options);
    assert!(code == Some(1) && text.contains("expected quic, http or https"), "{text}");
    let (code, text) = output("group", &["--help"]);
    assert!(code == Some(0) && text.contains("WARNING: every node and every member"), "{text}");
}
