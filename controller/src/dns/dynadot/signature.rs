//! The signature of a request: HMAC-SHA256 over key, path, request id and body. Pure.
//!
//! We send no request id, so its part is always empty: gateways were seen that know the header only in one spelling, and
//! compare with an empty id otherwise.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;

/// Signs a request. `path_and_query` exactly as it is sent, `body` exactly the bytes that are sent.
pub(super) fn sign(secret: &hmac::Key, key: &str, path_and_query: &str, body: &[u8]) -> String {
    sign_with_id(secret, key, path_and_query, "", body)
}

fn sign_with_id(secret: &hmac::Key, key: &str, path_and_query: &str, id: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(secret);
    for part in [key, "\n", path_and_query, "\n", id, "\n"] {
        context.update(part.as_bytes());
    }
    context.update(body);
    STANDARD.encode(context.sign())
}

#[cfg(test)]
mod tests {
    use ring::hmac;

    use super::sign_with_id;

    const PATH: &str = "/restful/v2/domains/example.com/records";
    const ID: &str = "8e5bc897-75c8-4a9c-9362-5671405c7761";
    const V: &str = "ADw2sEd82DUgXcQ9hNBZThJs7zVJkR5v9JeSbAb9mZY";

    fn check(secret: &str, id: &str, body: &str, signature: &str) {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        assert_eq!(sign_with_id(&secret, "key", PATH, id, body.as_bytes()), signature, "{id} {body}");
    }

    #[test]
    fn signatures_are_those_that_others_computed() {
        let record = format!(r#"{{"record_type":"txt","record_value1":"{V}","sub_host":"_acme-challenge"}}"#);
        let append = format!(r#"{{"dns_sub_list":[{record}],"ttl":120,"add_dns_to_current_setting":true}}"#);
        let remove = format!(r#"{{"dns_sub_list":[{record}]}}"#);
        check("secret", "", "", "bmpyYo9wpBlZBrcjmZOGrHdp1nQcsesmr8fxibvpefA=");
        check("secret", ID, r#"{"sub_list":[]}"#, "1v6pCnviEO/dqOIRV2wSc+YRJHt92L+P2xqkyuTVQyk=");
        check("other-secret", ID, r#"{"sub_list":[]}"#, "ro+dZ59kmfLkWb1CWDsp/rVUeXSScDDr01J7Yg8Bj/E=");
        check("secret", "", &append, "xvAu5vBovQ0uJN9nuVZWksHWPKfbJFoaKWYv/ypv/xc=");
        check("secret", "", &format!("{append}\n"), "5ajUPToqQdGz4QrXzXueT/QGWK94YbfX/tG8GRn8JRM=");
        check("secret", "", &format!("{remove}\n"), "ybrN00UL8nWclU1AmvyoIGb7uJURud5UPKFuOkGNtuI=");
    }
}
