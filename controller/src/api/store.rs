//! `StoreService`.

use std::{
    io::{self, Read as _},
    sync::Arc,
};

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    pb::controller::v1::{self as pb, store_service_server::StoreService},
};
use futures::{StreamExt as _, stream::BoxStream};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::admin;
use crate::world::World;

/// Bytes of a message.
const PIECE_BYTES: usize = 256 << 10;
/// Messages that wait for their reader.
const AHEAD: usize = 4;

/// Copies the store.
pub struct StoreApi {
    world: Arc<World>,
}

impl StoreApi {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }
}

fn no_room(error: &io::Error) -> Error {
    Error::unavailable(
        reason::STORAGE,
        format!("the copy of the store cannot be made ({error}); is there room in the controller's TMPDIR?"),
    )
}

/// Sends a file, and what it is recognised by. Ends when nobody reads.
fn send(mut file: std::fs::File, sender: &mpsc::Sender<Result<pb::BackupStoreResponse, Status>>) -> io::Result<()> {
    let (mut hash, mut piece) = (Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            drop(sender.blocking_send(Ok(pb::BackupStoreResponse { data: Bytes::new(), digest })));
            return Ok(());
        }
        hash.update(&piece[..count]);
        let data = Bytes::copy_from_slice(&piece[..count]);
        if sender.blocking_send(Ok(pb::BackupStoreResponse { data, digest: String::new() })).is_err() {
            return Ok(());
        }
    }
}

#[tonic::async_trait]
impl StoreService for StoreApi {
    type BackupStoreStream = BoxStream<'static, Result<pb::BackupStoreResponse, Status>>;

    async fn backup_store(
        &self,
        request: Request<pb::BackupStoreRequest>,
    ) -> Result<Response<Self::BackupStoreStream>, Status> {
        admin(&request)?;
        // Readable by this process only, and gone with it.
        let folder = tempfile::tempdir().map_err(|error| no_room(&error))?;
        let path = folder.path().join("backup.db");
        self.world.store.copy_to(&path).await.map_err(Error::from)?;
        let file = std::fs::File::open(&path).map_err(|error| no_room(&error))?;
        // It stays readable until it is closed, and then needs no room any more.
        drop(folder);
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = send(file, &sender) {
                drop(sender.blocking_send(Err(no_room(&error).into())));
            }
        });
        Ok(Response::new(
            futures::stream::unfold(receiver, async |mut receiver| {
                receiver.recv().await.map(|piece| (piece, receiver))
            })
            .boxed(),
        ))
    }
}
