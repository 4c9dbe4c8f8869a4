use std::sync::Arc;

use quinn::{SendStream, WriteError};
use slim_wire::CloseCode;

use super::Shared;
use crate::client::link::outbound::Outbound;
use crate::client::link::{LinkError, Place};

/// Writes what waits for a lane until the lane is finished, and then waits until the node has
/// acknowledged it all.
pub(super) async fn write_lane(shared: Arc<Shared>, number: usize, mut stream: SendStream) {
    if write_all(&shared.lanes[number], &mut stream, &shared, Place::Lane(number as u64)).await
        && stream.finish().is_ok()
    {
        // However it ends, there is nothing more to do here.
        let _ = stream.stopped().await;
    }
}

/// Writes the requests until the control stream is finished.
pub(super) async fn write_control(shared: Arc<Shared>, mut stream: SendStream) {
    if write_all(&shared.control, &mut stream, &shared, Place::Control).await {
        // It fails only if the link has ended.
        let _ = stream.finish();
    }
}

/// Whether all was written.
async fn write_all(
    queue: &Outbound,
    stream: &mut SendStream,
    shared: &Shared,
    place: Place,
) -> bool {
    let mut batch = Vec::new();
    while queue.take(&mut batch).await {
        match stream.write_all_chunks(&mut batch).await {
            Ok(()) => batch.clear(),
            Err(error) => {
                if let WriteError::Stopped(_) = error {
                    let how = "stopped reading it";
                    shared.fail(LinkError::Broken { place, how }, CloseCode::Protocol);
                }
                queue.end();
                return false;
            }
        }
    }
    true
}
