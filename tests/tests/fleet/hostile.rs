//! A peer with a certificate of the fleet that means ill, over the wire: it gets nothing, and breaks nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use feather_proto::{
    error::{Error, reason},
    pb::{
        agent::v1::{
            self as pb,
            send_volume_request::Event as Ask,
            send_volume_response::Event as Send,
            tenant_service_client::TenantServiceClient,
            transfer_service_client::TransferServiceClient,
            transfer_service_server::{TransferService, TransferServiceServer},
            volume_entry::Node,
            volume_frame::Frame,
            volume_service_client::VolumeServiceClient,
            volume_step::Step,
        },
        controller::v1 as controller_pb,
        types::v1::VolumeSummary,
    },
    tls::{self, Channel, ClientCertificate, Principal, Role, Rotating, Trust},
};
use feather_tests::{Fleet, fleet::request_id, wait::until};
use futures::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status, Streaming};

const TICKET: &str = "a-ticket-of-more-than-32-characters";
const SECRET: &str = "what only alice may read";

async fn fleet_with_alice() -> Fleet {
    let fleet = Fleet::start(&["nyc", "fra", "ams"]).await;
    fleet.add("alice", "nyc").await;
    std::fs::write(fleet.volume("nyc", "alice").join("diary"), SECRET).unwrap();
    fleet
}

/// A channel that `who` opens to an address with its own certificate of the fleet.
fn dial(fleet: &Fleet, who: &str, role: Role, address: &str, expected: &Principal) -> Channel {
    let trust = Trust::Mutual(Rotating::new(fleet.identity(role, who)).unwrap());
    tls::channel(fleet.network.from(who), address, expected, &trust).unwrap()
}

fn begin(generation: u64, ticket: &str) -> pb::SendVolumeBegin {
    pb::SendVolumeBegin {
        tenant: "alice".into(),
        generation,
        ticket: ticket.into(),
        pass: pb::TransferPass::Live.into(),
        ..Default::default()
    }
}

fn ask(begin: pb::SendVolumeBegin) -> pb::SendVolumeRequest {
    pb::SendVolumeRequest { event: Some(Ask::Begin(begin)) }
}

/// Everything that an agent sends to whoever asks so, until it ends the stream.
async fn sent(
    channel: Channel,
    asked: impl Stream<Item = pb::SendVolumeRequest> + std::marker::Send + 'static,
) -> Result<Vec<pb::SendVolumeResponse>, Error> {
    let mut stream = TransferServiceClient::new(channel).send_volume(asked).await?.into_inner();
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        all.push(message);
    }
    Ok(all)
}

async fn from_nyc(fleet: &Fleet, who: &str, begin: pb::SendVolumeBegin) -> Result<usize, Error> {
    let channel = dial(fleet, who, Role::Agent, "nyc:7443", &Principal::agent("nyc"));
    sent(channel, stream::iter([ask(begin)])).await.map(|all| all.len())
}

async fn grant(fleet: &Fleet, generation: u64, ticket: &str, ttl_seconds: u32) {
    let request = pb::GrantTransferRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        generation,
        peer: "fra".into(),
        ticket: ticket.into(),
        ttl_seconds,
        relayed: false,
    };
    let channel = fleet.agent_channel("nyc", fleet.identity(Role::Controller, "controller"));
    VolumeServiceClient::new(channel).grant_transfer(request).await.unwrap();
}

