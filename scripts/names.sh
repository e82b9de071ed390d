# shellcheck shell=bash
# The names that every script of the fleet agrees on: where things are built, what containers, volumes and networks are
# called, how to reach Podman. Sourced, never run; it starts nothing and knows no product logic.

set -euo pipefail

# Each of these is read by a script that sources this file.
# shellcheck disable=SC2034
{
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}

# Everything this checkout makes in Podman carries this label, so that cleaning up needs no list, and never touches the
# fleet of another checkout. Images are shared between checkouts.
FLEET_LABEL=feather-fleet=$(printf %s "$ROOT" | sha256sum | cut -c 1-12)
IMAGE_LABEL=feather-fleet=image

# The built product, as the tests and the demo run it.
BINARIES=${FEATHER_BINARIES:-$TARGET/debug}

# One fleet per prefix and subnet: the demo keeps the defaults, each test run brings its own.
BIRTH_PREFIX=${FEATHER_BIRTH_PREFIX:-feather-birth-}
SUBNET=${FEATHER_SUBNET:-10.77.0.0/24}
NETWORK=${FEATHER_NETWORK:-${BIRTH_PREFIX}network}
# By convention of Podman the host's end of the bridge is the first address of the subnet.
GATEWAY=${SUBNET%.*}.1

# Where a running fleet keeps its controller, and which port that listens on.
FLEET_DIR=${FEATHER_FLEET_DIR:-$TARGET/demo}
CONTROLLER_PORT=${FEATHER_CONTROLLER_PORT:-7400}

DOMAIN_SUFFIX=${FEATHER_DOMAIN_SUFFIX:-users.inceptel.ai}
# Where a fleet keeps what it wants: `sqlite`, or `postgres` for a server of its own on this machine, and two controllers.
FLEET_STORE=${FEATHER_FLEET_STORE:-sqlite}
STORE_PORT=$((CONTROLLER_PORT + 2500))
SECOND_PORT=$((CONTROLLER_PORT + 3500))
# Where a fleet's DNS is: `memory`, or `dynadot` for a stand-in of it on this machine, with ports beside the controller's.
FLEET_DNS=${FEATHER_FLEET_DNS:-memory}
DNS_ZONE=${DOMAIN_SUFFIX#*.}
DYNADOT_PORT=$((CONTROLLER_PORT + 1000))
DNS_PORT=$((CONTROLLER_PORT + 2000))
# Where a fleet in that zone gets its certificates: `none`, or `pebble` for an authority on this machine that nobody trusts.
FLEET_AUTHORITY=${FEATHER_FLEET_AUTHORITY:-none}
AUTHORITY_PORT=$((CONTROLLER_PORT + 3000))
AUTHORITY_ADMIN_PORT=$((CONTROLLER_PORT + 4000))
# The root under which it issues, for clients.
AUTHORITY_ROOT=$FLEET_DIR/authority.pem
# What make demo and the tests run; `make birth-image` makes localhost/feather-birth:latest, for real servers.
BIRTH_IMAGE=${FEATHER_BIRTH_IMAGE:-localhost/feather-birth:dev}
WORK_TAR=${FEATHER_WORK_TAR:-$TARGET/work-image/feather-work.tar}
AGENT_BINARY=${FEATHER_AGENT_BINARY:-$BINARIES/feather-agent}
}

# rustup's own place, when no profile was read.
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-${HOME:-/nonexistent}/.cargo}/bin

podman() { "$ROOT/scripts/podman" "$@"; }

say() { printf '%s\n' "$*" >&2; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# wait_for WHAT BOUND_SECONDS COMMAND...: polls until COMMAND succeeds; says what it waited for when it never does.
wait_for() {
  local what=$1 bound=$2 deadline
  shift 2
  deadline=$((SECONDS + bound))
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || {
      say "error: waited $bound s for $what"
      return 1
    }
    sleep 0.1
  done
}

# identity_of FILE: changes when a file is replaced.
identity_of() { stat -c '%i-%Y-%s' "$1" 2>/dev/null || printf absent; }

# content_hash PATH...: one digest over the names and contents of files and trees, the same in every checkout, to know
# whether a build is up to date.
content_hash() {
  find "$@" -type f -not -path '*/target/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum |
    sed "s#  $ROOT/#  #" | sha256sum | cut -d' ' -f1
}
