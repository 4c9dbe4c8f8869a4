//! A chat in a group, as the tutorial of SLIM's group communication has it.
//!
//! Two participants wait for an invitation, each in a terminal of its own:
//!
//! ```text
//! cargo run --example group -- --local agntcy/ns/client-1 --shared-secret "secret" \
//!     --slim '{"endpoint": "http://localhost:46357", "tls": {"insecure": true}}'
//! ```
//!
//! A third, the moderator, creates the group and invites them:
//!
//! ```text
//! cargo run --example group -- --local agntcy/ns/moderator --shared-secret "secret" \
//!     --slim '{"endpoint": "http://localhost:46357", "tls": {"insecure": true}}' \
//!     --remote agntcy/ns/chat --invites agntcy/ns/client-1 --invites agntcy/ns/client-2 \
//!     --enable-mls
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

mod common;
#[path = "common/console.rs"]
mod console;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use slim_quic::client::{App, AppError, Config, Session, SessionError};
use slim_wire::TextName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use common::{AppArgs, one_line};
use console::Console;

/// How long an acknowledgement is waited for, and how often a message is sent again.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RETRIES: u32 = 5;

/// How long the moderator waits for one who is invited before it goes on without.
const PATIENCE: Duration = Duration::from_secs(5);

/// Chats in a group: as its moderator with --remote and --invites, else as who is invited.
#[derive(Parser)]
#[command(name = "group")]
struct Cli {
    #[command(flatten)]
    app: AppArgs,
    /// The group's channel, org/namespace/channel
    #[arg(long, value_name = "NAME")]
    remote: Option<TextName>,
    /// An app to invite; can be given several times
    #[arg(long, value_name = "NAME", requires = "remote")]
    invites: Vec<TextName>,
    /// Encrypt the group end to end, with MLS
    #[arg(long)]
    enable_mls: bool,
}

/// Invitations that are not answered yet.
type Late = JoinSet<(TextName, Result<(), SessionError>)>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    common::run(async move {
        let app = common::create_local_app(&cli.app).await?;
        let result = tokio::select! {
            result = take_part(&app, &cli) => result,
            () = common::interrupted() => Ok(()),
        };
        // The members learn that the group is closed, or this one gone.
        app.close().await;
        result.map(|()| ExitCode::SUCCESS)
    })
}

async fn take_part(app: &App, cli: &Cli) -> Result<(), AppError> {
    let mut late = Late::new();
    let session = match &cli.remote {
        Some(channel) if !cli.invites.is_empty() => moderate(app, cli, channel, &mut late).await?,
        _ => {
            println!("Waiting for session...");
            app.listen_for_session(None).await?
        }
    };
    if let Some(group) = session.destination() {
        println!("Welcome to the group {group}!");
    }
    println!("Send a message to the group, or type 'exit' or 'quit' to quit.");
    let (console, mut lines) = console::open(&format!("{} > ", session.source()));
    tokio::select! {
        () = print_messages(&session, &console) => {}
        () = publish_lines(&session, &console, &mut lines) => {}
        () = report(&mut late, &console) => {}
    }
    drop(console);
    app.delete_session(session);
    Ok(())
}

/// Creates the group and invites its members.
async fn moderate(
    app: &App,
    cli: &Cli,
    channel: &TextName,
    late: &mut Late,
) -> Result<Session, AppError> {
    println!("Creating new group session (moderator)... {}", cli.app.local);
    let config = Config::group(channel).reliable(TIMEOUT, Some(MAX_RETRIES));
    let config = if cli.enable_mls { config.encrypted() } else { config };
    let session = app.create_session(config)?;
    for name in &cli.invites {
        let (invited, joining) = (name.clone(), session.invite(name)?);
        late.spawn(async move { (invited, joining.done().await) });
        match tokio::time::timeout(PATIENCE, late.join_next()).await {
            Ok(Some(Ok((name, Ok(()))))) => {
                println!("{} -> add {name} to the group", common::path(&cli.app.local));
            }
            Ok(Some(Ok((name, Err(error))))) => println!("{}", failed(&name, &error)),
            Ok(_) => {}
            Err(_) => println!("-> No answer yet from {name}; the invitation goes on"),
        }
    }
    Ok(session)
}

/// Prints what is said until the session ends.
async fn print_messages(session: &Session, console: &Console) {
    loop {
        match session.get_message().await {
            Ok((context, payload)) => {
                let text = String::from_utf8_lossy(&payload);
                console.print(format!("{} > {}", context.source, one_line(&text))).await;
            }
            Err(error) => {
                console.print(format!("-> Error receiving message: {error}")).await;
                if matches!(error, SessionError::Closed(_)) {
                    return;
                }
            }
        }
    }
}

/// Says what is typed, until that is `exit` or `quit`, or nothing more.
async fn publish_lines(session: &Session, console: &Console, lines: &mut mpsc::Receiver<String>) {
    while let Some(line) = lines.recv().await {
        if console::is_exit(&line) {
            return;
        }
        if let Err(error) = session.publish(line).await {
            console.print(format!("-> Error sending message: {error}")).await;
        }
    }
}

/// Says what becomes of the invitations that took long.
async fn report(late: &mut Late, console: &Console) {
    while let Some(answer) = late.join_next().await {
        match answer {
            Ok((name, Ok(()))) => console.print(format!("-> {name} is a member now")).await,
            Ok((name, Err(error))) => console.print(failed(&name, &error)).await,
            Err(_) => {}
        }
    }
    std::future::pending().await
}

fn failed(name: &TextName, error: &SessionError) -> String {
    format!("-> Error inviting {name}: {error}; {}", error.hint())
}
