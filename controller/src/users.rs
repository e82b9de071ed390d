//! The people of a fleet: who gets a certificate, who loses it.
//!
//! Owns the rules. Private keys are made on people's own machines and are never here; a login token is good for one key until it
//! expires, and only the hash of its secret is kept.

use std::sync::Arc;

use feather_proto::{
    error::{Error, reason},
    login_token::LoginToken,
    model::invalid_field,
    tls::{Peer, Principal, Role, entitled, sha256_hex},
};
use time::{Duration, OffsetDateTime};

use crate::{
    ca::{self, Ca, PERSON_LIFE},
    enroll::new_secret,
    store::{NewWebToken, PEOPLE, UserRow, Viewer},
    web,
    world::World,
};

/// Shortest and longest life of a token, and what it is when nobody says.
const TTL_SECONDS: std::ops::RangeInclusive<u32> = 60..=604_800;
const TTL_DEFAULT_SECONDS: u32 = 10_800;
/// Shortest and longest life of a certificate.
const LIFE_SECONDS: std::ops::RangeInclusive<u64> = 3600..=31_622_400;

/// The same for a token of the web page.
const WEB_TTL_SECONDS: std::ops::RangeInclusive<u32> = 60..=7_776_000;
const WEB_TTL_DEFAULT_SECONDS: u32 = 43_200;

/// Gives people certificates.
pub struct Users {
    world: Arc<World>,
    ca: Arc<Ca>,
    /// What people's featherctl is told to dial.
    advertise: String,
}

/// Who is to be added, and how.
#[derive(Debug, Clone)]
pub struct Adding {
    /// Login name.
    pub name: String,
    /// What it entitles to.
    pub role: Role,
    /// Life of its certificates in seconds; 0 for the usual.
    pub life_seconds: u64,
    /// Life of the token in seconds; 0 for the usual.
    pub ttl_seconds: u32,
    /// Also when somebody of that name has a certificate.
    pub again: bool,
}

/// A certificate for a person.
pub struct Admitted {
    /// Whose.
    pub principal: Principal,
    /// The certificate.
    pub certificate_pem: String,
    /// The CA's.
    pub ca_pem: String,
}

/// A token for the web page.
pub struct WebToken {
    /// What is pasted there.
    pub token: String,
    /// Who it makes somebody.
    pub viewer: Viewer,
    /// Where the page is; none when this controller serves none.
    pub page: Option<std::net::SocketAddr>,
}

/// Reads the role of a person.
pub fn person_role(text: &str) -> Result<Role, Error> {
    let role = PEOPLE.into_iter().find(|role| role.to_string() == text);
    role.ok_or_else(|| invalid_field("role", "admin, operator or viewer"))
}

/// A login name.
pub fn check_name(name: &str) -> Result<(), Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    if (1..=64).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(invalid_field("name", "1 to 64 letters, digits or any of -_.@"))
}

/// Has a certificate that is good now.
fn is_in(user: &UserRow, now: OffsetDateTime) -> bool {
    user.revoked.is_none() && user.valid_until.is_some_and(|until| until > now)
}

/// May a token for this name be made?
fn may_add(users: &[UserRow], adding: &Adding, now: OffsetDateTime) -> Result<(), Error> {
    let present = users.iter().find(|user| user.principal.name == adding.name && is_in(user, now));
    match present {
        Some(user) if user.principal.role != adding.role => Err(Error::exists(
            reason::USER_EXISTS,
            format!(
                "{0} has a certificate as {1}; take it back first with `featherctl user revoke {0}`",
                adding.name, user.principal.role
            ),
        )),
        Some(_) if !adding.again => Err(Error::exists(
            reason::USER_EXISTS,
            format!(
                "{0} has a certificate; if it was lost, `featherctl user add {0} --role {1} --again` lets {0} log in once more and takes \
                 the old one back",
                adding.name, adding.role
            ),
        )),
        _ => Ok(()),
    }
}

