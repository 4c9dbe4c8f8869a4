//! Names that are reached over a link that this node began.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;

use slim_wire::{Encoding, TextName};
use tokio::sync::watch;

use crate::datapath::LinkId;
use crate::link::host::Host;
use crate::link::incident::Incident;

/// The names, which may change while the link lasts.
pub type Routes = watch::Receiver<Arc<HashSet<TextName>>>;

/// Names that do not change.
pub fn fixed(names: impl IntoIterator<Item = TextName>) -> Routes {
    watch::channel(Arc::new(names.into_iter().collect())).1
}

/// Keeps the routing table as `routes` say, in the space of each encoding, for as long as this
/// future is polled.
pub async fn follow(
    host: &Host,
    link: LinkId,
    peer: &str,
    encodings: &[Encoding],
    mut routes: Routes,
) {
    let mut made = HashSet::new();
    loop {
        let wanted = Arc::clone(&routes.borrow_and_update());
        {
            let mut core = host.core.borrow_mut();
            made.retain(|name: &TextName| {
                let stays = wanted.contains(name);
                for encoding in encodings.iter().filter(|_| !stays) {
                    core.unsubscribe(link, *encoding, name.to_name());
                }
                stays
            });
            for name in wanted.iter() {
                if made.contains(name) {
                    continue;
                }
                let texts = Some(name.components());
                let mut each = encodings.iter();
                match each.try_for_each(|e| core.subscribe(link, *e, name.to_name(), texts)) {
                    Ok(()) => _ = made.insert(name.clone()),
                    Err(error) => host.report(Incident::LinkLimit, &peer, &error),
                }
            }
            core.submit(link);
            core.flush();
        }
        if routes.changed().await.is_err() {
            // Nobody is left who could change them.
            return pending().await;
        }
    }
}
