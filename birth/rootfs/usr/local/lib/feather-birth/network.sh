# shellcheck shell=bash
# Sourced by feather-birth: the network of tenants. It has a bridge and an address range of its own, so that on a host's own
# network it meets neither the host's Podman nor anything else there.

BRIDGE=feather0
# Netavark names its chains by the first eight digits of this; nobody else's network has it.
NETWORK_ID=fea7be1257c0de4a1b0d9e6f83c25a70419d6eb8f2570c3394a8d1e65b7f0c2d
CHAINS=nv_${NETWORK_ID:0:8}_
# The first that nothing on this network uses. Podman's own ranges are not among them.
RANGES=(10.87.0.0/20 10.86.0.0/20 172.29.240.0/20 192.168.240.0/20)

# number_of ADDRESS
number_of() {
  local a b c d
  IFS=. read -r a b c d <<<"$1"
  printf '%s' $((a << 24 | b << 16 | c << 8 | d))
}

# overlap RANGE RANGE: whether two ranges, as ADDRESS/LENGTH, have an address in common.
overlap() {
  local one=${1#*/} other=${2#*/} length
  ((length = one < other ? one : other))
  (($(number_of "${1%/*}") >> (32 - length) == $(number_of "${2%/*}") >> (32 - length)))
}

# Every range that a route leads to, but for the default route and what our own bridge left.
routed_ranges() {
  ip -4 route show | grep -v " dev $BRIDGE " | grep -oE '^[a-z ]*[0-9.]+(/[0-9]+)?' | awk '{print $NF}' |
    sed '/\//!s#$#/32#'
}

# taken_by RANGE: the route in its way, if there is one.
taken_by() {
  local range
  while read -r range; do
    ! overlap "$1" "$range" || {
      printf '%s' "$range"
      return
    }
  done < <(routed_ranges)
  return 1
}

choose_range() {
  local range
  if [ -n "${FEATHER_BIRTH_SUBNET:-}" ]; then
    printf '%s' "$FEATHER_BIRTH_SUBNET"
    return
  fi
  for range in "${RANGES[@]}"; do
    taken_by "$range" >/dev/null || {
      printf '%s' "$range"
      return
    }
  done
  printf '%s' "${RANGES[0]}"
}

# A birth that was killed on the host's network leaves its bridge and its rules behind. An old rule for a port comes before
# the new one and leads to an address that is gone. Only what carries our name goes, in one transaction.
clear_old_network() {
  ip link delete "$BRIDGE" 2>/dev/null
  nft --handle list table inet netavark 2>/dev/null | awk -v ours="$CHAINS" -v bridge="\"$BRIDGE\"" '
    # First the names of our chains, which tell our ranges; rules are looked at when all are known.
    $1 == "chain" { chain = $2; if (index(chain, ours) == 1) { mine[chain]; range[range_of(chain)] } }
    / # handle [0-9]+$/ && $1 != "chain" && $1 != "table" { line[++lines] = $0; where[lines] = chain; id[lines] = $NF }
    function range_of(name,   part) { split(substr(name, length(ours) + 1), part, "_"); return part[1] "." part[2] "." part[3] "." part[4] "/" substr(part[5], 3) }
    function is_ours(text,   one) {
      if (index(text, ours) || index(text, bridge)) return 1
      for (one in range) if (index(text, " " one " ")) return 1
      return 0
    }
    END {
      for (i = 1; i <= lines; i++)
        if (!(where[i] in mine) && is_ours(line[i])) print "delete rule inet netavark " where[i] " handle " id[i]
      for (chain in mine) print "flush chain inet netavark " chain
      for (chain in mine) print "delete chain inet netavark " chain
    }' >/run/feather/old-rules
  nft --file /run/feather/old-rules ||
    log "cannot remove the rules of an earlier life from the table netavark: tenants may not be reached by their ports"
}

# Podman takes its default network from this file. The name stays Podman's, so that containers of an older birth find it.
prepare_network() {
  local range other
  clear_old_network
  range=$(choose_range)
  ! other=$(taken_by "$range") ||
    log "the range $range for tenants overlaps $other, which is routed elsewhere: set FEATHER_BIRTH_SUBNET to a range that is free here"
  mkdir -p /etc/containers/networks
  cat >/etc/containers/networks/podman.json <<END
{
  "name": "podman",
  "id": "$NETWORK_ID",
  "driver": "bridge",
  "network_interface": "$BRIDGE",
  "created": "2026-01-01T00:00:00Z",
  "subnets": [{ "subnet": "$range", "gateway": "$(first_address "$range")" }],
  "ipv6_enabled": false,
  "internal": false,
  "dns_enabled": false,
  "ipam_options": { "driver": "host-local" }
}
END
}

# first_address RANGE: the bridge's own.
first_address() { printf '%s.%s' "${1%.*}" $((10#$(sed 's#.*\.\([0-9]*\)/.*#\1#' <<<"$1") + 1)); }
