//! Identity: who is at the other end of a connection, and the mutual TLS that proves it.
//!
//! Owns the identity bundle (certificate, key, the fleet's CA), the naming of certificates, and both ends of a connection.
//! Knows nothing of what a role may do; that is decided where calls are served. Issuing certificates is the controller's.

mod connect;
mod gate;
mod identity;
mod issued;
mod limits;
mod public;
mod revoked;
mod serve;
mod watched;

pub use connect::{Channel, Dial, Tcp, Trust, channel, dial_any, fetch_ca, sha256_hex};
pub use gate::{Answering, Gate, Gated, refusal};
pub use identity::{Identity, IdentityError, Principal, Role, Rotating, csr};
pub use issued::issued;
pub use limits::{Bounds, Limits, Seat, Seats, Taken};
pub use public::{CertificateFacts, PublicCertificate};
pub use revoked::{Revocation, Revocations, Revoked};
pub use serve::{
    BoxIo, ClientCertificate, Connection, Incoming, Io, Peer, TcpIncoming, calling, entitled, incoming, peer,
    peer_valid_from, require,
};
