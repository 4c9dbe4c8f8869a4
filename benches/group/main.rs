//! What a message costs each member of a group, and its node: members of this library, and beside
//! them those of a published release, through the same node. See `benches/README.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people to run")]

mod cast;
mod member;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use self::cast::{Cast, Kind, Sample};

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(about = "CPU time of the members of a group, and of their node, per delivered message")]
struct Args {
    #[command(subcommand)]
    member: Option<Member>,
    /// Members of the group, its moderator among them
    #[arg(long, default_value_t = 20)]
    members: u32,
    /// Messages that each member publishes
    #[arg(long, default_value_t = 200)]
    messages: u32,
    /// Messages a second of each member
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// Payload size in bytes
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// What the members of this library connect over: quic or http
    #[arg(long, value_delimiter = ',', default_value = "quic,http")]
    scheme: Vec<String>,
    /// Leave out encryption
    #[arg(long)]
    plain: bool,
    /// Also measure published members: an interpreter that has slim-bindings 0.6.3
    #[arg(long)]
    python: Option<PathBuf>,
    /// Groups of each kind, in turns
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Member {
    /// One member, in a process of its own
    #[command(hide = true)]
    Member {
        endpoint: String,
        name: String,
        /// Of a moderator: whether to encrypt, and whom to invite
        #[arg(num_args = 0..)]
        moderate: Vec<String>,
    },
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    if let Some(Member::Member { endpoint, name, moderate }) = &args.member {
        return member::run(endpoint, name, moderate);
    }
    let mut kinds: Vec<Kind> = args.scheme.iter().cloned().map(Kind::Native).collect();
    kinds.extend(args.python.clone().map(Kind::Published));
    let mut rows: Vec<(&Kind, Vec<Sample>)> = kinds.iter().map(|kind| (kind, vec![])).collect();
    for _ in 0..args.rounds {
        for (kind, samples) in &mut rows {
            eprintln!("{kind}: {} members", args.members);
            let sample = Cast::gather(kind, &args)?.play(&args)?;
            eprintln!("{kind}: {sample:?}");
            samples.push(sample);
        }
    }
    print(&rows);
    Ok(())
}

/// The median round of each kind, and its members' and node's cost to those of published members.
fn print(rows: &[(&Kind, Vec<Sample>)]) {
    let median = |samples: &[Sample], of: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let members = |sample: &Sample| sample.members_us;
    let node = |sample: &Sample| sample.node_us;
    let published = rows.iter().find(|(kind, _)| matches!(kind, Kind::Published(_)));
    println!(
        "{:<18} {:>14} {:>8} {:>14} {:>8} {:>12}",
        "members", "us CPU/deliv.", "ratio", "us node/deliv.", "ratio", "MiB/member"
    );
    for (kind, samples) in rows {
        let ratio = |of: fn(&Sample) -> f64| {
            published.map_or("-".to_owned(), |(_, reference)| {
                format!("{:.2}", median(samples, of) / median(reference, of))
            })
        };
        println!(
            "{:<18} {:>14.1} {:>8} {:>14.1} {:>8} {:>12.1}",
            kind.to_string(),
            median(samples, members),
            ratio(members),
            median(samples, node),
            ratio(node),
            median(samples, |sample| sample.resident_mib),
        );
    }
}
