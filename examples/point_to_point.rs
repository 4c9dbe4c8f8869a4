//! Messages to one app, or to any instance of an app, which sends each back.
//!
//! Alice listens, in one terminal or in several as as many instances:
//!
//! ```text
//! cargo run --example point_to_point -- --local agntcy/ns/alice --shared-secret "secret" \
//!     --slim '{"endpoint": "http://localhost:46357", "tls": {"insecure": true}}'
//! ```
//!
//! Bob sends: without further options each message to any of the instances, with `--unicast` all
//! to one, and with `--enable-mls` so and encrypted:
//!
//! ```text
//! cargo run --example point_to_point -- --local agntcy/ns/bob --shared-secret "secret" \
//!     --slim '{"endpoint": "http://localhost:46357", "tls": {"insecure": true}}' \
//!     --remote agntcy/ns/alice --message "hey there"
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

mod common;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use slim_quic::client::{App, AppError, Config, Context, Session, SessionError};
use slim_wire::TextName;
use slim_wire::session::FullName;

use common::{AppArgs, one_line, say};

/// How long an acknowledgement is waited for, and how often a message is sent again.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RETRIES: u32 = 5;

/// How long an answer may take: in anycast sessions, and in those that send again.
const PATIENCE: Duration = TIMEOUT;
const LONG_PATIENCE: Duration = TIMEOUT.saturating_mul(MAX_RETRIES + 2);

/// Listens and sends every message back; or, with --message, sends and prints what comes back.
#[derive(Parser)]
#[command(name = "point_to_point")]
struct Cli {
    #[command(flatten)]
    app: AppArgs,
    /// The app to send to, org/namespace/app; with an id, that instance
    #[arg(long, value_name = "NAME")]
    remote: Option<TextName>,
    /// What to send
    #[arg(long, value_name = "TEXT", requires = "remote")]
    message: Option<String>,
    /// How often to send it
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    iterations: u32,
    /// Send all messages to one instance (unicast); else each goes to any (anycast)
    #[arg(long)]
    unicast: bool,
    /// Encrypt end to end, with MLS; implies --unicast
    #[arg(long)]
    enable_mls: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    common::run(async move {
        let app = common::create_local_app(&cli.app).await?;
        let result = tokio::select! {
            result = async {
                match (&cli.message, &cli.remote) {
                    (Some(message), Some(remote)) => send(&app, &cli, message, remote).await,
                    _ => listen(&app).await,
                }
            } => result,
            () = common::interrupted() => Ok(ExitCode::SUCCESS),
        };
        // The peers learn that the sessions have ended.
        app.close().await;
        result
    })
}

async fn listen(app: &App) -> Result<ExitCode, AppError> {
    say(app, "-> Waiting for session...");
    let mut sessions = FuturesUnordered::new();
    loop {
        tokio::select! {
            session = app.listen_for_session(None) => sessions.push(echo(app, session?)),
            Some(()) = sessions.next() => {}
        }
    }
}

/// Sends everything back until the session ends.
async fn echo(app: &App, session: Session) {
    say(app, &format!("-> New session {}", session.id()));
    loop {
        let (context, payload) = match session.get_message().await {
            Ok(message) => message,
            Err(SessionError::Closed(_)) => {
                return say(app, &format!("-> Session {} has ended", session.id()));
            }
            Err(error) => {
                say(app, &format!("-> Error receiving message: {error}"));
                continue;
            }
        };
        say(app, &received(&context, &payload));
        if let Err(error) = session.publish_to(&context, payload).await {
            say(app, &format!("-> Error sending message: {error}"));
        }
    }
}

fn received(context: &Context, payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    format!("-> Received message from {}: {}", context.source, one_line(&text))
}

async fn send(
    app: &App,
    cli: &Cli,
    message: &str,
    remote: &TextName,
) -> Result<ExitCode, AppError> {
    let session = app.create_session(config(cli, remote))?;
    let mut answers = BTreeMap::<String, u32>::new();
    for number in 1..=cli.iterations {
        session.publish_with_destination(remote, message.to_owned()).await?;
        say(app, &format!("-> Sent {number}/{}: {}", cli.iterations, one_line(message)));
        match answer(app, &session).await {
            Answer::Of(name) => *answers.entry(name).or_default() += 1,
            Answer::None => {}
            Answer::Never => break,
        }
    }
    let answered: u32 = answers.values().sum();
    let by: Vec<String> =
        answers.iter().map(|(name, count)| format!("{count} by {name}")).collect();
    let by = if by.is_empty() { String::new() } else { format!(": {}", by.join(", ")) };
    say(app, &format!("-> Answered {answered}/{}{by}", cli.iterations));
    app.delete_session(session);
    Ok(if answered == cli.iterations { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What became of a message.
enum Answer {
    /// This instance answered.
    Of(String),
    /// Nobody did.
    None,
    /// The session does not reach its peer.
    Never,
}

async fn answer(app: &App, session: &Session) -> Answer {
    let reliable = session.config().reliability.is_some();
    let mut patience = if reliable { LONG_PATIENCE } else { PATIENCE };
    let mut failure = Answer::None;
    loop {
        match session.get_message_within(patience).await {
            Ok((context, payload)) => {
                say(app, &received(&context, &payload));
                return Answer::Of(instance(&context.source));
            }
            Err(AppError::Timeout) if patience.is_zero() => return failure,
            Err(error) => {
                say(app, &format!("-> Error receiving message: {error}; {}", error.hint()));
                if let AppError::Session(error) = error {
                    failure = Answer::Never;
                    if matches!(error, SessionError::Closed(_)) {
                        return failure;
                    }
                }
                // What else there is to know is known already.
                patience = Duration::ZERO;
            }
        }
    }
}

fn config(cli: &Cli, remote: &TextName) -> Config {
    if !cli.unicast && !cli.enable_mls {
        return Config::anycast();
    }
    let config = Config::point_to_point(remote).reliable(TIMEOUT, Some(MAX_RETRIES));
    if cli.enable_mls { config.encrypted() } else { config }
}

fn instance(name: &FullName) -> String {
    name.to_text().map_or_else(|| name.to_string(), |name| common::path(&name))
}
