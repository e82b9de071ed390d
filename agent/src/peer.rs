//! The client end of one call: a tenant's spec and volume from the agent it lives with.
//!
//! Owns dialling a peer and decoding what it sends. Trusts nothing of it but its certificate; what the frames mean is checked
//! by the volume engine.

use std::sync::Arc;

use feather_proto::{
    error::{Error, reason},
    ids::{Generation, ServerName, TenantName},
    model,
    pb::agent::v1::{self as pb, volume_service_client::VolumeServiceClient},
    tls::{self, Principal, Rotating, Trust},
};
use futures::{Stream, StreamExt as _};
use time::OffsetDateTime;

use crate::{
    grant::Ticket,
    password::Password,
    volume::{self, Frame},
};

/// A message holds at most a batch of 2 MiB and its envelope.
pub(crate) const MESSAGE_MAX_BYTES: usize = 8 << 20;

/// What a source says of a tenant.
#[derive(Debug, Clone)]
pub(crate) struct SourceSpec {
    pub(crate) password: Password,
    pub(crate) image: String,
    pub(crate) image_digest: String,
    pub(crate) created: OffsetDateTime,
}

/// Where a volume comes from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// `host:port`.
    pub(crate) address: String,
    /// The peer's certificate must carry this name.
    pub(crate) server: ServerName,
    pub(crate) ticket: Ticket,
}

/// Calls to peers, with this server's identity.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) dial: Arc<dyn tls::Dial>,
    pub(crate) identity: Rotating,
}

impl Peers {
    /// Begins to fetch: the spec, then the frames of the volume.
    pub(crate) async fn fetch(
        &self,
        source: &Source,
        tenant: &TenantName,
        generation: Generation,
    ) -> Result<(SourceSpec, impl Stream<Item = Result<Frame, Error>> + Send + use<>), Error> {
        let expected = Principal::agent(&source.server);
        let trust = Trust::Mutual(self.identity.clone());
        let channel = tls::channel(self.dial.clone(), &source.address, &expected, &trust)
            .map_err(|error| Error::bug(error.to_string()))?;
        let mut client = VolumeServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES);
        let request = pb::SendVolumeRequest {
            tenant: tenant.to_string(),
            generation: generation.0,
            ticket: source.ticket.expose().to_owned(),
        };
        let attempt = format!("the volume of {tenant} cannot be fetched from {} at {}", source.server, source.address);
        let failed = |status| Error::from(status).context(&attempt);
        let mut stream = client.send_volume(request).await.map_err(failed)?.into_inner();
        let first = stream.message().await.map_err(failed)?.and_then(|message| message.event);
        let Some(pb::send_volume_response::Event::Spec(spec)) = first else {
            return Err(bad_stream("it does not begin with the tenant's spec"));
        };
        let spec = SourceSpec::try_from(spec)?;
        let frames = stream.map(|message| match message.map_err(Error::from)?.event {
            Some(pb::send_volume_response::Event::Frame(frame)) => {
                Frame::try_from(frame).map_err(|error: volume::Error| error.into())
            }
            _ => Err(bad_stream("something else than a frame follows")),
        });
        Ok((spec, frames))
    }
}

impl TryFrom<pb::TenantSpec> for SourceSpec {
    type Error = Error;

    fn try_from(spec: pb::TenantSpec) -> Result<Self, Error> {
        Ok(Self {
            password: Password::received(spec.password)?,
            image: spec.image,
            image_digest: spec.image_digest,
            created: model::from_timestamp(&model::required(spec.created, "created")?)?,
        })
    }
}

impl From<SourceSpec> for pb::TenantSpec {
    fn from(spec: SourceSpec) -> Self {
        Self {
            password: spec.password.expose().to_owned(),
            image: spec.image,
            image_digest: spec.image_digest,
            created: Some(model::to_timestamp(spec.created)),
        }
    }
}

fn bad_stream(problem: &str) -> Error {
    Error::invalid(
        reason::BAD_STREAM,
        format!("the peer's volume stream is refused: {problem}; run the same version on both servers"),
    )
}
