use clap::{Args, Subcommand};
use serde_json::json;
use slim_compat_grpc::proto::northbound::{
    AddParticipantRequest, DeleteParticipantRequest, ListParticipantsRequest,
};

use super::Caller;
use crate::ctl::Error;
use crate::ctl::output::{Answer, Table, shown};

/// `slimctl participant`.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Command {
    /// Invite an app into a channel
    Add {
        /// Which channel.
        #[command(flatten)]
        channel: Channel,
        /// Its name, ORG/NS/APP
        participant: String,
    },
    /// Remove an app from a channel
    #[command(visible_alias = "del")]
    Delete {
        /// Which channel.
        #[command(flatten)]
        channel: Channel,
        /// Its name, ORG/NS/APP
        participant: String,
    },
    /// List the participants of a channel
    #[command(visible_alias = "ls")]
    List {
        /// Which channel.
        #[command(flatten)]
        channel: Channel,
    },
}

/// Which channel is meant.
#[derive(Args, Debug)]
pub(in crate::ctl) struct Channel {
    /// The channel's name, as `channel create` printed it
    #[arg(short, long, value_name = "CHANNEL", alias = "channel_id")]
    channel_id: String,
}

impl Command {
    pub(in crate::ctl) fn run(&self, caller: &Caller) -> Result<Answer, Error> {
        match self {
            Self::Add { channel, participant } => add(caller, &channel.channel_id, participant),
            Self::Delete { channel, participant } => {
                delete(caller, &channel.channel_id, participant)
            }
            Self::List { channel } => list(caller, &channel.channel_id),
        }
    }
}

fn add(caller: &Caller, channel: &str, name: &str) -> Result<Answer, Error> {
    let to = format!("to channel ID {}: {}", shown(channel), shown(name));
    caller.say(&format!("Adding participant {to}"));
    let (channel_id, participant_id) = (channel.to_owned(), name.to_owned());
    let request = AddParticipantRequest { channel_id, participant_id };
    let what = "failed to add participants";
    caller.acknowledged(what, async |mut c| c.add_participant(request).await)?;
    let text = format!("Participant added successfully {to}\n");
    Ok(Answer::plain(text, json!({ "channel": channel, "added": name })))
}

fn delete(caller: &Caller, channel: &str, name: &str) -> Result<Answer, Error> {
    let from = format!("from channel ID {}: {}", shown(channel), shown(name));
    caller.say(&format!("Deleting participant {from}"));
    let (channel_id, participant_id) = (channel.to_owned(), name.to_owned());
    let request = DeleteParticipantRequest { channel_id, participant_id };
    let what = "failed to delete participant";
    caller.acknowledged(what, async |mut c| c.delete_participant(request).await)?;
    let text = format!("Participant deleted successfully {from}\n");
    Ok(Answer::plain(text, json!({ "channel": channel, "deleted": name })))
}

fn list(caller: &Caller, channel: &str) -> Result<Answer, Error> {
    let id = shown(channel);
    caller.say(&format!("Listing participants for channel ID: {id}"));
    let request = ListParticipantsRequest { channel_id: channel.to_owned() };
    let what = "failed to list participants";
    let answer = caller.call(what, async |mut c| c.list_participants(request).await)?;
    let names = answer.participant_id;
    let mut table = Table::new(&["PARTICIPANT"], ("participant", "participants"));
    names.iter().for_each(|name| table.push(vec![shown(name)]));
    let all: Vec<_> = names.iter().map(|name| shown(name)).collect();
    let text = format!("Following participants found for channel ID {id}: [{}]\n", all.join(" "));
    let value = json!({ "channel": channel, "participants": names });
    Ok(Answer { text, table: Some(table), value })
}
