//! Certificates that the agent hands to Caddy, as Caddy's JSON. Pure.
//!
//! Caddy serves what is listed here before it gets anything by itself. Ours carry a tag; all others are somebody else's and are
//! kept as they are.

use serde_json::{Value, json};

use crate::router::Link;

const TAG: &str = "feather-link";

/// The list with this server's certificate of the fleet in it, once.
pub(super) fn desired_certificates(current: &Value, link: &Link) -> Value {
    let mut desired = if current.is_object() { current.clone() } else { json!({}) };
    let is_ours = |entry: &Value| entry["tags"].as_array().is_some_and(|tags| tags.contains(&json!(TAG)));
    let mut files = desired["load_files"].as_array().cloned().unwrap_or_default();
    files.retain(|entry| !is_ours(entry));
    files.push(json!({ "certificate": link.certificate, "key": link.certificate, "tags": [TAG] }));
    desired["load_files"] = Value::Array(files);
    desired
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::desired_certificates;
    use crate::router::Link;

    fn link(certificate: &str) -> Link {
        Link { certificate: certificate.into(), ca: "/ca.pem".into() }
    }

    #[test]
    fn ours_is_there_once_and_those_of_others_stay() {
        let first = desired_certificates(&Value::Null, &link("/1.pem"));
        assert_eq!(first["load_files"].as_array().unwrap().len(), 1);
        assert_eq!(desired_certificates(&first, &link("/1.pem")), first);

        let other = json!({ "certificate": "/other.pem", "key": "/other.key" });
        let current = json!({ "load_folders": ["/x"], "load_files": [first["load_files"][0], other] });
        let second = desired_certificates(&current, &link("/2.pem"));
        assert_eq!(second["load_folders"], json!(["/x"]));
        let files = second["load_files"].as_array().unwrap();
        assert_eq!((files.len(), &files[0], &files[1]["certificate"]), (2, &other, &json!("/2.pem")));
    }
}
