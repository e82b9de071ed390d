//! Swaps the admin container of a server.
//!
//! The new one is proved while the old one serves, and only then does the store say that it shall serve. From there on the
//! agent drives it to its end also by itself.

use async_trait::async_trait;
use feather_proto::{error::Error, ids::ServerName};
use serde::{Deserialize, Serialize};

use super::{Context, Outcome, Procedure, Step};

/// What is decided beforehand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where.
    pub server: ServerName,
    /// Image by name, for people.
    pub image: String,
    /// Image by content.
    pub image_digest: String,
}

/// What the steps find out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Name of the new container.
    pub container: Option<String>,
}

/// The steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// The new one is started beside the old one and becomes healthy. No request reaches it.
    Start,
    /// From here on the new one shall serve.
    Commit,
    /// Requests go to it; the old one has its time to end what is under way, and is removed.
    Switch,
}

impl Step for Steps {
    const ALL: &'static [Self] = &[Steps::Start, Steps::Commit, Steps::Switch];
    const POINT_OF_NO_RETURN: Self = Steps::Commit;

    fn name(self) -> &'static str {
        match self {
            Steps::Start => "start",
            Steps::Commit => "commit",
            Steps::Switch => "switch",
        }
    }
}

/// The kind.
pub struct Swap;

type About<'a> = Context<'a, Plan, ServerName>;

#[async_trait]
impl Procedure for Swap {
    type Step = Steps;
    type Subject = ServerName;
    type Plan = Plan;
    type Facts = Facts;

    async fn act(step: Steps, context: &About<'_>, facts: &mut Facts) -> Result<Outcome, Error> {
        let agent = context.world.agent(&context.plan.server).await?;
        match step {
            Steps::Start => {
                let tried = agent.try_swap(context.request_id("swap"), &context.plan.image_digest).await?;
                let message = format!(
                    "{} is healthy on port {} after {} ms",
                    tried.container, tried.port, tried.healthy_after_ms
                );
                facts.container = Some(tried.container);
                Ok(Outcome::note(message))
            }
            Steps::Commit => Ok(Outcome::note(format!("{} shall serve", new_one(facts)))),
            Steps::Switch => {
                agent.commit_swap(context.request_id("swap")).await?;
                context.world.look_again(&context.plan.server).await;
                Ok(Outcome::note(format!("requests go to {}, the old one has ended", new_one(facts))))
            }
        }
    }

    async fn undo(step: Steps, context: &About<'_>, _facts: &mut Facts, _begun: &[Steps]) -> Result<Outcome, Error> {
        if step == Steps::Start {
            context.world.agent(&context.plan.server).await?.abandon_swap(context.request_id("swap")).await?;
        }
        Ok(Outcome::note("the old one serves as before"))
    }

    fn hint(_step: Steps, _undoing: bool, context: &About<'_>) -> String {
        format!("featherctl server show {}", context.plan.server)
    }
}

fn new_one(facts: &Facts) -> &str {
    facts.container.as_deref().unwrap_or("the new one")
}
