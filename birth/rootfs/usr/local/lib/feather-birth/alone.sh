# shellcheck shell=bash
# Sourced by feather-birth before it changes anything: refuses to start beside another birth, or where a port is taken.
# On the host's network two births would pull each other's bridge, rules and ports away.

# A predecessor that is still ending gets this long. It also paces an engine that starts this birth again and again.
PATIENCE=10

# The last words of a birth that does not start.
refuse() {
  log "not started: $*"
  exit 1
}

# The lock is held through file 9 for as long as this process lives, whatever program it becomes.
require_own_volumes() {
  mkdir -p /var/lib/feather 2>/dev/null
  exec 9>/var/lib/feather/birth.lock || refuse "cannot write to the volume /var/lib/feather; is its disk full or read-only?"
  until flock --nonblock 9; do
    ((SECONDS < PATIENCE)) ||
      refuse "another birth container runs on the same volumes; stop that one first, or give this one volumes of its own"
    sleep 0.2
  done
}

# ports_of_birth: "PORT what for" of everything that has no meaning without its port.
ports_of_birth() {
  printf '80 tenants\n'
  [ -z "${DOMAIN:-}" ] || printf '443 tenants\n'
  case $FEATHER_AGENT_CADDY_ADMIN in
    http://*) printf '%s Caddy'\''s admin API\n' "${FEATHER_AGENT_CADDY_ADMIN##*:}" ;;
  esac
  printf '%s the agent\n' "${FEATHER_AGENT_LISTEN##*:}"
}

# first_taken: the first of those ports on which somebody listens.
first_taken() {
  local port purpose
  while read -r port purpose; do
    [ -z "$(ss --no-header --tcp --listening --numeric "sport = :$port")" ] || {
      printf '%s %s\n' "$port" "$purpose"
      return
    }
  done < <(ports_of_birth)
  return 1
}

# holder_of PORT: who listens there, as far as it can be seen from in here.
holder_of() {
  local program
  program=$(ss --no-header --tcp --listening --numeric --processes "sport = :$1" |
    sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/\1 (process \2)/p' | head -n 1)
  if [ -n "$program" ]; then
    printf 'by %s' "$program"
  elif another_birth_is_here; then
    printf 'by another birth container on this host'
  else
    printf 'by a program outside of this container'
  fi
}

# The sockets of a birth can be seen from the whole network that it is on, though reached only from within it.
another_birth_is_here() {
  ss --no-header --unix --listening | grep -q ' /run/feather/'
}

require_free_ports() {
  local taken port
  while taken=$(first_taken); do
    port=${taken%% *}
    ((SECONDS < PATIENCE)) ||
      refuse "port $port, which it needs for ${taken#* }, is taken $(holder_of "$port"); nothing was changed." \
        "Stop that one (\`ss -ltnp 'sport = :$port'\` on the host names it), or give this birth a network of its own"
    sleep 0.2
  done
}

require_alone() {
  require_own_volumes
  require_free_ports
}
