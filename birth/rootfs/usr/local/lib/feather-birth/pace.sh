# shellcheck shell=sh
# Sourced first by each service's `run`, in the service's own folder. A service that ends soon after its start waits longer
# and longer before the next one: 1, 2, 4, 8 s. `finish` counts.
exec 2>&1 9>&-
case $(cat quick-ends 2>/dev/null) in
  '' | 0) pause=0 ;;
  1) pause=1 ;;
  2) pause=2 ;;
  3) pause=4 ;;
  *) pause=8 ;;
esac
# Not with the log's pipe as its output: at the end of the birth the log would wait for it.
sleep "$pause" >/dev/null 2>&1
cut -d . -f 1 /proc/uptime >since

# Until Podman has opened its socket, or for 30 s.
wait_for_podman() {
  for _ in $(seq 300); do
    [ ! -S "$FEATHER_AGENT_PODMAN_SOCKET" ] || return 0
    sleep 0.1
  done
  echo "Podman has not opened its socket in 30 s; going on without it"
}
