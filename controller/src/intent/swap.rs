//! Plans the swap of a server's admin container.

use feather_proto::{
    error::{Error, reason},
    ids::ServerName,
    model::{Image, ServerSnapshot},
};
use serde_json::json;

use super::{Asker, Intent, Planned, Proposal, nothing_began, to_json};
use crate::operations::{Kind, Subject, swap};

impl Intent {
    /// Puts another admin container in place of the one that serves. Also returns the digest of its image.
    pub async fn swap(&self, request: &Asker, server: &ServerName, image: &str) -> Result<(Planned, String), Error> {
        let asked = json!({ "swap": server, "image": image });
        let subject = Subject::Server(server.clone());
        if let Some(known) = self.known_on(&subject, request, &asked).await? {
            return Ok((known, String::new()));
        }
        self.member(server).await?;
        self.reachable(server)?;
        let snapshot = self.world.look(server).await.map_err(nothing_began)?;
        let image = find(&snapshot, server, image)?;
        let digest = image.digest.clone();
        let explanation = vec![explain(&snapshot, server, &image)?];
        let plan = to_json(&swap::Plan { server: server.clone(), image: image.reference, image_digest: image.digest })?;
        let proposal = Proposal::on(Kind::Swap, asked, server.clone(), plan, explanation);
        Ok((self.begin_on(subject, request, proposal).await?, digest))
    }
}

/// By name, also a short one, or by digest; the server's work image when none is named.
fn find(snapshot: &ServerSnapshot, server: &ServerName, asked: &str) -> Result<Image, Error> {
    let wanted = if asked.is_empty() { snapshot.work_image.as_str() } else { asked };
    let short = |reference: &str| {
        let name = reference.strip_prefix("localhost/").unwrap_or(reference);
        name == wanted || name.strip_suffix(":latest") == Some(wanted)
    };
    let is = |image: &&Image| {
        image.reference == wanted
            || image.digest == wanted
            || image.reference.strip_suffix(":latest") == Some(wanted)
            || (!image.reference.is_empty() && short(&image.reference))
    };
    snapshot.images.iter().find(is).cloned().ok_or_else(|| {
        Error::refused(
            reason::IMAGE_MISSING,
            format!(
                "the image {wanted} is not on {server}; `featherctl image load {server} FILE` brings it there, `featherctl server \
                 show {server}` lists what is there"
            ),
        )
        .with("server", server)
    })
}

fn explain(snapshot: &ServerSnapshot, server: &ServerName, image: &Image) -> Result<String, Error> {
    let Some(admin) = &snapshot.admin else {
        return Err(Error::refused(
            reason::WRONG_STATE,
            format!("{server} has no admin container (FEATHER_AGENT_ADMIN is off there), so there is nothing to swap"),
        )
        .with("server", server));
    };
    let image_now = if image.digest == admin.image_digest { "the same image as now" } else { "another image than now" };
    let instead =
        if admin.container.is_empty() { "as the first one".into() } else { format!("in place of {}", admin.container) };
    Ok(format!("a new admin container of {} ({}, {image_now}) on {server} {instead}", image.reference, image.digest))
}

#[cfg(test)]
mod tests {
    use super::{explain, find};
    use crate::intent::swap::ServerSnapshot;
    use feather_proto::{
        error::reason,
        model::{AdminReport, Image},
    };

    fn snapshot() -> ServerSnapshot {
        let image =
            |reference: &str, digest: &str| Image { reference: reference.into(), digest: digest.into(), size_bytes: 1 };
        ServerSnapshot {
            images: vec![
                image("", "sha256:0"),
                image("localhost/feather-work:latest", "sha256:1"),
                image("localhost/feather-work:new", "sha256:2"),
            ],
            work_image: "localhost/feather-work:latest".into(),
            admin: Some(AdminReport {
                container: "feather-work-blue".into(),
                image_digest: "sha256:1".into(),
                ..AdminReport::default()
            }),
            ..ServerSnapshot::empty("nyc".parse().unwrap())
        }
    }

    #[test]
    fn an_image_is_found_by_every_name_that_people_use() {
        let (snapshot, nyc) = (snapshot(), "nyc".parse().unwrap());
        for (asked, digest) in [
            ("", "sha256:1"),
            ("feather-work", "sha256:1"),
            ("localhost/feather-work", "sha256:1"),
            ("feather-work:new", "sha256:2"),
            ("sha256:2", "sha256:2"),
            ("sha256:0", "sha256:0"),
        ] {
            assert_eq!(find(&snapshot, &nyc, asked).unwrap().digest, digest, "{asked:?}");
        }
        for missing in ["feather", "feather-work:old", "sha256:3", "localhost/"] {
            assert_eq!(find(&snapshot, &nyc, missing).unwrap_err().reason, reason::IMAGE_MISSING, "{missing:?}");
        }
    }

    #[test]
    fn a_server_without_an_admin_container_swaps_nothing() {
        let nyc = "nyc".parse().unwrap();
        let image = find(&snapshot(), &nyc, "").unwrap();
        assert!(explain(&snapshot(), &nyc, &image).unwrap().contains("in place of feather-work-blue"));
        let none = ServerSnapshot { admin: None, ..snapshot() };
        assert_eq!(explain(&none, &nyc, &image).unwrap_err().reason, reason::WRONG_STATE);
    }
}
