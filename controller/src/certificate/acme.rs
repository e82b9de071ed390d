//! The certificate authority, by ACME: accounts, orders, and what its refusals mean.
//!
//! Proves the control of names by records in DNS; putting them there and waiting for them is the caller's ([`Challenges`]).

use std::{future::Future, pin::Pin, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use feather_proto::tls::PublicCertificate;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, Error as AcmeError,
    HttpClient, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};

use crate::https::{Client, Limits, SetupError, Trust};

/// How long the authority may take to look at the records, and to issue.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).timeout(Duration::from_secs(120));

/// Why no certificate was issued, by what it means for the next try.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The authority was asked too often.
    #[error("the certificate authority was asked too often: {0}")]
    Limited(String),
    /// The authority knows this account no more.
    #[error("the certificate authority refuses this account: {0}")]
    Account(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<AcmeError> for Failure {
    fn from(error: AcmeError) -> Self {
        let kind = match &error {
            AcmeError::Api(problem) => problem.r#type.as_deref().unwrap_or_default(),
            _ => "",
        };
        let text = error.to_string();
        match kind.rsplit(':').next().unwrap_or_default() {
            "rateLimited" => Self::Limited(text),
            "accountDoesNotExist" | "unauthorized" => Self::Account(text),
            _ => Self::Other(format!("the certificate authority did not issue: {text}")),
        }
    }
}

/// Records that prove the control of names.
#[async_trait]
pub trait Challenges: Send + Sync {
    /// Puts these texts at `_acme-challenge.NAME`, and returns when all name servers show them.
    async fn show(&self, name: &str, values: &[String]) -> Result<(), String>;
}

/// One authority, and how to be known there.
#[derive(Debug)]
pub struct Authority {
    directory: String,
    email: Option<String>,
    client: Client,
}

impl Authority {
    /// Calls nobody yet. `root` are the certificates (PEM) that an authority of one's own is checked against.
    pub fn new(directory: &str, root: Option<&str>, email: Option<&str>) -> Result<Self, SetupError> {
        let client = Client::new(root.map_or(Trust::System, Trust::Only), Limits::default())?;
        Ok(Self { directory: directory.to_owned(), email: email.map(ToOwned::to_owned), client })
    }

    /// The URL at which it begins.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    fn builder(&self) -> instant_acme::AccountBuilder {
        Account::builder_with_http(Box::new(Http(self.client.clone())))
    }

    /// A new account, and its credentials as JSON: a secret to be kept.
    pub async fn register(&self) -> Result<(Account, String), Failure> {
        let contact = self.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = self.builder().create(&new, self.directory.clone(), None).await?;
        let credentials = serde_json::to_string(&credentials).map_err(|error| Failure::Other(error.to_string()))?;
        Ok((account, credentials))
    }

    /// The account of earlier.
    pub async fn restore(&self, credentials: &str) -> Result<Account, Failure> {
        let credentials: AccountCredentials = serde_json::from_str(credentials)
            .map_err(|_| Failure::Account("what is kept of it is not readable".into()))?;
        Ok(self.builder().from_credentials(credentials).await?)
    }

    /// One certificate for all names. Its key is made here and now.
    pub async fn issue(
        &self,
        account: &Account,
        names: &[String],
        challenges: &dyn Challenges,
    ) -> Result<PublicCertificate, Failure> {
        let identifiers: Vec<_> = names.iter().map(|name| Identifier::Dns(name.clone())).collect();
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
        let (name, values) = asked(&mut order).await?;
        if !values.is_empty() {
            challenges.show(&name, &values).await.map_err(Failure::Other)?;
            ready(&mut order).await?;
        }
        if order.poll_ready(&PATIENCE).await? != OrderStatus::Ready {
            return Err(Failure::Other("the certificate authority did not accept the records in DNS".into()));
        }
        let key_pem = order.finalize().await?;
        let chain_pem = order.poll_certificate(&PATIENCE).await?;
        Ok(PublicCertificate { chain_pem, key_pem })
    }
}

/// The name and the texts that the authority wants to see there. A wildcard and its parent are proved at the same name.
async fn asked(order: &mut Order) -> Result<(String, Vec<String>), Failure> {
    let (mut name, mut values) = (String::new(), Vec::new());
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => return Err(Failure::Other(format!("an authorization is {other:?} from the beginning"))),
        }
        let Identifier::Dns(host) = authorization.identifier().identifier.clone() else {
            return Err(Failure::Other("the certificate authority asks for something that is no host name".into()));
        };
        let challenge = authorization
            .challenge(ChallengeType::Dns01)
            .ok_or_else(|| Failure::Other("the certificate authority does not accept proofs by DNS".into()))?;
        name = host;
        values.push(challenge.key_authorization().dns_value());
    }
    Ok((name, values))
}

async fn ready(order: &mut Order) -> Result<(), Failure> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Pending
            && let Some(mut challenge) = authorization.challenge(ChallengeType::Dns01)
        {
            challenge.set_ready().await?;
        }
    }
    Ok(())
}

/// Our client as the library wants it.
struct Http(Client);

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, AcmeError>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // It cannot fail: the bytes are there.
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let reply = client.send(Request::from_parts(head, body)).await;
            let reply = reply.map_err(|error| AcmeError::Other(Box::new(error)))?;
            let mut response = http::Response::new(Full::new(reply.body));
            *response.status_mut() = reply.status;
            *response.headers_mut() = reply.headers;
            Ok(BytesResponse::from(response))
        })
    }
}

#[cfg(test)]
mod tests {
    use instant_acme::{Error as AcmeError, Problem};

    use super::Failure;

    fn meaning(kind: &str) -> Failure {
        let text = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"because","status":400}}"#);
        AcmeError::Api(serde_json::from_str::<Problem>(&text).unwrap()).into()
    }

    #[test]
    fn refusals_are_told_apart_by_their_type() {
        assert!(matches!(meaning("rateLimited"), Failure::Limited(why) if why.contains("because")));
        assert!(matches!(meaning("accountDoesNotExist"), Failure::Account(_)));
        assert!(matches!(meaning("unauthorized"), Failure::Account(_)));
        assert!(matches!(meaning("dns"), Failure::Other(why) if why.contains("did not issue")));
        assert!(matches!(Failure::from(AcmeError::Str("no nonce")), Failure::Other(_)));
    }
}
