//! The wire: schema, strict types, error codes, identity.
//!
//! Owns everything that two processes of the fleet must agree on. Knows nothing of what they do with it: no Podman, no
//! Caddy, no store. The generated code is in [`pb`] and is named only by the files that encode and decode.

pub mod adoption;
pub mod describe;
pub mod email;
pub mod epoch;
pub mod error;
pub mod forward;
pub mod ids;
pub mod join_token;
pub mod labels;
pub mod limits;
pub mod login_token;
pub mod model;
pub mod tls;
mod token;
pub mod trace;
pub mod version;

/// Bytes that a message takes on the wire, without what carries it.
pub fn encoded_bytes(message: &impl prost::Message) -> u64 {
    message.encoded_len() as u64
}

/// A message as it goes over the wire.
pub fn encode(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// The message in these bytes; its own byte fields share them.
///
/// # Errors
/// They are no such message.
pub fn decode<M: prost::Message + Default>(bytes: bytes::Bytes) -> Result<M, prost::DecodeError> {
    M::decode(bytes)
}

/// Generated from `proto/feather/**.proto`; documentation lives there.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod pb {
    /// Package `feather.types`.
    pub mod types {
        /// `feather.types.v1`
        pub mod v1 {
            tonic::include_proto!("feather.types.v1");
        }
    }
    /// Package `feather.agent`.
    pub mod agent {
        /// `feather.agent.v1`
        pub mod v1 {
            tonic::include_proto!("feather.agent.v1");

            // Generated Debug is off for messages with secrets; these are inside a oneof that needs it.
            impl std::fmt::Debug for SendVolumeBegin {
                fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    formatter.debug_struct("SendVolumeBegin").field("tenant", &self.tenant).finish_non_exhaustive()
                }
            }

            impl std::fmt::Debug for TenantSpec {
                fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    formatter.debug_struct("TenantSpec").field("image", &self.image).finish_non_exhaustive()
                }
            }
        }
    }
    /// Package `feather.controller`.
    pub mod controller {
        /// `feather.controller.v1`
        pub mod v1 {
            tonic::include_proto!("feather.controller.v1");
        }
    }
    /// Encoded descriptors of the whole schema, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/feather.bin"));
}
