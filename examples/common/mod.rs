//! What the example apps share: their options, and the app that these make.

mod endpoint;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use slim_quic::client::{App, AppError, Identity};
use slim_wire::TextName;

use self::endpoint::Endpoint;

/// Width of the column with the app's name.
const NAME_COLUMN: usize = 45;

/// Who the app is, and where it connects.
#[derive(Args)]
pub(crate) struct AppArgs {
    /// This app's name, org/namespace/app; with a fourth part, a decimal number, its id too
    #[arg(long, value_name = "NAME")]
    pub(crate) local: TextName,
    /// The node: JSON such as '{"endpoint": "http://localhost:46357", "tls": {"insecure": true}}',
    /// or an endpoint alone. An endpoint begins with quic://, http:// or https://; keys of "tls"
    /// are insecure, insecure_skip_verify, ca_file, ca_pem and server_name
    #[arg(long, value_name = "JSON|ENDPOINT")]
    slim: Endpoint,
    /// A secret that all apps share; for trials only
    #[arg(
        long,
        value_name = "SECRET",
        required_unless_present_all = ["jwt", "spire_trust_bundle", "audience"]
    )]
    shared_secret: Option<String>,
    /// A file with this app's JWT; counts with --spire-trust-bundle and --audience
    #[arg(long, value_name = "FILE")]
    jwt: Option<PathBuf>,
    /// A file with the keys of trust domains, JSON: {"trust-domain-1.org": "base64 of a JWKS", ...}
    #[arg(long, value_name = "FILE")]
    spire_trust_bundle: Option<PathBuf>,
    /// An audience that JWTs may be for; can be given several times
    #[arg(long)]
    audience: Vec<String>,
    /// With --shared-secret, for sessions with published apps of release 0.6: their kind of token is
    /// sent. WARNING: every node and every member then sees the secret in clear, and whoever
    /// has seen it can be anybody
    #[arg(long, value_enum, value_name = "RELEASE")]
    compat: Option<Compat>,
}

/// Published releases whose tokens differ.
#[derive(Clone, Copy, ValueEnum)]
enum Compat {
    /// Apps of release 0.6.
    #[value(name = "v0_6")]
    V0_6,
}

/// An app by these options, connected to its node.
pub(crate) async fn create_local_app(args: &AppArgs) -> Result<App, AppError> {
    let app = App::new(&args.local, identity(args)?)?;
    say(&app, "Created app");
    app.connect(args.slim.address(), args.slim.options()).await?;
    say(&app, &format!("Connected to {}", args.slim.address()));
    Ok(app)
}

fn identity(args: &AppArgs) -> Result<Identity, AppError> {
    if let (Some(jwt), Some(bundle), [_, ..]) =
        (&args.jwt, &args.spire_trust_bundle, &args.audience[..])
    {
        println!("Using JWT + JWKS authentication.");
        return Ok(Identity::static_jwt_with_trust_bundle(jwt, bundle, &args.audience)?);
    }
    println!(
        "Warning: Falling back to shared-secret authentication. Don't use this in production!"
    );
    let (name, secret) = (path(&args.local), args.shared_secret.as_deref().unwrap_or_default());
    Ok(match args.compat {
        None => Identity::shared_secret(&name, secret)?,
        Some(Compat::V0_6) => Identity::shared_secret_v0_6(&name, secret)?,
    })
}

/// A name as one types it.
pub(crate) fn path(name: &TextName) -> String {
    let components = name.components().join("/");
    if name.id().is_any() { components } else { format!("{components}/{}", name.id().as_u128()) }
}

/// Prints a line of this app: its name, and what there is to say.
pub(crate) fn say(app: &App, text: &str) {
    let name = path(app.name());
    let mut rest = name.chars();
    let first: String = rest.next().into_iter().flat_map(char::to_uppercase).collect();
    println!("{:<NAME_COLUMN$} {text}", first + rest.as_str(), NAME_COLUMN = NAME_COLUMN - 1);
}

/// What others say can neither begin a line of its own nor command the terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// Runs an app on a runtime of its own, until it ends or is told to by SIGINT or SIGTERM.
pub(crate) fn run(app: impl Future<Output = Result<ExitCode, AppError>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(app),
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}\n  help: {}", error.hint());
        ExitCode::FAILURE
    })
}

/// Returns when somebody wants the program to end.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        // Without a handler the signal ends the program as it always does.
        Ok(()) = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        else => {}
    }
}
