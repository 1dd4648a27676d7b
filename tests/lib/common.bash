# What the scripts under tests/ share. To be sourced, not run.
# shellcheck shell=bash

TAGSHIP_TESTHOST_DIR=${TAGSHIP_TESTHOST_DIR:-/var/cache/tagship-testhost}
export TAGSHIP_TESTHOST_DIR

# One line to the person who waits: what happens to their machine, or why it stops.
say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

die() {
  say "$*"
  exit 1
}

# What a check needs is not to be had on this machine: by exit code 3, tests/run counts it as skipped.
cannot() {
  say "cannot be had here: $*"
  exit 3
}

needs_root() {
  ((EUID == 0)) || die "needs root: it makes namespaces, mounts and cgroups, and installs packages"
}

# apt_install PACKAGE:COMMAND…  installs the packages whose command is missing, and says which.
apt_install() {
  local pair log lock missing=()
  for pair; do
    command -v "${pair#*:}" >/dev/null || missing+=("${pair%%:*}")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || cannot "${missing[*]}: no apt on this machine"
  ((EUID == 0)) || cannot "${missing[*]}: installing packages needs root"
  say "installs with apt: ${missing[*]}"
  log=$(mktemp)
  exec {lock}</var/lib/dpkg
  flock "$lock" # one of us at a time: apt's list of packages has no patience of its own
  # Another apt may be at work, as it is on a machine that has just started.
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    -o DPkg::Lock::Timeout=300 "${missing[@]}"; } >"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    rm -f "$log"
    cannot "apt could not install ${missing[*]}"
  }
  exec {lock}<&-
  rm -f "$log"
}

# retry COUNT COMMAND…  for what becomes true by itself within moments and has no event to wait for.
retry() {
  local left=$1
  shift
  until "$@"; do
    ((left-- > 0)) || return 1
    sleep 0.1
  done
}

# The Debian archive that the machine's own apt uses.
debian_mirror() {
  local found
  found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    grep -v '^ *#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ') || true
  [[ -n $found ]] || cannot "this machine's apt names no Debian archive"
  echo "$found"
}

# failpoint_build  builds both programs so that a test can end them at any place, and says where they are.
failpoint_build() {
  # shellcheck disable=SC2154 # whoever sources this has said where the project is
  local place=$project/target/failpoints program
  cargo build --quiet --workspace --features tagship/failpoints,tagship-host/failpoints >&2
  mkdir -p "$place"
  for program in tagship tagship-host; do
    # Not where it was built: the next build without failpoints puts its own there.
    cp --remove-destination "$project/target/debug/$program" "$place/"
  done
  echo "$place"
}
