//! The way that the data of a move takes: the same flags for whoever moves somebody.

use feather_proto::pb::controller::v1 as pb;

use crate::units;

/// Flags of moves.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Flow {
    /// Bytes per second to send at most for each move, as 20MiB; also while requests wait, which may take longer then.
    #[arg(long, value_name = "RATE", value_parser = units::parse_rate)]
    bwlimit: Option<u64>,
    /// Data goes from server to server, or through the controller if they do not reach each other.
    #[arg(long, value_name = "direct|controller", value_enum, default_value = "direct", hide_possible_values = true)]
    via: Via,
}

/// Which way the data takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Via {
    // From agent to agent.
    Direct,
    // The controller passes it on.
    Controller,
}

impl Flow {
    pub(in crate::commands) fn bytes_per_second_max(&self) -> u64 {
        self.bwlimit.unwrap_or(0)
    }

    pub(in crate::commands) fn route(&self) -> pb::TransferRoute {
        match self.via {
            Via::Direct => pb::TransferRoute::Direct,
            Via::Controller => pb::TransferRoute::Controller,
        }
    }
}
