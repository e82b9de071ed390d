# shellcheck shell=bash
# Sourced by feather-birth: the ground that Podman, Caddy and the agent stand on. Whatever it finds of an earlier life, one
# that was killed too, is cleared away. Nothing in here stops the start: what cannot be prepared is said.

# Podman's locks lie in shared memory. A birth that is started again in the moment of its end can be given that of its
# predecessor; Podman would find its containers locked and, worse, take the ones that died for running.
prepare_shared_memory() {
  mount -t tmpfs -o mode=1777,nosuid,nodev,noexec,size=64m shm /dev/shm ||
    log "cannot empty /dev/shm: Podman may trip over locks from before this start"
}

# Without a tmpfs, /run is the one of the time before: sockets that nobody listens on, network namespaces that are gone, and
# Podman's word that containers run. What is mounted in there was put there for this start, and stays.
prepare_run() {
  find /run -xdev -mindepth 1 -delete 2>/dev/null
  mkdir -p /run/feather /run/lock "${FEATHER_AGENT_PODMAN_SOCKET%/*}" &&
    # Caddy's configuration has a password in it, and whoever reaches its admin API can change it: root alone.
    install -d -m 0700 /run/feather/caddy || log "cannot write to /run; is the disk full?"
}

# Under cgroup v2 a group with processes in it cannot hand controllers to its children: this process steps aside.
prepare_cgroup() {
  [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] || return 0
  mkdir -p /sys/fs/cgroup/birth
  xargs -rn1 </sys/fs/cgroup/cgroup.procs >/sys/fs/cgroup/birth/cgroup.procs 2>/dev/null
  sed 's/\(^\| \)/\1+/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null ||
    log "cannot delegate cgroup controllers: tenants run without limits"
}

# smaller A B: the smaller of two limits, either of which may be "unlimited".
smaller() {
  if [ "$1" = unlimited ] || (($1 > $2)); then printf '%s' "$2"; else printf '%s' "$1"; fi
}

# Podman's own defaults may be above what this birth was allowed, and then no container starts. It also lowers its own
# process limit to the highest process id.
prepare_limits() {
  local files processes
  files=$(smaller "$(ulimit -Hn)" 1048576)
  processes=$(smaller "$(ulimit -Hu)" "$(cat /proc/sys/kernel/pid_max)")
  mkdir -p /etc/containers/containers.conf.d
  printf '[containers]\ndefault_ulimits = ["nofile=%s:%s", "nproc=%s:%s"]\n' \
    "$files" "$files" "$processes" "$processes" >/etc/containers/containers.conf.d/limits.conf
}

prepare_directories() {
  mkdir -p "$FEATHER_AGENT_STATE_DIR" "$XDG_DATA_HOME" "$XDG_CONFIG_HOME" &&
    chmod 0700 "$FEATHER_AGENT_STATE_DIR" || log "cannot write to the volume /var/lib/feather; is its disk full?"
}

prepare() {
  prepare_shared_memory
  prepare_run
  prepare_directories
  give_up_reserve
  # A connection that arrives while Caddy swaps its listener moves to the new one instead of being reset.
  sysctl -qw net.ipv4.tcp_migrate_req=1 2>/dev/null ||
    log "cannot set net.ipv4.tcp_migrate_req: a change of routes may reset new connections"
  prepare_cgroup
  prepare_limits
  prepare_network
}
