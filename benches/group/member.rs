//! One member of this library. It does as it is told on standard input, line by line, and says on
//! standard output how far it is, as `tests/clients/group_member.py` does.

use std::io::{BufRead, Write};
use std::time::Duration;

use slim_quic::client::{App, Config, Identity, LinkOptions, Session, Trust};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::Failure;

const SECRET: &str = "a secret that all of the bench share";

pub(crate) fn run(endpoint: &str, name: &str, moderate: &[String]) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let app = App::new(&name.parse()?, Identity::shared_secret(name, SECRET)?)?;
        let trust = Trust::DangerAcceptAnyCertificate;
        app.connect(endpoint, LinkOptions { trust, ..LinkOptions::default() }).await?;
        tell("ready");
        let session = match moderate {
            [] => app.listen_for_session(None).await?,
            [encrypted, members @ ..] => gather(&app, encrypted == "mls", members).await?,
        };
        tell("in session");
        take_part(&session).await
    })
}

async fn gather(app: &App, encrypted: bool, members: &[String]) -> Result<Session, Failure> {
    let config = Config::group(&"org/bench/channel".parse()?);
    let mut config = config.reliable(Duration::from_secs(1), Some(10));
    config.mls = encrypted;
    let session = app.create_session(config)?;
    for member in members {
        session.invite(&member.parse()?)?.done().await?;
    }
    Ok(session)
}

/// `warm`: says hello. `go COUNT RATE SIZE EXPECTED`: publishes, and waits for what the others do.
async fn take_part(session: &Session) -> Result<(), Failure> {
    let mut orders = orders();
    let (mut warm, mut heard, mut expected) = (false, 0, u64::MAX);
    let (mut left, mut payload) = (0, Vec::new());
    let mut ticks = tokio::time::interval(Duration::from_secs(3600));
    loop {
        tokio::select! {
            order = orders.recv() => match order.as_deref().map(|order| order.split(' ').collect()) {
                None => return Ok(()),
                Some(words) => match words_of(words)? {
                    Order::Warm => { session.publish("w").await?; }
                    Order::Go { count, rate, size, total } => {
                        (left, payload, expected) = (count, vec![b'x'; size], total);
                        ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
                        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                    }
                },
            },
            _ = ticks.tick(), if left > 0 => {
                session.publish(payload.clone()).await?;
                left -= 1;
            }
            message = session.get_message() => {
                if message?.1 == "w" {
                    if !std::mem::replace(&mut warm, true) {
                        tell("warm");
                    }
                } else {
                    heard += 1;
                }
            }
        }
        if left == 0 && heard >= expected {
            tell("done");
            expected = u64::MAX;
        }
    }
}

enum Order {
    Warm,
    Go { count: u32, rate: f64, size: usize, total: u64 },
}

fn words_of(words: Vec<&str>) -> Result<Order, Failure> {
    match words[..] {
        ["warm"] => Ok(Order::Warm),
        ["go", count, rate, size, total] => Ok(Order::Go {
            count: count.parse()?,
            rate: rate.parse()?,
            size: size.parse()?,
            total: total.parse()?,
        }),
        _ => Err(format!("order: expected warm or go, got {words:?}").into()),
    }
}

fn orders() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listens any more at the end.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
