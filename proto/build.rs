//! Compiles the schema with protox, so that no system `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: &[&str] = &[
    "feather/types/v1/types.proto",
    "feather/types/v1/adoption.proto",
    "feather/types/v1/label.proto",
    "feather/types/v1/life.proto",
    "feather/types/v1/limits.proto",
    "feather/agent/v1/access.proto",
    "feather/agent/v1/adoption.proto",
    "feather/agent/v1/certificate.proto",
    "feather/agent/v1/image.proto",
    "feather/agent/v1/local.proto",
    "feather/agent/v1/server.proto",
    "feather/agent/v1/tenant.proto",
    "feather/agent/v1/transfer.proto",
    "feather/agent/v1/volume.proto",
    "feather/agent/v1/volume_stream.proto",
    "feather/agent/v1/waitlist.proto",
    "feather/agent/v1/work.proto",
    "feather/controller/v1/audit.proto",
    "feather/controller/v1/backup.proto",
    "feather/controller/v1/cert.proto",
    "feather/controller/v1/dns.proto",
    "feather/controller/v1/enrollment.proto",
    "feather/controller/v1/event.proto",
    "feather/controller/v1/image.proto",
    "feather/controller/v1/member.proto",
    "feather/controller/v1/operation.proto",
    "feather/controller/v1/server.proto",
    "feather/controller/v1/status.proto",
    "feather/controller/v1/store.proto",
    "feather/controller/v1/tenant.proto",
    "feather/controller/v1/user.proto",
    "feather/controller/v1/volume.proto",
    "feather/controller/v1/waitlist.proto",
    "feather/controller/v1/warning.proto",
];

/// Fields that carry passwords, tickets, tokens or e-mail addresses; the generated `Debug` of their messages must not exist.
const SECRET_MESSAGES: &[&str] = &[
    "feather.agent.v1.AddLocalTenantResponse",
    "feather.agent.v1.AddTenantResponse",
    "feather.agent.v1.GetEntryRequest",
    "feather.agent.v1.GetEntryResponse",
    "feather.agent.v1.GrantTransferRequest",
    "feather.agent.v1.ListEntriesResponse",
    "feather.agent.v1.PullVolumeRequest",
    "feather.agent.v1.RemoveEntryRequest",
    "feather.agent.v1.ResetPasswordResponse",
    "feather.agent.v1.SendVolumeBegin",
    "feather.agent.v1.SetCertificateRequest",
    "feather.agent.v1.TenantSpec",
    "feather.agent.v1.WaitlistEntry",
    "feather.controller.v1.AddUserResponse",
    "feather.controller.v1.CreateJoinTokenResponse",
    "feather.controller.v1.CreateWebTokenResponse",
    "feather.controller.v1.InviteRequest",
    "feather.controller.v1.JoinRequest",
    "feather.controller.v1.ListEntriesResponse",
    "feather.controller.v1.LoginRequest",
    "feather.controller.v1.RemoveEntryRequest",
    "feather.controller.v1.ResetPasswordResponse",
    "feather.controller.v1.WaitlistEntry",
    "feather.controller.v1.WatchOperationResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=feather");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("feather.bin"), descriptors.encode_to_vec())?;
    let mut builder = tonic_prost_build::configure().bytes(".");
    builder = builder.skip_debug(SECRET_MESSAGES.iter());
    builder.compile_fds(descriptors)?;
    Ok(())
}
