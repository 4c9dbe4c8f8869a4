//! Two apps at one node: one publishes, the other receives.
//!
//! `cargo run --example publish_and_receive -- 127.0.0.1:46357`, with a node there, such as
//! `slim --listen 127.0.0.1:46357`.

use slim_quic::client::link::{Link, LinkError, LinkOptions, Message, Trust};
use slim_wire::TextName;

const MESSAGES: u32 = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:46357".into());
    if let Err(error) = run(&address).await {
        if let Some(error) = error.downcast_ref::<LinkError>() {
            return Err(format!("{error}; {}", error.hint()).into());
        }
        return Err(error);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn run(address: &str) -> Result<(), Box<dyn std::error::Error>> {
    // A trial: elsewhere, name the authority that signed the node's certificate.
    let trust = Trust::DangerAcceptAnyCertificate;
    let options = LinkOptions { trust, ..LinkOptions::default() };
    let (reader, writer): (TextName, TextName) =
        ("example/apps/reader/1".parse()?, "example/apps/writer/2".parse()?);

    let receiving = Link::connect(address, &options).await?;
    receiving.subscribe(&reader).await?;

    let sending = Link::connect(address, &options).await?;
    for number in 0..MESSAGES {
        let payload = format!("message {number}");
        sending.publish(&Message::new(writer.to_name(), reader.to_name(), payload)).await?;
    }
    sending.close().await?;

    for _ in 0..MESSAGES {
        let message = receiving.receive().await?;
        println!("{}: {}", message.source, String::from_utf8_lossy(&message.payload));
    }
    receiving.close().await?;
    Ok(())
}
