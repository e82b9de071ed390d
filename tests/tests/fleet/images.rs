//! Images come onto servers from archives and from other servers, or leave everything as it was.

use feather_agent::runtime::fake::{Behaviour, archive};
use feather_proto::{
    error::{Code, Error, reason},
    pb::{
        controller::v1::{self as pb, image_service_client::ImageServiceClient, sync_image_response::Event},
        types::v1::Image,
    },
    tls::{Channel, Role},
};
use feather_tests::{Fleet, fleet::WORK_IMAGE, wait::until};

fn client(fleet: &Fleet, role: Role) -> ImageServiceClient<Channel> {
    ImageServiceClient::new(fleet.channel(fleet.identity(role, "person")))
}

fn here() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn messages(server: &str, bytes: &[u8], end: bool) -> Vec<pb::LoadImageRequest> {
    let first = pb::LoadImageRequest { server: server.into(), size_bytes: bytes.len() as u64, ..Default::default() };
    let pieces =
        bytes.chunks(100).map(|data| pb::LoadImageRequest { data: data.to_vec().into(), ..Default::default() });
    let end = end.then(|| pb::LoadImageRequest { end: true, ..Default::default() });
    std::iter::once(first).chain(pieces).chain(end).collect()
}

async fn load(fleet: &Fleet, server: &str, bytes: &[u8]) -> Result<Image, Error> {
    let messages = tokio_stream::iter(messages(server, bytes, true));
    let response = client(fleet, Role::Admin).load_image(messages).await.map_err(Error::from)?;
    Ok(response.into_inner().images.remove(0))
}

/// Digest of the image that new tenants of a server get.
async fn work_image(fleet: &Fleet, server: &str) -> String {
    let request = pb::ListImagesRequest { server: server.into() };
    let images = client(fleet, Role::Viewer).list_images(request).await.unwrap().into_inner().images;
    images.into_iter().find(|one| one.work).unwrap().image.unwrap().digest
}

async fn sync(fleet: &Fleet, from: &str, to: &str, image: &str) -> Result<pb::SyncImageDone, Error> {
    let request = pb::SyncImageRequest { from: from.into(), to: to.into(), image: image.into() };
    let mut events = client(fleet, Role::Admin).sync_image(request).await.map_err(Error::from)?.into_inner();
    while let Some(message) = events.message().await.map_err(Error::from)? {
        if let Some(Event::Done(done)) = message.event {
            return Ok(done);
        }
    }
    panic!("the copy ended without a word")
}