/// Whose token for the web page this caller may have: its own, and an admin anybody's.
fn web_name(name: &str, caller: &Principal) -> Result<String, Error> {
    if name.is_empty() || name == caller.name {
        return Ok(caller.name.clone());
    }
    entitled(Some(caller.clone()), &[Role::Admin])?;
    check_name(name)?;
    Ok(name.to_owned())
}

/// May all certificates of this name go?
fn may_revoke(users: &[UserRow], name: &str, unseen: bool, now: OffsetDateTime) -> Result<(), Error> {
    if !unseen && !users.iter().any(|user| user.principal.name == name) {
        return Err(Error::not_found(
            reason::USER_NOT_FOUND,
            format!(
                "no certificate of {name} was ever seen here; `featherctl user list` shows everybody. If one was made by hand and never \
                 used, `featherctl user revoke {name} --unseen` refuses it"
            ),
        ));
    }
    let admins = |of_name: bool| {
        let admin = |user: &&UserRow| user.principal.role == Role::Admin && is_in(user, now);
        users.iter().filter(admin).any(|user| (user.principal.name == name) == of_name)
    };
    if admins(true) && !admins(false) {
        return Err(Error::refused(
            reason::LAST_ADMIN,
            format!(
                "{name} is the last admin: nobody could change the fleet any more. Let another one log in first: \
                 `featherctl user add NAME --role admin`"
            ),
        ));
    }
    Ok(())
}

impl Users {
    /// With this CA, for people who dial `advertise`.
    pub fn new(world: Arc<World>, ca: Arc<Ca>, advertise: String) -> Self {
        Self { world, ca, advertise }
    }

    /// A token to log in with.
    pub async fn add(&self, adding: &Adding, caller: &Peer) -> Result<(LoginToken, OffsetDateTime), Error> {
        check_name(&adding.name)?;
        let ttl_seconds = if adding.ttl_seconds == 0 { TTL_DEFAULT_SECONDS } else { adding.ttl_seconds };
        if !TTL_SECONDS.contains(&ttl_seconds) {
            return Err(invalid_field("ttl_seconds", "from 60 (a minute) to 604800 (a week)"));
        }
        let life = match adding.life_seconds {
            0 => PERSON_LIFE,
            seconds if LIFE_SECONDS.contains(&seconds) => Duration::seconds(seconds.cast_signed()),
            _ => return Err(invalid_field("life_seconds", "from 3600 (an hour) to 31622400 (366 days)")),
        };
        let _turn = self.world.access.turn_of(caller).await?;
        let by = &caller.principal.as_ref().map(ToString::to_string).unwrap_or_default();
        let now = self.world.clock.now();
        may_add(&self.world.store.users().await?, adding, now)?;
        let principal = Principal { role: adding.role, name: adding.name.clone() };
        let (secret, expires) = (new_secret(), now + Duration::seconds(i64::from(ttl_seconds)));
        self.world.store.add_user(&principal, life, by, (&sha256_hex(secret.as_bytes()), expires), now).await?;
        let ca_fingerprint = self.ca.fingerprint().map_err(bug)?;
        tracing::info!(%principal, by, "login token made");
        Ok((
            LoginToken { controller: self.advertise.clone(), ca_fingerprint, name: adding.name.clone(), secret },
            expires,
        ))
    }

    /// A certificate for whoever has a good token.
    pub async fn log_in(&self, secret: &str, csr_pem: &str) -> Result<Admitted, Error> {
        // Signed first, with a name to be thrown away, to learn the key: the token decides on the name.
        let nobody = Principal { role: Role::Viewer, name: "nobody".into() };
        let probe = self.sign(csr_pem, &nobody, Duration::minutes(1), self.world.clock.now())?;
        // A revocation before this takes the token, one behind it refuses what is handed out.
        let _turn = self.world.access.turn().await;
        let now = self.world.clock.now();
        let row = self.world.store.log_in(&sha256_hex(secret.as_bytes()), &probe.key_fingerprint, now).await?;
        self.world.access.load(&self.world.store).await?;
        tracing::info!(principal = %row.principal, "logged in");
        self.admit(row.principal, csr_pem, row.life).await
    }

