//! The SLIM node.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use slim_config::{Loaded, PolicyMode, Profile};
use slim_quic::demo::{self, DemoError};
use slim_quic::node::lifecycle::{self, Exit};
use slim_quic::version::Version;

const EXIT_CODES: &str = "Exit codes: 0 stopped cleanly, 1 did not start, 2 wrong command line, \
                          3 wrong configuration, 4 stopped before everything was written, \
                          5 internal failure";

/// Routes SLIM messages by name. Without a file it runs on embedded defaults.
#[derive(Parser)]
#[command(name = "slim", after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    run: Run,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Run {
    /// Configuration file (YAML); without one and without --listen, what CONFIG names in the
    /// environment
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data-plane address of the embedded defaults; the admin port is then any free one
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    listen: Option<SocketAddr>,
    /// Another node, linked for as long as both run: each tells the other the names of its
    /// clients. `http://host:port` tries QUIC on that port before gRPC; may be given several times
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    peer: Vec<String>,
    /// Print build information
    #[arg(short, long)]
    version: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Work with configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Start a node and three apps in this process, and show messages on their way
    Demo,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Report everything that is wrong with a file, without binding or connecting
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Config(ConfigCommand::Check { file })) => check(&file),
        Some(Command::Demo) => demonstrate(),
        None if cli.run.version => print_version(),
        None => run(&cli.run),
    }
    .into()
}

fn run(args: &Run) -> Exit {
    let plain = args.listen.is_none() && args.peer.is_empty();
    let named = || std::env::var_os("CONFIG").filter(|_| plain).map(PathBuf::from);
    let file = args.config.clone().or_else(named);
    let loaded = match &file {
        Some(file) => match slim_config::load(file) {
            Ok(loaded) => loaded,
            Err(error) => return report(&error),
        },
        None => match lifecycle::defaults(args.listen, &args.peer) {
            Ok(config) => Loaded::without_file(config),
            Err(error) => return report(&error),
        },
    };
    lifecycle::run(loaded, file.as_deref())
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn check(file: &Path) -> Exit {
    match lifecycle::check(file) {
        Ok(Loaded { config, warnings, .. }) => {
            for warning in &warnings {
                println!("{warning}");
            }
            let (file, profile, policy) = (file.display(), config.profile, config.policy);
            if profile != Profile::Compat || policy.mode != PolicyMode::Open {
                let rules = policy.rules.len();
                println!("{file}: profile {profile}, policy {} with {rules} rules", policy.mode);
            }
            println!("{file}: valid");
            Exit::Clean
        }
        Err(error) => report(&error),
    }
}

#[expect(clippy::print_stderr, reason = "there is no log")]
fn demonstrate() -> Exit {
    match demo::run(&mut std::io::stdout()) {
        Ok(()) => Exit::Clean,
        Err(DemoError::Start(error)) => {
            eprintln!("{error}\n  help: {}", error.hint());
            Exit::StartFailed
        }
        Err(error) => {
            eprintln!("{error}");
            Exit::Failed
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn print_version() -> Exit {
    print!("{Version}");
    Exit::Clean
}

/// Errors of the configuration go to standard error, since logging needs a configuration.
#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn report(error: &dyn std::error::Error) -> Exit {
    eprintln!("{error}");
    Exit::Config
}
