//! A birth's Caddy as root in the birth asks and tells it, without any program of ours.

/// Shell, for a birth: `caddy METHOD PATH [BODY]` is one request to Caddy's admin API, and prints the whole answer. Births have no
/// client for HTTP; what s6 has connects file 6 and 7 to a socket.
pub const CADDY: &str = r#"caddy() {
  s6-ipcclient -l 0 /run/feather/caddy/admin.sock bash -c '
    printf "%s %s HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %s\r\n\r\n%s" "$1" "$2" "${#3}" "$3" >&7 && cat <&6
  ' caddy "$@"
}
"#;