    /// A fresh certificate for somebody whose own was accepted, and still is.
    pub async fn renew(&self, caller: &Peer, csr_pem: &str) -> Result<Admitted, Error> {
        let principal = entitled(caller.principal.clone(), &PEOPLE)?;
        self.world.access.may_renew(&principal, self.world.clock.now())?;
        let _turn = self.world.access.turn_of(caller).await?;
        let life = self.world.store.user(&principal).await?.map_or(PERSON_LIFE, |row| row.life);
        let admitted = self.admit(principal, csr_pem, life).await?;
        tracing::info!(principal = %admitted.principal, "certificate renewed");
        Ok(admitted)
    }

    /// Everybody, and until when each may look at the web page.
    pub async fn list(&self) -> Result<Vec<(UserRow, Option<OffsetDateTime>)>, Error> {
        let (users, viewers) =
            (self.world.store.users().await?, self.world.store.web_viewers(self.world.clock.now()).await?);
        let until =
            |user: &UserRow| viewers.iter().filter(|one| one.name == user.principal.name).map(|one| one.expires).max();
        Ok(users.into_iter().map(|user| (user.clone(), until(&user))).collect())
    }

    /// A token for the web page: for the caller, or by an admin for anybody. `ttl_seconds` is 0 for the usual.
    pub async fn web_token(&self, name: &str, ttl_seconds: u32, caller: &Peer) -> Result<WebToken, Error> {
        let principal = entitled(caller.principal.clone(), &PEOPLE)?;
        let name = web_name(name, &principal)?;
        let ttl_seconds = if ttl_seconds == 0 { WEB_TTL_DEFAULT_SECONDS } else { ttl_seconds };
        if !WEB_TTL_SECONDS.contains(&ttl_seconds) {
            return Err(invalid_field("ttl_seconds", "from 60 (a minute) to 7776000 (90 days)"));
        }
        let _turn = self.world.access.turn_of(caller).await?;
        let now = self.world.clock.now();
        let (secret, expires) = (new_secret(), now + Duration::seconds(i64::from(ttl_seconds)));
        let by = principal.to_string();
        let new = NewWebToken { secret_sha256: &sha256_hex(secret.as_bytes()), name: &name, by: &by, expires };
        self.world.store.add_web_token(&new, now).await?;
        tracing::info!(name, by, "token for the web page made");
        let (token, page) = (web::entry::token(&secret), self.world.page);
        Ok(WebToken { token, viewer: Viewer { name, expires }, page })
    }

    /// Refuses all certificates of a name, in every role, from now on.
    pub async fn revoke(&self, name: &str, unseen: bool, caller: &Peer) -> Result<(), Error> {
        check_name(name)?;
        let principals = PEOPLE.map(|role| Principal { role, name: name.to_owned() });
        self.world.revoke(&principals, caller, |users, now| may_revoke(users, name, unseen, now)).await?;
        tracing::info!(name, by = caller.principal.as_ref().map(tracing::field::display), "certificates revoked");
        Ok(())
    }

    /// By whoever has the turn.
    async fn admit(&self, principal: Principal, csr_pem: &str, life: Duration) -> Result<Admitted, Error> {
        let at = self.world.issue(&principal).await?;
        let signed = self.sign(csr_pem, &principal, life, at)?;
        Ok(Admitted { principal, certificate_pem: signed.certificate_pem, ca_pem: self.ca.ca_pem().to_owned() })
    }

    fn sign(
        &self,
        csr_pem: &str,
        principal: &Principal,
        life: Duration,
        at: OffsetDateTime,
    ) -> Result<ca::Signed, Error> {
        self.ca.sign(csr_pem, principal, life, at).map_err(|error| match error {
            ca::Error::Request(_) => {
                invalid_field("csr_pem", "a PEM certificate signing request, signed by its own key")
            }
            other => bug(other),
        })
    }
}

fn bug(error: ca::Error) -> Error {
    Error::bug(error.to_string())
}

#[cfg(test)]
mod tests {
    use feather_proto::{
        error::reason,
        tls::{Principal, Role},
    };
    use time::{Duration, OffsetDateTime};

