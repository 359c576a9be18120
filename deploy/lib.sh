# What ./deploy/{demo,test,up} share: install what this host lacks, say what and why, change nothing that is there.
# Sourced by bash with `set -euo pipefail`. Progress goes to stderr, so that stdout stays free for --json.
# Written for Debian 12; the names of packages that differ on Debian 13 and Ubuntu 24.04 are chosen by what apt offers.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
cache=${TOCSIN_CACHE:-/var/cache/tocsin}
log=$cache/install.log

if [ -t 2 ]; then mark=$'\e[1m==>\e[0m'; else mark='==>'; fi
say() { printf '%s %s\n' "$mark" "$*" >&2; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

need_root() {
  [ "$(id -u)" = 0 ] || fail "$0 must run as root: it loads BPF programs, talks to Docker and may install packages. Try: sudo $0 $*"
  mkdir -p "$cache"
}

# quietly WHAT COMMAND...: output to the log, whose path and last lines are shown when it fails.
quietly() {
  local what=$1 start
  shift
  touch "$log"
  start=$(wc -l <"$log")
  printf -- '--- %s: %s\n' "$(date -u +%FT%TZ)" "$*" >>"$log"
  "$@" >>"$log" 2>&1 </dev/null && return
  tail -n "+$((start + 1))" "$log" | tail -n 15 | sed 's/^/    /' >&2
  fail "$what failed; the whole output is in $log"
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# First package of the list that apt can install (releases rename them); the first of all if none.
first_offered() {
  local name
  for name in "$@"; do
    [ -n "$(apt-cache madison "$name" 2>/dev/null)" ] && { echo "$name"; return; }
  done
  echo "$1"
}

update_lists() {
  [ -n "${lists_fresh:-}" ] && return
  say "refresh the package lists"
  quietly "apt-get update" apt-get update -qq
  lists_fresh=1
}

# packages WHY ITEM...: an ITEM is a package, or a|b|c where any one will do.
packages() {
  local why=$1 item name missing=()
  shift
  for item in "$@"; do
    for name in ${item//|/ }; do installed "$name" && continue 2; done
    missing+=("$item")
  done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || fail "this host has no apt-get; install yourself ($why): ${missing[*]}"
  update_lists
  local names=()
  for item in "${missing[@]}"; do
    # shellcheck disable=SC2086
    names+=("$(first_offered ${item//|/ })")
  done
  say "install ${names[*]}: $why"
  quietly "installing ${names[*]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${names[@]}"
}

# The same for programs whose packages would start a service: only the program is wanted.
packages_without_service() {
  local policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then
    packages "$@"
    return
  fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  (packages "$@") || { rm -f "$policy"; exit 1; }
  rm -f "$policy"
}

mounted() { awk -v dir="$1" -v type="$2" '$2 == dir && $3 == type {found = 1} END {exit !found}' /proc/mounts; }

kernel_ready() {
  [ -r /sys/kernel/btf/vmlinux ] ||
    fail "this kernel has no BTF (/sys/kernel/btf/vmlinux): the sensor reads struct offsets from it. Use a kernel built with CONFIG_DEBUG_INFO_BTF=y; every kernel of Debian 12 and Ubuntu 24.04 is."
  mounted /sys/kernel/tracing tracefs || {
    say "mount tracefs: the sensor attaches to tracepoints"
    quietly "mounting tracefs" mount -t tracefs tracefs /sys/kernel/tracing
  }
  mounted /sys/fs/bpf bpf || {
    say "mount the BPF file system"
    quietly "mounting /sys/fs/bpf" mount -t bpf bpf /sys/fs/bpf
  }
}

docker_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

docker_ready() {
  if command -v docker >/dev/null && docker_answers; then return; fi
  command -v dockerd >/dev/null || packages "Docker, whose containers are watched" docker.io iptables
  command -v docker >/dev/null || packages "Docker's command line" "docker-cli|docker.io"
  docker_answers && return # the package may have started it
  if [ -d /run/systemd/system ]; then
    say "start Docker"
    quietly "starting Docker" systemctl start docker
  else
    say "start dockerd: none answers and this host has no systemd"
    setsid dockerd >"$cache/dockerd.log" 2>&1 </dev/null &
    echo $! >"$cache/dockerd.pid"
  fi
  local i
  for i in $(seq 120); do
    docker_answers && break
    [ "$i" = 120 ] && fail "Docker did not answer within 60 s; see $cache/dockerd.log or: journalctl -u docker"
    sleep 0.5
  done
  if [ -s "$cache/dockerd.pid" ]; then
    say "dockerd runs as process $(cat "$cache/dockerd.pid") and stays; stop it with: kill $(cat "$cache/dockerd.pid")"
  fi
}

# The environment sees the distribution's packages because bcc comes from there, so it must be of that python.
python_ready() {
  packages "python and BCC, of the distribution" python3 python3-venv python3-bpfcc
  local wanted stamp=$venv/.installed
  wanted=$(cat "$root/requirements.lock" "$root/deploy/build.lock" "$root/pyproject.toml" <(/usr/bin/python3 -VV; echo "$root") | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
  say "install Tocsin's Python dependencies, at locked versions, into $venv"
  [ -x "$venv/bin/python" ] || quietly "making $venv" /usr/bin/python3 -m venv --system-site-packages "$venv"
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check -q install)
  quietly "installing the locked dependencies" "${pip[@]}" --require-hashes -r "$root/requirements.lock" -r "$root/deploy/build.lock"
  quietly "installing Tocsin itself" "${pip[@]}" --no-deps --no-build-isolation -e "$root"
  echo "$wanted" >"$stamp"
}

# All processes but the sensor run as it. Its own group, because run_dir and state_dir are open to that.
user_ready() {
  id tocsin >/dev/null 2>&1 && return
  packages "useradd" passwd
  say "add the system user tocsin: only the sensor stays root"
  quietly "adding the user tocsin" useradd --system --user-group --no-create-home --shell /usr/sbin/nologin tocsin
}

# All that Tocsin needs to run.
install_tocsin() {
  packages "what an installation needs; Docker lists processes by ps" ca-certificates iproute2 procps
  kernel_ready
  docker_ready
  python_ready
}