#[tokio::test(flavor = "multi_thread")]
async fn new_tenants_get_what_was_loaded_and_those_that_run_keep_theirs() {
    let fleet = Fleet::start(&["nyc"]).await;
    fleet.add("alice", "nyc").await;
    let old = work_image(&fleet, "nyc").await;
    let loaded = load(&fleet, "nyc", &archive(WORK_IMAGE, "new", Behaviour::Healthy, here())).await.unwrap();
    assert_eq!(loaded.reference, WORK_IMAGE);
    assert_eq!(work_image(&fleet, "nyc").await, loaded.digest, "who asks right behind a load sees it");
    fleet.add("bob", "nyc").await;
    until("both tenants are reported", async || {
        let digests = (fleet.show("alice").await.image_digest, fleet.show("bob").await.image_digest);
        if digests == (old.clone(), loaded.digest.clone()) { Ok(()) } else { Err(digests) }
    })
    .await;
    assert_eq!(fleet.starts("nyc", "alice").len(), 1, "alice was left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_not_in_order_changes_nothing() {
    let fleet = Fleet::start(&["nyc"]).await;
    let old = work_image(&fleet, "nyc").await;
    let good = archive(WORK_IMAGE, "new", Behaviour::Healthy, here());
    let foreign = archive(WORK_IMAGE, "new", Behaviour::Healthy, "s390x");
    let cases: &[(&[u8], &str)] = &[
        (b"", reason::BAD_STREAM),
        (&[b'x'; 100_000], reason::BAD_STREAM),
        (&good[..good.len() - 1024], reason::BAD_STREAM),
        (&foreign, reason::WRONG_ARCHITECTURE),
    ];
    for (bytes, wanted) in cases {
        let error = load(&fleet, "nyc", bytes).await.unwrap_err();
        assert_eq!(error.reason, *wanted, "{error}");
        assert_eq!(work_image(&fleet, "nyc").await, old);
    }
    // Whole, as far as can be seen, but whoever sent it never said so.
    let unended = tokio_stream::iter(messages("nyc", &good, false));
    let error = Error::from(client(&fleet, Role::Admin).load_image(unended).await.unwrap_err());
    assert_eq!(error.reason, reason::BAD_STREAM, "{error}");
    assert_eq!(work_image(&fleet, "nyc").await, old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_the_same_image_and_is_made_once() {
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    let new = load(&fleet, "nyc", &archive(WORK_IMAGE, "new", Behaviour::Healthy, here())).await.unwrap().digest;
    fleet.add("alice", "nyc").await;
    let error = fleet.begin_migrate("alice", "fra").await.unwrap_err();
    assert_eq!(error.reason, reason::IMAGE_MISSING, "{error}");
    assert!(error.message.contains("image sync"), "{error}");
    for present in [false, true] {
        let done = sync(&fleet, "nyc", "fra", "").await.unwrap();
        assert_eq!((done.present, done.image.unwrap().digest), (present, new.clone()));
    }
    assert_eq!(work_image(&fleet, "fra").await, new);
    assert_eq!(fleet.migrate("alice", "fra").await.state(), pb::OperationState::Succeeded);
    let error = sync(&fleet, "nyc", "fra", "localhost/absent:1").await.unwrap_err();
    assert_eq!(error.reason, reason::IMAGE_MISSING);
    assert_eq!(sync(&fleet, "nyc", "sin", "").await.unwrap_err().reason, reason::SERVER_NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_broke_is_made_again_and_one_whose_answer_was_lost_is_found() {
    use feather_agent::runtime::fake::Verb;
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    let new = load(&fleet, "nyc", &archive(WORK_IMAGE, "new", Behaviour::Healthy, here())).await.unwrap().digest;
    let old = work_image(&fleet, "fra").await;
    fleet.servers["nyc"].runtime.fail_next(Verb::ExportImage, 1);
    assert_eq!(sync(&fleet, "nyc", "fra", "").await.unwrap_err().reason, reason::RUNTIME);
    fleet.servers["fra"].runtime.fail_next(Verb::LoadImage, 1);
    let error = sync(&fleet, "nyc", "fra", "").await.unwrap_err();
    assert!(error.is(reason::RUNTIME) && error.message.contains("fra did not take the image"), "{error}");
    assert_eq!(work_image(&fleet, "fra").await, old);
    fleet.servers["fra"].runtime.lose_reply_next(Verb::LoadImage);
    assert!(sync(&fleet, "nyc", "fra", "").await.unwrap_err().code.retryable(), "nobody knows what became of it");
    assert!(sync(&fleet, "nyc", "fra", "").await.unwrap().present, "it had arrived");
    assert_eq!(work_image(&fleet, "fra").await, new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_room_takes_no_image() {
    use feather_agent::runtime::Runtime as _;
    let fleet = Fleet::start(&["nyc", "fra"]).await;
    load(&fleet, "nyc", &archive(WORK_IMAGE, "new", Behaviour::Healthy, here())).await.unwrap();
    let runtime = &fleet.servers["fra"].runtime;
    let capacity = runtime.capacity().await.unwrap();
    runtime.set_capacity(feather_agent::runtime::Capacity { disk_free_bytes: 1, ..capacity });
    let old = work_image(&fleet, "fra").await;
    let error = sync(&fleet, "nyc", "fra", "").await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Full, reason::NO_DISK));
    assert_eq!(work_image(&fleet, "fra").await, old);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_the_business_of_admins() {
    let fleet = Fleet::start(&["nyc"]).await;
    let good = archive(WORK_IMAGE, "new", Behaviour::Healthy, here());
    for role in [Role::Viewer, Role::Operator] {
        let messages = tokio_stream::iter(messages("nyc", &good, true));
        let error = Error::from(client(&fleet, role).load_image(messages).await.unwrap_err());
        assert_eq!(error.reason, reason::ROLE);
    }
}
