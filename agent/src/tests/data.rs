//! Volumes at rest.

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    pb::agent::v1 as pb,
};

use super::harness::{Server, World, refused, remove, remove_volume, start, stop, wait_until};
use crate::runtime::Runtime as _;

pub(super) async fn export(server: &Server) -> Result<Vec<u8>, Error> {
    let request = pb::ExportVolumeRequest { tenant: "alice".into() };
    let mut stream = server.volumes().export_volume(request).await?.into_inner();
    let mut archive = Vec::new();
    while let Some(piece) = stream.message().await? {
        archive.extend_from_slice(&piece.data);
    }
    Ok(archive)
}

pub(super) fn messages(archive: &[u8], generation: u64, end: bool) -> Vec<pb::ImportVolumeRequest> {
    let first = pb::ImportVolumeRequest { tenant: "alice".into(), generation, ..Default::default() };
    let pieces = archive
        .chunks(64 << 10)
        .map(|piece| pb::ImportVolumeRequest { data: Bytes::copy_from_slice(piece), ..Default::default() });
    let last = end.then(|| pb::ImportVolumeRequest { end: true, ..Default::default() });
    std::iter::once(first).chain(pieces).chain(last).collect()
}

pub(super) async fn import(
    server: &Server,
    messages: Vec<pb::ImportVolumeRequest>,
) -> Result<pb::ImportVolumeResponse, Error> {
    let answer = server.volumes().import_volume(futures::stream::iter(messages)).await;
    answer.map(tonic::Response::into_inner).map_err(Error::from)
}

#[tokio::test]
async fn an_exported_volume_is_imported_elsewhere_and_verified() {
    let world = World::new();
    let (nyc, fra) = (world.started("nyc").await, world.started("fra").await);
    nyc.add(1).await.unwrap();
    std::fs::write(nyc.volume().join("note"), vec![1; 200_000]).unwrap();
    nyc.tenants().stop_tenant(stop(1)).await.unwrap();
    let archive = export(&nyc).await.unwrap();
    let imported = import(&fra, messages(&archive, 0, true)).await.unwrap().summary.unwrap();
    let verify = pb::VerifyVolumeRequest { tenant: "alice".into(), mode: pb::VerifyMode::Full.into() };
    let there = nyc.volumes().verify_volume(verify.clone()).await.unwrap().into_inner().summary.unwrap();
    let here = fra.volumes().verify_volume(verify).await.unwrap().into_inner().summary.unwrap();
    assert_eq!((&imported.root_digest, &here.root_digest), (&there.root_digest, &there.root_digest));
    let volume = fra.volumes().get_volume(pb::GetVolumeRequest { tenant: "alice".into() }).await.unwrap().into_inner();
    assert!(volume.disk_bytes >= 200_000);
    assert_eq!(volume.volume.unwrap().last_summary, Some(here));
    assert!(fra.add(5).await.unwrap().found_data);
}

#[tokio::test]
async fn an_archive_that_is_not_whole_costs_nothing_of_what_was_there() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    std::fs::write(nyc.volume().join("note"), vec![1; 200_000]).unwrap();
    let archive = export(&nyc).await.unwrap();
    let running = import(&nyc, messages(&archive, 1, true)).await.unwrap_err();
    assert_eq!(running.reason, reason::WRONG_STATE);
    nyc.tenants().stop_tenant(stop(1)).await.unwrap();
    std::fs::write(nyc.volume().join("newer"), "than the archive").unwrap();
    for cut in [messages(&archive, 1, false), messages(&archive[..archive.len() / 2], 1, true)] {
        let error = import(&nyc, cut).await.unwrap_err();
        assert_eq!(error.reason, reason::BAD_STREAM);
        assert!(error.message.contains("the volume of alice is as it was"), "{error}");
        assert_eq!(std::fs::read_to_string(nyc.volume().join("newer")).unwrap(), "than the archive");
        assert_eq!(nyc.engine.volumes("feather-import-").await.unwrap(), Vec::<String>::new());
    }
    nyc.tenants().start_tenant(start(1)).await.unwrap();
    nyc.tenants().stop_tenant(stop(1)).await.unwrap();
    import(&nyc, messages(&archive, 1, true)).await.unwrap();
    nyc.tenants().start_tenant(start(1)).await.unwrap();
    assert_eq!(nyc.public().0, 200);
    assert_eq!(std::fs::read(nyc.volume().join("note")).unwrap().len(), 200_000);
    assert!(!nyc.volume().join("newer").exists());
    assert_eq!(nyc.engine.volumes("feather-import-").await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn what_an_import_that_was_cut_off_has_left_is_deleted() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    nyc.add(1).await.unwrap();
    nyc.engine.ensure_volume("feather-import-alice").await.unwrap();
    nyc.engine.ensure_volume("feather-import-Not.A.Tenant").await.unwrap();
    wait_until("the staging volume to go", async || {
        let left = nyc.engine.volumes("feather-import-").await.unwrap();
        (left == ["feather-import-Not.A.Tenant"], left)
    })
    .await;
}

#[tokio::test]
async fn a_volume_is_deleted_only_when_nobody_lives_on_it() {
    let world = World::new();
    let nyc = world.started("nyc").await;
    assert_eq!(export(&nyc).await.unwrap_err().reason, reason::VOLUME_NOT_FOUND);
    nyc.add(1).await.unwrap();
    assert_eq!(refused(nyc.volumes().remove_volume(remove_volume(1)).await).reason, reason::WRONG_STATE);
    nyc.tenants().remove_tenant(remove(1)).await.unwrap();
    for _ in 0..2 {
        nyc.volumes().remove_volume(remove_volume(1)).await.unwrap();
    }
    assert!(!nyc.volume().exists());
    assert!(!nyc.add(2).await.unwrap().found_data);
}
