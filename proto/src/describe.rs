//! Calls and messages as the schema describes them, without knowing any of them: for what must hold for every call.
//!
//! Owns what may be shown of a message. Whatever could be a secret or private is left out by the name of its field, so that a field
//! that is added later is hidden rather than forgotten.

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, Value};
use serde_json::{Map, Value as Json, json};

/// A call of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// `package.Service/Call`.
    pub rpc: String,
    /// Its request can ask for a dry run.
    pub has_dry_run: bool,
}

/// What may be shown of a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shown {
    /// Its fields that are set. In place of what is hidden stands `"(hidden)"`, in place of bytes how many they are.
    pub fields: Map<String, Json>,
    /// Its field `dry_run`.
    pub dry_run: bool,
    /// The id of the operation that it names.
    pub operation: Option<String>,
}

/// Parts of names of fields that are never shown.
const HIDDEN: &[&str] = &["secret", "password", "token", "ticket", "email", "key", "csr", "pem"];
/// Longer texts are cut.
const TEXT_MAX: usize = 200;
/// Elements of a list that are shown.
const LIST_MAX: usize = 20;
/// Messages in messages; there are no deeper ones worth showing.
const DEPTH_MAX: usize = 4;

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    // The schema was compiled into this binary; an empty pool describes nothing, and the tests of this file would say so.
    POOL.get_or_init(|| DescriptorPool::decode(crate::pb::DESCRIPTORS).unwrap_or_default())
}

fn rpc(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

/// All calls of all services.
pub fn methods() -> Vec<Method> {
    let all = pool().services().flat_map(|service| service.methods().collect::<Vec<_>>());
    all.map(|method| Method { has_dry_run: method.input().get_field_by_name("dry_run").is_some(), rpc: rpc(&method) })
        .collect()
}

fn method(path: &str) -> Option<MethodDescriptor> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    pool().get_service_by_name(service)?.methods().find(|method| method.name() == name)
}

/// The request of the call with this path; `None` when the schema knows no such call, or these bytes are not its request.
pub fn request(path: &str, message: &[u8]) -> Option<Shown> {
    shown(method(path)?.input(), message)
}

/// The answer of the call with this path, likewise.
pub fn response(path: &str, message: &[u8]) -> Option<Shown> {
    shown(method(path)?.output(), message)
}

/// Does the call with this path answer with more than one message?
pub fn answers_in_a_stream(path: &str) -> bool {
    method(path).is_some_and(|method| method.is_server_streaming())
}

fn shown(descriptor: MessageDescriptor, message: &[u8]) -> Option<Shown> {
    let message = DynamicMessage::decode(descriptor, message).ok()?;
    let dry_run = message.get_field_by_name("dry_run").and_then(|value| value.as_bool()).unwrap_or_default();
    Some(Shown { fields: fields(&message, DEPTH_MAX), dry_run, operation: operation(&message) })
}

/// Calls that begin an operation answer with its id, or with all of it.
fn operation(message: &DynamicMessage) -> Option<String> {
    let value = message.get_field_by_name("operation")?;
    let id = match value.as_ref() {
        Value::String(id) => id.clone(),
        Value::Message(operation) => operation.get_field_by_name("id")?.as_str()?.to_owned(),
        _ => return None,
    };
    Some(id).filter(|id| !id.is_empty())
}

fn fields(message: &DynamicMessage, depth: usize) -> Map<String, Json> {
    let shown = message.fields().map(|(field, value)| {
        let hidden = HIDDEN.iter().any(|part| field.name().contains(part));
        let value = if hidden { Json::from("(hidden)") } else { json_of(value, &field.kind(), depth) };
        (field.name().to_owned(), value)
    });
    shown.collect()
}

