//! A fleet whose store is lost, and how it is learned again.

use std::sync::Arc;

use feather_controller::{
    agents::grpc::GrpcAgents,
    own_identity,
    rebuild::{self, Plan, Said, Seams},
    store::Store,
    world::SystemClock,
};
use feather_proto::{epoch::Epoch, tls::Rotating};

use super::{Fleet, agent_address};
use crate::faults::Faulty;

impl Fleet {
    /// The controller ends, and its store is gone. The state folder stays.
    pub async fn lose_store(&mut self) {
        self.stop_controller().await;
        for suffix in ["", "-wal", "-shm"] {
            drop(std::fs::remove_file(self.folder.path().join(format!("controller.db{suffix}"))));
        }
    }

    /// Is there a file of a store?
    pub fn has_store(&self) -> bool {
        self.folder.path().join("controller.db").exists()
    }

    /// All servers, by name and address.
    pub fn said(&self) -> Said {
        self.said_of(&self.servers.keys().map(String::as_str).collect::<Vec<_>>())
    }

    /// These servers.
    pub fn said_of(&self, names: &[&str]) -> Said {
        let named = names.iter().map(|name| format!("{name}={}", agent_address(name)).parse().expect("a server"));
        Said::new(named.collect(), [], [], None).expect("servers with different names")
    }

    /// What a rebuild would show.
    pub async fn plan_rebuild(&self, said: &Said) -> Plan {
        rebuild::plan(&self.seams(Epoch::default()), said).await
    }

    /// What a rebuild that was asked for does.
    pub async fn rebuild(&self, said: &Said) -> Result<Plan, rebuild::Error> {
        let store = Store::open(&self.store_url()).await.expect("the store opens");
        let done = rebuild::apply(&self.seams(store.epoch()), &store, said).await;
        store.close().await;
        done
    }

    fn seams(&self, epoch: Epoch) -> Seams {
        let identity =
            Rotating::new(own_identity(&self.ca(), &SystemClock).expect("a certificate")).expect("an identity");
        let inner = Arc::new(GrpcAgents::new(self.network.from("controller"), identity, epoch));
        Seams { agents: Arc::new(Faulty { inner, faults: self.faults.clone() }), clock: Arc::new(SystemClock) }
    }
}
