use clap::Subcommand;
use serde_json::json;
use slim_compat_grpc::proto::northbound::{
    CreateChannelRequest, DeleteChannelRequest, ListChannelsRequest,
};

use super::{Caller, check_parts};
use crate::ctl::Error;
use crate::ctl::output::{Answer, Table, shown};

/// `slimctl channel`.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum Command {
    /// Create a channel with a running app as its moderator
    Create {
        /// moderators=ORG/NS/APP/ID, with the id that the app printed; several separated by commas
        #[arg(value_name = "moderators=NAME")]
        moderators: String,
    },
    /// Delete a channel; all who take part in it lose the session
    #[command(visible_alias = "del")]
    Delete {
        /// Its name, as `channel create` printed it
        channel: String,
    },
    /// List all channels
    #[command(visible_alias = "ls")]
    List,
}

impl Command {
    pub(in crate::ctl) fn run(&self, caller: &Caller) -> Result<Answer, Error> {
        match self {
            Self::Create { moderators } => {
                let request = CreateChannelRequest { moderators: parse_moderators(moderators)? };
                let what = "failed to create channel";
                let created = caller.call(what, async |mut c| c.create_channel(request).await)?;
                let text = format!("Received response: {}\n", shown(&created.channel_id));
                Ok(Answer::plain(text, json!({ "channel": created.channel_id })))
            }
            Self::Delete { channel } => {
                let name = shown(channel);
                check_parts(channel, 3).map_err(|reason| {
                    Error::Usage(format!("invalid channel name '{name}': {reason}"))
                })?;
                let request = DeleteChannelRequest { channel_id: channel.clone() };
                let what = "failed to delete channel";
                caller.acknowledged(what, async |mut c| c.delete_channel(request).await)?;
                let text = format!("Channel deleted successfully with ID: {name}\n");
                Ok(Answer::plain(text, json!({ "deleted": channel })))
            }
            Self::List => {
                let (what, request) = ("failed to list channels", ListChannelsRequest {});
                let list = caller.call(what, async |mut c| c.list_channels(request).await)?;
                Ok(channels(&list.channel_id))
            }
        }
    }
}

fn parse_moderators(text: &str) -> Result<Vec<String>, Error> {
    let wrong = |reason: String| Error::Usage(format!("failed to parse moderators: {reason}"));
    let names = text.strip_prefix("moderators=").ok_or_else(|| {
        wrong(format!("invalid syntax: expected 'moderators=NAME', got '{}'", shown(text)))
    })?;
    let names = names.split(',').map(|name| {
        let name = name.trim();
        let invalid = |reason| format!("invalid moderator name '{}': {reason}", shown(name));
        check_parts(name, 4).map(|()| name.to_owned()).map_err(|reason| wrong(invalid(reason)))
    });
    names.collect()
}

fn channels(names: &[String]) -> Answer {
    let mut table = Table::new(&["CHANNEL"], ("channel", "channels"));
    names.iter().for_each(|name| table.push(vec![shown(name)]));
    let list: Vec<_> = names.iter().map(|name| shown(name)).collect();
    let text = format!("Following channels found: [{}]\n", list.join(" "));
    Answer { text, table: Some(table), value: json!({ "channels": names }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moderators_are_full_names() {
        let names = parse_moderators("moderators=a/b/c/1,a/b/d/2").expect("names");
        assert_eq!(names, ["a/b/c/1", "a/b/d/2"]);
        let error = parse_moderators("moderators=a/b/c").expect_err("no id").to_string();
        assert_eq!(
            error,
            "failed to parse moderators: invalid moderator name 'a/b/c': invalid name format, \
             expected 4 components separated by '/'"
        );
        assert!(parse_moderators("a/b/c/1").is_err());
        assert!(parse_moderators("moderators=").is_err());
        assert!(parse_moderators("moderators=a/b/c/1,").is_err());
    }
}