fn json_of(value: &Value, kind: &Kind, depth: usize) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::I32(value) => json!(value),
        Value::I64(value) => json!(value),
        Value::U32(value) => json!(value),
        Value::U64(value) => json!(value),
        Value::F32(value) => json!(value),
        Value::F64(value) => json!(value),
        Value::String(text) => Json::from(cut(text)),
        Value::Bytes(bytes) => Json::from(format!("({} bytes)", bytes.len())),
        Value::EnumNumber(number) => {
            let name = kind.as_enum().and_then(|kind| kind.get_value(*number)).map(|value| value.name().to_owned());
            name.map_or(json!(number), Json::from)
        }
        Value::Message(message) if depth > 0 => Json::Object(fields(message, depth - 1)),
        Value::List(list) => {
            let mut shown: Vec<Json> = list.iter().take(LIST_MAX).map(|value| json_of(value, kind, depth)).collect();
            if list.len() > LIST_MAX {
                shown.push(Json::from(format!("({} more)", list.len() - LIST_MAX)));
            }
            Json::Array(shown)
        }
        Value::Message(_) | Value::Map(_) => Json::from("(...)"),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{methods, request, response};
    use crate::{
        encode,
        pb::{agent::v1 as agent, controller::v1 as pb},
    };

    fn path(call: &str) -> String {
        format!("/feather.controller.v1.{call}")
    }

    #[test]
    fn what_is_asked_is_shown_by_the_names_of_the_schema() {
        let asked = pb::MigrateTenantRequest {
            request_id: "id".into(),
            tenant: "alice".into(),
            server: "fra".into(),
            dry_run: true,
            ..Default::default()
        };
        let shown = request(&path("TenantService/MigrateTenant"), &encode(&asked)).unwrap();
        assert!(shown.dry_run);
        let text = serde_json::to_string(&shown.fields).unwrap();
        assert!(text.contains(r#""tenant":"alice""#) && text.contains(r#""server":"fra""#), "{text}");
        let answer = pb::MigrateTenantResponse {
            operation: Some(pb::Operation { id: "one".into(), ..Default::default() }),
            ..Default::default()
        };
        let shown = response(&path("TenantService/MigrateTenant"), &encode(&answer)).unwrap();
        assert_eq!(shown.operation.as_deref(), Some("one"));
        let member = pb::AddMemberTenantResponse { operation: "two".into() };
        let shown = response(&path("MemberService/AddMemberTenant"), &encode(&member)).unwrap();
        assert_eq!(shown.operation.as_deref(), Some("two"));
    }

    #[test]
    fn nothing_secret_or_private_is_shown() {
        let hush = || "hush".to_owned();
        let shown = [
            request(
                &path("EnrollmentService/Join"),
                &encode(&pb::JoinRequest { secret: hush(), csr_pem: hush(), ..Default::default() }),
            ),
            request(&path("UserService/Login"), &encode(&pb::LoginRequest { secret: hush(), csr_pem: hush() })),
            request(
                &path("WaitlistService/Invite"),
                &encode(&pb::InviteRequest { email: hush(), ..Default::default() }),
            ),
            request(&path("WaitlistService/RemoveEntry"), &encode(&pb::RemoveEntryRequest { email: hush() })),
            request(
                "/feather.agent.v1.CertificateService/SetCertificate",
                &encode(&agent::SetCertificateRequest { key_pem: hush(), chain_pem: hush() }),
            ),
            response(
                &path("TenantService/ResetPassword"),
                &encode(&pb::ResetPasswordResponse { password: hush(), ..Default::default() }),
            ),
            response(
                &path("UserService/AddUser"),
                &encode(&pb::AddUserResponse { token: hush(), ..Default::default() }),
            ),
        ];
        for shown in shown {
            let text = format!("{:?}", shown.unwrap());
            assert!(text.contains("(hidden)") && !text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn what_is_long_is_cut_and_what_is_no_message_is_nothing() {
        let chunk = pb::AddTenantRequest { tenant: "ä".repeat(1000), ..Default::default() };
        let shown = request(&path("TenantService/AddTenant"), &encode(&chunk)).unwrap();
        assert_eq!(shown.fields["tenant"].as_str().map(|text| text.chars().count()), Some(203));
        assert!(request(&path("TenantService/AddTenant"), &[0xff; 9]).is_none());
        assert!(request(&path("TenantService/Fly"), &[]).is_none() && request("", &[]).is_none());
        assert!(methods().len() > 80, "the schema is whole");
    }
}
