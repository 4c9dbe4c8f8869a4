use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use serde_json::json;

use super::controller::{
    self, Caller, ChannelCommand, ConnectionCommand, NodeCommand, ParticipantCommand, RouteCommand,
};
use super::output::{Answer, Format};
use super::settings::{Flags, Settings, variable};
use super::{EXIT_CODES, Error, Exit, admin, bench, direct, manual, settings, start};
use crate::version::Version;

/// Works with SLIM nodes and controllers.
#[derive(Debug, Parser)]
#[command(name = "slimctl", after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Nodes of a controller; routes and connections of a node, straight from it
    #[command(visible_aliases = ["n", "instance", "i"])]
    Node(Group<NodeGroup>),
    /// Connections of a node
    #[command(visible_alias = "conn")]
    Connection(Group<ConnectionCommand>),
    /// Routes of nodes
    Route(Group<RouteCommand>),
    /// Channels: groups that a controller manages
    Channel(Group<ChannelCommand>),
    /// Participants of a channel
    Participant(Group<ParticipantCommand>),
    /// All that a controller does, in a group of its own
    #[command(visible_aliases = ["c", "ctrl"])]
    Controller(Group<controller::Command>),
    /// Routes and connections of a node, straight from its control endpoint
    #[command(visible_alias = "nc")]
    NodeConnect(Group<direct::Command>),
    /// Settings and named contexts
    Config(Group<settings::Command>),
    /// Show the links of a node, what they carry and what waits for them, again and again
    Top(admin::Top),
    /// Say why a message to a name reaches somebody, or nobody
    Explain(admin::Explain),
    /// Run a node
    #[command(subcommand)]
    Slim(start::Command),
    /// Measure throughput, latency and losses of a node
    #[command(subcommand, after_help = EXIT_CODES)]
    Bench(Box<bench::Command>),
    /// Print a script that completes command lines in a shell
    Completion(manual::Completion),
    /// Print the manual page, or write those of all commands
    Man(manual::Man),
    /// Print build information
    Version,
}

/// Commands that talk to a server, and how.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
struct Group<C: Subcommand> {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: C,
}

/// What a controller knows of nodes, and what a node says itself.
#[derive(Debug, Subcommand)]
enum NodeGroup {
    #[command(flatten)]
    Known(NodeCommand),
    #[command(flatten)]
    Direct(direct::Command),
}

impl Cli {
    /// The command line, without what clap adds by itself.
    pub fn definition() -> clap::Command {
        // Commands that talk to no server do not take the options for it.
        Self::command().mut_args(|arg| arg.global(false))
    }

    /// Does what a command line asks for, and shows the result.
    pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
        let arguments: Vec<_> = arguments.into_iter().collect();
        let matches = Self::definition().try_get_matches_from(&arguments);
        match matches.and_then(|matches| Self::from_arg_matches(&matches)) {
            Ok(cli) => cli.carry_out().unwrap_or_else(|error| report(&error)).into(),
            Err(error) => match missing(&error, &arguments) {
                Some(error) => report(&error).into(),
                None => error.exit(),
            },
        }
    }

    fn carry_out(self) -> Result<Exit, Error> {
        let Self { flags, command } = self;
        match command {
            Command::Node(group) => group.ask(flags, |command, caller| match command {
                NodeGroup::Known(command) => command.run(caller),
                NodeGroup::Direct(command) => command.run(caller),
            }),
            Command::Connection(group) => group.ask(flags, ConnectionCommand::run),
            Command::Route(group) => {
                let flags = flags.with_output(group.command.output());
                group.ask(flags, RouteCommand::run)
            }
            Command::Channel(group) => group.ask(flags, ChannelCommand::run),
            Command::Participant(group) => group.ask(flags, ParticipantCommand::run),
            Command::Controller(group) => {
                let flags = flags.with_output(group.command.output());
                group.ask(flags, controller::Command::run)
            }
            Command::NodeConnect(group) => group.ask(flags, direct::Command::run),
            Command::Config(Group { flags: own, command }) => {
                let flags = own.or(flags);
                Ok(shown(&command.run(&flags, &variable)?, flags.format()))
            }
            Command::Top(command) => command.run(),
            Command::Explain(command) => command.run(),
            Command::Slim(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Completion(command) => command.run(),
            Command::Man(command) => command.run(),
            Command::Version => Ok(shown(&version(), flags.format())),
        }
    }
}

impl<C: Subcommand> Group<C> {
    /// Carries out a command that asks a server.
    fn ask(
        self,
        outer: Flags,
        run: impl FnOnce(&C, &Caller) -> Result<Answer, Error>,
    ) -> Result<Exit, Error> {
        let flags = self.flags.or(outer);
        let settings = Settings::read(&flags, &variable)?;
        let caller = Caller { settings, format: flags.format() };
        Ok(shown(&run(&self.command, &caller)?, caller.format))
    }
}

fn shown(answer: &Answer, format: Format) -> Exit {
    answer.show(format);
    Exit::Clean
}

fn version() -> Answer {
    let text = Version.to_string();
    let fields = text.lines().filter_map(|line| line.split_once(":\t"));
    let fields = fields.map(|(key, value)| (key.to_lowercase().replace(' ', "_"), json!(value)));
    let value = fields.collect::<serde_json::Map<_, _>>().into();
    Answer::plain(text, value)
}

#[expect(clippy::print_stderr, reason = "standard output is for results")]
fn report(error: &Error) -> Exit {
    eprintln!("error: {error}\n hint: {}", error.hint());
    error.exit()
}

/// What is missing on a command line, in the words of release 0.6.
fn missing(error: &clap::Error, arguments: &[OsString]) -> Option<Error> {
    if error.kind() != ErrorKind::MissingRequiredArgument {
        return None;
    }
    let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let (flags, values): (Vec<_>, Vec<_>) = missing.iter().partition(|arg| arg.starts_with('-'));
    if !values.is_empty() {
        let wanted = addressed(arguments).get_positionals().count();
        let received = wanted.checked_sub(values.len())?;
        return Some(Error::Usage(format!("accepts {wanted} arg(s), received {received}")));
    }
    let name = |flag: &&String| {
        let name = flag.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default();
        format!("\"{name}\"")
    };
    let names: Vec<_> = flags.iter().map(name).collect();
    Some(Error::Usage(format!("required flag(s) {} not set", names.join(", "))))
}

/// The command that a command line is for.
fn addressed(arguments: &[OsString]) -> clap::Command {
    let mut root = Cli::definition();
    root.build();
    let mut command = &root;
    let mut arguments = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    while let Some(argument) = arguments.next() {
        if let Some(option) = argument.strip_prefix('-') {
            let named = command.get_arguments().find(|arg| match option.strip_prefix('-') {
                Some(long) => {
                    let aliases = arg.get_all_aliases().unwrap_or_default();
                    arg.get_long() == Some(long) || aliases.contains(&long)
                }
                None => arg.get_short().is_some_and(|short| option == short.to_string()),
            });
            let takes_next =
                |arg: &clap::Arg| arg.get_action().takes_values() && !arg.is_require_equals_set();
            if named.is_some_and(takes_next) {
                arguments.next();
            }
        } else if let Some(next) = command.find_subcommand(argument) {
            command = next;
        }
    }
    command.clone()
}