/// alice was not disturbed, and the next move works.
async fn unharmed(fleet: &Fleet) {
    assert_eq!(fleet.request("nyc", "alice").served_by.as_deref(), Some("nyc"));
    let moved = fleet.migrate("alice", "fra").await;
    assert_eq!(moved.state(), controller_pb::OperationState::Succeeded, "{:#?}", moved.operation);
    assert_eq!(std::fs::read_to_string(fleet.volume("fra", "alice").join("diary")).unwrap(), SECRET);
    assert_eq!(fleet.recorder.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_the_right_ticket_gets_nothing() {
    let fleet = fleet_with_alice().await;
    let generation = fleet.show("alice").await.generation + 1;
    let nothing = |answer: Result<usize, Error>, what: &str| {
        let error = answer.expect_err(what);
        assert!(error.is(reason::TICKET), "{what}: {error:?}");
        assert!(!error.message.contains("alice") && error.metadata.is_empty(), "{what} tells something: {error:?}");
    };
    nothing(from_nyc(&fleet, "fra", begin(generation, TICKET)).await, "before any grant");
    grant(&fleet, generation, TICKET, 60).await;
    nothing(from_nyc(&fleet, "ams", begin(generation, TICKET)).await, "another peer");
    nothing(from_nyc(&fleet, "fra", begin(generation, "")).await, "no ticket");
    nothing(from_nyc(&fleet, "fra", begin(generation, &"x".repeat(40))).await, "another ticket");
    nothing(from_nyc(&fleet, "fra", begin(generation - 1, TICKET)).await, "another generation");
    nothing(from_nyc(&fleet, "fra", begin(generation + 1, TICKET)).await, "a generation to come");
    let bob = pb::SendVolumeBegin { tenant: "bob".into(), ..begin(generation, TICKET) };
    nothing(from_nyc(&fleet, "fra", bob).await, "another volume");
    let last = pb::SendVolumeBegin { pass: pb::TransferPass::Final.into(), ..begin(generation, TICKET) };
    let early = from_nyc(&fleet, "fra", last).await.unwrap_err();
    assert!(early.is(reason::WRONG_STATE), "a last pass of a tenant that runs: {early:?}");
    assert!(from_nyc(&fleet, "fra", begin(generation, TICKET)).await.is_ok(), "the right one");
    grant(&fleet, generation, &"y".repeat(40), 60).await;
    nothing(from_nyc(&fleet, "fra", begin(generation, TICKET)).await, "one that was replaced");
    grant(&fleet, generation, TICKET, 1).await;
    until("the ticket expires", async || match from_nyc(&fleet, "fra", begin(generation, TICKET)).await {
        Err(error) if error.is(reason::TICKET) => Ok(()),
        other => Err(other),
    })
    .await;
    unharmed(&fleet).await;
    nothing(from_nyc(&fleet, "fra", begin(generation, TICKET)).await, "one of a move that has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_and_strangers_get_nothing_either() {
    let fleet = fleet_with_alice().await;
    let generation = fleet.show("alice").await.generation + 1;
    grant(&fleet, generation, TICKET, 60).await;
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        let channel = dial(&fleet, "fra", role, "nyc:7443", &Principal::agent("nyc"));
        let error = sent(channel, stream::iter([ask(begin(generation, TICKET))])).await.map(|all| all.len());
        assert!(error.as_ref().is_err_and(|error| error.is(reason::ROLE)), "{role:?}: {error:?}");
    }
    let silent: [(&str, Vec<pb::SendVolumeRequest>); 3] = [
        ("nothing", vec![]),
        ("an empty message", vec![pb::SendVolumeRequest { event: None }]),
        ("a list first", vec![pb::SendVolumeRequest { event: Some(Ask::Base(pb::SendVolumeBase::default())) }]),
    ];
    for (what, messages) in silent {
        for (address, expected) in [("nyc:7443", Principal::agent("nyc")), ("controller:7400", Principal::controller())]
        {
            let channel = dial(&fleet, "fra", Role::Agent, address, &expected);
            let error = sent(channel, stream::iter(messages.clone())).await.map(|all| all.len());
            assert!(error.as_ref().is_err_and(|error| error.is(reason::INVALID_FIELD)), "{what}: {error:?}");
        }
    }
    unharmed(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_relays_nothing_but_moves_of_its_own() {
    let fleet = fleet_with_alice().await;
    let generation = fleet.show("alice").await.generation + 1;
    // Good for nyc itself, and for nobody by way of the controller.
    grant(&fleet, generation, TICKET, 60).await;
    for (who, role, wanted) in
        [("fra", Role::Agent, reason::TICKET), ("ams", Role::Agent, reason::TICKET), ("fra", Role::Admin, reason::ROLE)]
    {
        let channel = dial(&fleet, who, role, "controller:7400", &Principal::controller());
        let error = sent(channel, stream::iter([ask(begin(generation, TICKET))])).await.map(|all| all.len());
        assert!(error.as_ref().is_err_and(|error| error.is(wanted)), "{who} as {role:?}: {error:?}");
    }
    unharmed(&fleet).await;
}

fn entry(depth: u32, name: &[u8], node: Node) -> pb::VolumeEntry {
    pb::VolumeEntry {
        depth,
        name: Bytes::copy_from_slice(name),
        metadata: Some(pb::VolumeMetadata { mode: 0o755, links: 1, ..Default::default() }),
        node: Some(node),
    }
}

fn directory(depth: u32, name: &[u8]) -> pb::VolumeEntry {
    entry(depth, name, Node::Directory(pb::VolumeDirectory {}))
}

fn root() -> pb::VolumeEntry {
    directory(0, b"")
}

fn held(name: &[u8]) -> pb::VolumeBaseEntry {
    let file = pb::VolumeRegularFile { size: 1, held: true, digest: vec![7; 32].into(), ..Default::default() };
    pb::VolumeBaseEntry { entry: Some(entry(1, name, Node::RegularFile(file))), blocks: Bytes::new() }
}

fn listed(entries: Vec<pb::VolumeBaseEntry>, last: bool) -> pb::SendVolumeRequest {
    pb::SendVolumeRequest { event: Some(Ask::Base(pb::SendVolumeBase { entries, last })) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lies_ends_its_own_pass_and_nothing_else() {
    let fleet = fleet_with_alice().await;
    let generation = fleet.show("alice").await.generation + 1;
    grant(&fleet, generation, TICKET, 60).await;
    let opening = || {
        let begin = pb::SendVolumeBegin { base_digest: vec![9; 32].into(), ..begin(generation, TICKET) };
        ask(begin)
    };
    let base = |entry| pb::VolumeBaseEntry { entry: Some(entry), blocks: Bytes::new() };
    let lies: Vec<(&str, Vec<pb::SendVolumeRequest>)> = vec![
        ("is cut off", vec![listed(vec![base(root())], false)]),
        ("has no root", vec![listed(vec![held(b"a")], true)]),
        ("leads out", vec![listed(vec![base(root()), held(b"../../etc")], true)]),
        ("is out of order", vec![listed(vec![base(root()), held(b"z"), held(b"a")], true)]),
        ("jumps down", vec![listed(vec![base(root()), base(directory(7, b"deep"))], true)]),
        ("is no list", vec![opening()]),
        ("has an entry of nothing", vec![listed(vec![pb::VolumeBaseEntry::default()], true)]),
    ];
    for (what, messages) in lies {
        let channel = dial(&fleet, "fra", Role::Agent, "nyc:7443", &Principal::agent("nyc"));
        let asked = stream::iter([opening()]).chain(stream::iter(messages));
        let answer = sent(channel, asked).await.map(|all| all.len());
        assert!(answer.is_err(), "a list that {what} was believed: {answer:?}");
    }
    unharmed(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_an_end_keeps_nobody_from_anything() {
    let fleet = fleet_with_alice().await;
    let generation = fleet.show("alice").await.generation + 1;
    grant(&fleet, generation, TICKET, 60).await;
    let opening = ask(pb::SendVolumeBegin { base_digest: vec![9; 32].into(), ..begin(generation, TICKET) });
    let taken = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = taken.clone();
    let root = pb::VolumeBaseEntry { entry: Some(root()), blocks: Bytes::new() };
    let endless = stream::iter([opening, listed(vec![root], false)]).chain(stream::unfold(0_u64, move |number| {
        counter.store(number, std::sync::atomic::Ordering::SeqCst);
        let entries = (0..500).map(|more| held(format!("x{:016}", number + more).as_bytes())).collect();
        async move { Some((listed(entries, false), number + 500)) }
    }));
    let channel = dial(&fleet, "fra", Role::Agent, "nyc:7443", &Principal::agent("nyc"));
    let pass = tokio::spawn(sent(channel, endless));
    until("a long list was taken, or refused", async || {
        let count = taken.load(std::sync::atomic::Ordering::SeqCst);
        if count > 20_000 || pass.is_finished() { Ok(()) } else { Err(count) }
    })
    .await;
    // While it goes on, and with its ticket taken away by the next move.
    unharmed(&fleet).await;
    until("the pass has ended", async || if pass.is_finished() { Ok(()) } else { Err("it goes on") }).await;
    assert!(pass.await.unwrap().is_err());
}

/// A source that sends what it was told to, whoever asks.
#[derive(Clone)]
struct Evil {
    says: Arc<dyn Fn() -> Said + std::marker::Send + Sync>,
}

type Said = Pin<Box<dyn Stream<Item = pb::SendVolumeResponse> + std::marker::Send>>;

#[tonic::async_trait]
impl TransferService for Evil {
    type SendVolumeStream = Pin<Box<dyn Stream<Item = Result<pb::SendVolumeResponse, Status>> + std::marker::Send>>;

    async fn send_volume(
        &self,
        _: Request<Streaming<pb::SendVolumeRequest>>,
    ) -> Result<Response<Self::SendVolumeStream>, Status> {
        Ok(Response::new(Box::pin((self.says)().map(Ok))))
    }
}

/// Lets an evil source listen, with the certificate of this agent.
fn listen(fleet: &Fleet, as_agent: &str, says: impl Fn() -> Said + std::marker::Send + Sync + 'static) {
    let identity = Rotating::new(fleet.identity(Role::Agent, as_agent)).unwrap();
    let incoming =
        tls::incoming(fleet.network.listen("evil:7443"), &identity, ClientCertificate::Required, false).unwrap();
    let service = TransferServiceServer::new(Evil { says: Arc::new(says) }).max_encoding_message_size(64 << 20);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
}

fn spec(fleet: &Fleet) -> pb::SendVolumeResponse {
    let spec = pb::TenantSpec {
        password: "abcdefghij".into(),
        image: "localhost/feather-work:latest".into(),
        image_digest: image_digest(fleet),
        created: Some(feather_proto::model::to_timestamp(time::OffsetDateTime::UNIX_EPOCH)),
        limits: None,
    };
    pb::SendVolumeResponse { event: Some(Send::Spec(spec)) }
}

fn image_digest(fleet: &Fleet) -> String {
    fleet.servers["nyc"].runtime.spec("feather-user-alice").unwrap().image
}

fn frame(frame: Frame) -> pb::SendVolumeResponse {
    pb::SendVolumeResponse { event: Some(Send::Frame(pb::VolumeFrame { frame: Some(frame) })) }
}

fn header() -> pb::SendVolumeResponse {
    frame(Frame::Header(pb::VolumeHeader { version: 2, base: pb::VolumeBase::Nothing.into(), ..Default::default() }))
}

fn batch(entries: Vec<pb::VolumeEntry>) -> pb::SendVolumeResponse {
    let steps = entries.into_iter().map(|entry| pb::VolumeStep { step: Some(Step::Entry(entry)) }).collect();
    frame(Frame::Batch(pb::VolumeBatch { steps }))
}

fn trailer() -> pb::SendVolumeResponse {
    frame(Frame::Trailer(pb::VolumeTrailer { summary: Some(VolumeSummary::default()), ..Default::default() }))
}

fn file(depth: u32, name: &[u8], data: &[u8]) -> pb::VolumeEntry {
    let extents = vec![pb::VolumeExtent { offset: 0, data: Bytes::copy_from_slice(data) }];
    let size = data.len() as u64;
    let file = pb::VolumeRegularFile { size, extents, digest: vec![7; 32].into(), ..Default::default() };
    entry(depth, name, Node::RegularFile(file))
}

fn symlink(name: &[u8], target: &[u8]) -> pb::VolumeEntry {
    entry(1, name, Node::Symlink(pb::VolumeSymlink { target: Bytes::copy_from_slice(target) }))
}

fn streamed(size: u64) -> pb::VolumeEntry {
    let file = pb::VolumeRegularFile { size, streamed: true, ..Default::default() };
    entry(1, b"bomb", Node::RegularFile(file))
}

fn chunk(offset: u64, length: usize) -> pb::SendVolumeResponse {
    let data = vec![7; length].into();
    let extents = vec![pb::VolumeExtent { offset, data }];
    frame(Frame::Chunk(pb::VolumeChunk { extents, ..Default::default() }))
}

/// Streams of an evil source, by what is wrong with them.
fn evil(fleet: &Fleet) -> BTreeMap<&'static str, Vec<pb::SendVolumeResponse>> {
    let opened = |rest: Vec<pb::SendVolumeResponse>| [vec![spec(fleet), header()], rest].concat();
    let named = |name: &[u8]| opened(vec![batch(vec![root(), file(1, name, b"evil")]), trailer()]);
    let other_image = pb::TenantSpec {
        password: "abcdefghij".into(),
        image_digest: format!("sha256:{}", "0".repeat(64)),
        created: Some(feather_proto::model::to_timestamp(time::OffsetDateTime::UNIX_EPOCH)),
        ..Default::default()
    };
    BTreeMap::from([
        ("it says nothing", vec![]),
        ("no spec", vec![header(), batch(vec![root()]), trailer()]),
        ("two specs", vec![spec(fleet), spec(fleet)]),
        ("another image", vec![pb::SendVolumeResponse { event: Some(Send::Spec(other_image)) }, header()]),
        ("no header", vec![spec(fleet), batch(vec![root()]), trailer()]),
        (
            "an empty frame",
            opened(vec![pb::SendVolumeResponse { event: Some(Send::Frame(pb::VolumeFrame::default())) }]),
        ),
        ("up", named(b"..")),
        ("up and over", named(b"../../escaped")),
        ("an absolute name", named(b"/escaped")),
        ("a name with a NUL", named(b"esc\0aped")),
        ("a wrong digest", named(b"fine")),
        (
            "through a symbolic link",
            opened(vec![batch(vec![root(), symlink(b"out", b"../.."), file(2, b"escaped", b"evil")]), trailer()]),
        ),
        (
            "a file in place of the link",
            opened(vec![batch(vec![root(), symlink(b"out", b"../../escaped"), file(1, b"out", b"evil")]), trailer()]),
        ),
        (
            "a hard link out of nowhere",
            opened(vec![batch(vec![root(), entry(1, b"link", Node::HardLink(pb::VolumeHardLink { first: 99 }))])]),
        ),
        ("a file of all the disks of the world", opened(vec![batch(vec![root(), streamed(u64::MAX)]), chunk(0, 4096)])),
        ("more content than it said", opened(vec![batch(vec![root(), streamed(10)]), chunk(0, 4096)])),
        ("content far behind the end", opened(vec![batch(vec![root(), streamed(4096)]), chunk(1 << 40, 1)])),
        ("a message beyond the limit", opened(vec![batch(vec![root(), streamed(64 << 20)]), chunk(0, 12 << 20)])),
        ("a batch of too many", opened(vec![batch(vec![root(); 20_000])])),
        ("an end before anything", opened(vec![trailer()])),
        ("a trailer that lies", opened(vec![batch(vec![root()]), trailer()])),
        ("cut off", opened(vec![batch(vec![root(), directory(1, b"a")])])),
        (
            "what the target does not have",
            opened(vec![frame(Frame::Batch(pb::VolumeBatch {
                steps: vec![pb::VolumeStep { step: Some(Step::Keep(5)) }],
            }))]),
        ),
    ])
}

fn pull(generation: u64) -> pb::PullVolumeRequest {
    pb::PullVolumeRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        generation,
        source_address: "evil:7443".into(),
        source_server: "nyc".into(),
        ticket: TICKET.into(),
        pass: pb::TransferPass::Final.into(),
        ..Default::default()
    }
}

async fn pulled(fleet: &Fleet, request: pb::PullVolumeRequest) -> Result<(), Error> {
    let channel = fleet.agent_channel("fra", fleet.identity(Role::Controller, "controller"));
    let mut stream = VolumeServiceClient::new(channel).pull_volume(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        if let Some(pb::pull_volume_response::Event::Done(_)) = message.event {
            return Ok(());
        }
    }
    panic!("a pull ended without a result");
}

/// A move that no operation is about: the controller would give it back, and is kept out of it until it is abandoned.
async fn reserve(fleet: &mut Fleet, generation: u64) {
    fleet.stop_controller().await;
    let request = pb::ReserveTenantRequest {
        request_id: request_id(),
        tenant: "alice".into(),
        generation,
        image_digest: image_digest(fleet),
        volume_bytes: 1000,
    };
    let channel = fleet.agent_channel("fra", fleet.identity(Role::Controller, "controller"));
    TenantServiceClient::new(channel).reserve_tenant(request).await.unwrap();
}

/// Everything on a server's disk but its ledger and alice's volume.
fn around(fleet: &Fleet, server: &str) -> BTreeSet<PathBuf> {
    let state = &fleet.servers[server].state_dir;
    let inside = fleet.volume(server, "alice");
    let (mut found, mut folders) = (BTreeSet::new(), vec![state.parent().unwrap().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path == *state || path == inside {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(path.clone());
            }
            // Folders on the way to the volume come and go with it.
            if !inside.starts_with(&path) {
                found.insert(path);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_means_ill_writes_nothing_that_is_ever_started() {
    let mut fleet = fleet_with_alice().await;
    let generation = fleet.show("alice").await.generation + 1;
    reserve(&mut fleet, generation).await;
    let before = around(&fleet, "fra");
    for (what, messages) in evil(&fleet) {
        listen(&fleet, "nyc", move || stream::iter(messages.clone()).boxed());
        let refused = pulled(&fleet, pull(generation)).await.expect_err(what);
        assert_ne!(refused.reason, reason::INTERNAL, "{what}: {refused:?}");
        assert_eq!(around(&fleet, "fra"), before, "{what}");
        let start = pb::StartTenantRequest {
            request_id: request_id(),
            tenant: "alice".into(),
            generation,
            mode: pb::StartMode::Trial.into(),
        };
        let channel = fleet.agent_channel("fra", fleet.identity(Role::Controller, "controller"));
        TenantServiceClient::new(channel).start_tenant(start).await.expect_err(what);
    }
    abandon(&mut fleet, generation).await;
    assert!(!fleet.volume("fra", "alice").exists());
    unharmed(&fleet).await;
}

async fn abandon(fleet: &mut Fleet, generation: u64) {
    let request =
        pb::AbandonTenantRequest { request_id: request_id(), tenant: "alice".into(), generation, keep_data: false };
    let channel = fleet.agent_channel("fra", fleet.identity(Role::Controller, "controller"));
    TenantServiceClient::new(channel).abandon_tenant(request).await.unwrap();
    fleet.start_controller().await;
    fleet.all_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_another_servers_certificate_is_not_listened_to() {
    let mut fleet = fleet_with_alice().await;
    let generation = fleet.show("alice").await.generation + 1;
    reserve(&mut fleet, generation).await;
    let said = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let heard = said.clone();
    listen(&fleet, "ams", move || {
        heard.store(true, std::sync::atomic::Ordering::SeqCst);
        stream::empty().boxed()
    });
    let refused = pulled(&fleet, pull(generation)).await.unwrap_err();
    assert!(refused.is(reason::PEER_UNREACHABLE), "{refused:?}");
    let relayed = pulled(&fleet, pb::PullVolumeRequest { relayed: true, ..pull(generation) }).await.unwrap_err();
    assert!(relayed.is(reason::CONTROLLER_UNREACHABLE), "only the controller may relay: {relayed:?}");
    assert!(!said.load(std::sync::atomic::Ordering::SeqCst), "it was asked, ticket and all");
    abandon(&mut fleet, generation).await;
    unharmed(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_an_end_fills_no_disk_and_is_ended_by_its_caller() {
    let mut fleet = fleet_with_alice().await;
    let generation = fleet.show("alice").await.generation + 1;
    reserve(&mut fleet, generation).await;
    let opened = [spec(&fleet), header(), batch(vec![root()])];
    listen(&fleet, "nyc", move || {
        let endless = stream::unfold(0_u64, |number| async move {
            let names = (0..100).map(|more| directory(1, format!("x{:016}", number + more).as_bytes())).collect();
            Some((batch(names), number + 100))
        });
        stream::iter(opened.clone()).chain(endless).boxed()
    });
    let channel = fleet.agent_channel("fra", fleet.identity(Role::Controller, "controller"));
    let mut stream = VolumeServiceClient::new(channel).pull_volume(pull(generation)).await.unwrap().into_inner();
    let volume = fleet.volume("fra", "alice");
    until("some of it has come", async || {
        let count = std::fs::read_dir(&volume).map(Iterator::count).unwrap_or(0);
        if count > 500 { Ok(()) } else { Err(count) }
    })
    .await;
    assert!(stream.message().await.unwrap().is_some());
    drop(stream);
    abandon(&mut fleet, generation).await;
    assert!(!volume.exists());
    unharmed(&fleet).await;
}