    use super::{Adding, check_name, may_add, may_revoke, person_role, web_name};
    use crate::store::UserRow;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn user(name: &str, role: Role) -> UserRow {
        UserRow {
            principal: Principal { role, name: name.into() },
            added: NOW,
            added_by: None,
            life: Duration::days(1),
            key_fingerprint: None,
            valid_until: Some(NOW + Duration::days(1)),
            seen: None,
            revoked: None,
            revoked_by: None,
        }
    }

    fn adding(name: &str, role: Role, again: bool) -> Adding {
        Adding { name: name.into(), role, life_seconds: 0, ttl_seconds: 0, again }
    }

    #[test]
    fn nobody_gets_a_second_certificate_by_accident() {
        let users = [user("ada", Role::Operator)];
        assert!(may_add(&users, &adding("bob", Role::Operator, false), NOW).is_ok());
        assert!(may_add(&users, &adding("ada", Role::Operator, true), NOW).is_ok());
        for (role, again) in [(Role::Operator, false), (Role::Admin, false), (Role::Admin, true)] {
            let error = may_add(&users, &adding("ada", role, again), NOW).unwrap_err();
            assert!(error.is(reason::USER_EXISTS), "{role} {again}: {error}");
        }
        let gone = [UserRow { revoked: Some(NOW), ..user("ada", Role::Operator) }];
        assert!(may_add(&gone, &adding("ada", Role::Admin, false), NOW).is_ok());
        assert!(may_add(&users, &adding("ada", Role::Admin, false), NOW + Duration::days(1)).is_ok(), "it has ended");
        let never = [UserRow { valid_until: None, ..user("ada", Role::Operator) }];
        assert!(may_add(&never, &adding("ada", Role::Operator, false), NOW).is_ok(), "the token may have been lost");
    }

    #[test]
    fn the_last_admin_stays() {
        let (ada, bob, eve) = (user("ada", Role::Admin), user("bob", Role::Admin), user("eve", Role::Viewer));
        assert!(may_revoke(&[ada.clone(), bob.clone()], "ada", false, NOW).is_ok());
        let others = [
            vec![ada.clone(), eve.clone()],
            vec![ada.clone(), UserRow { revoked: Some(NOW), ..bob.clone() }],
            vec![ada.clone(), UserRow { valid_until: Some(NOW), ..bob.clone() }],
            vec![ada.clone(), UserRow { valid_until: None, ..bob.clone() }],
            vec![ada.clone(), user("ada", Role::Viewer)],
        ];
        for users in others {
            let error = may_revoke(&users, "ada", true, NOW).unwrap_err();
            assert!(error.is(reason::LAST_ADMIN), "{users:?}: {error}");
        }
        assert!(may_revoke(&[ada.clone(), eve], "eve", false, NOW).is_ok());
        let gone = [UserRow { revoked: Some(NOW), ..ada.clone() }, bob];
        assert!(may_revoke(&gone, "ada", false, NOW).is_ok(), "repeating it changes nothing");
        assert!(may_revoke(std::slice::from_ref(&ada), "mallory", false, NOW).unwrap_err().is(reason::USER_NOT_FOUND));
        assert!(may_revoke(&[ada], "mallory", true, NOW).is_ok());
    }

    #[test]
    fn only_an_admin_makes_tokens_of_the_page_for_others() {
        let caller = |role| Principal { role, name: "ada".into() };
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            assert_eq!(web_name("", &caller(role)).unwrap(), "ada");
            assert_eq!(web_name("ada", &caller(role)).unwrap(), "ada");
            let others = web_name("carol", &caller(role));
            assert_eq!(others.is_ok(), role == Role::Admin, "{role}");
            assert!(others.is_ok() || others.is_err_and(|error| error.is(reason::ROLE)));
        }
        assert!(web_name("a/b", &caller(Role::Admin)).is_err());
    }

    #[test]
    fn names_and_roles_are_checked() {
        assert_eq!(person_role("operator").unwrap(), Role::Operator);
        for role in ["agent", "controller", "Admin", ""] {
            assert!(person_role(role).is_err(), "{role}");
        }
        assert!(check_name("ada@example.com").is_ok());
        for name in ["", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
