# shellcheck shell=bash
# Sourced: a part of the disk that is held back while there is room. On a full disk Podman starts nothing, and after a reboot no
# tenant would come back; then the part is given up.

RESERVE=/var/lib/containers/feather-reserve
RESERVE_MIB=64

free_mib() { printf '%s' $(($(stat -f --format '%a * %S' /var/lib/containers) / 1048576)); }

# give_up_reserve: at a start, before anything needs room.
give_up_reserve() {
  local free
  free=$(free_mib)
  ((free < RESERVE_MIB)) || return 0
  if [ -e "$RESERVE" ]; then
    rm -f "$RESERVE"
    log "the disk of /var/lib/containers is full ($free MiB free): $RESERVE_MIB MiB that were held back for this are given up, so" \
      "that tenants can start. Make room there"
  else
    log "the disk of /var/lib/containers is nearly full ($free MiB free): tenants may not start. Make room there"
  fi
}

# keep_reserve: false while there is no room for it. Some file systems cannot hold anything back: then there is none.
keep_reserve() {
  [ ! -e "$RESERVE" ] || return 0
  (($(free_mib) > 10 * RESERVE_MIB)) || return 1
  fallocate --length "${RESERVE_MIB}MiB" "$RESERVE" 2>/dev/null || rm -f "$RESERVE"
}
