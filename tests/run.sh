#!/usr/bin/env bash
# The one command that passes all tests. Run it with -h for the steps.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/tests/.cache
target=${CARGO_TARGET_DIR:-$root/target}
export CARGO_TARGET_DIR=$target
export PULSEGATE_BIN=$target/release/pulsegate
# What the runners report is read by machine here.
export CARGO_TERM_COLOR=never NO_COLOR=1
unset FORCE_COLOR
strict=${CI:-}
LOG_LINES_SHOWN=400
FUZZ_SECONDS=${FUZZ_SECONDS:-20}
FUZZ_TARGETS=(frames handshake config envelope offer)

STEPS=(fmt clippy doc line deny nextest doctest fuzz build bench soak node python netns promtool)

usage() {
  cat <<'TEXT'
usage: tests/run.sh [STEP…]     all steps, or only the named ones

  fmt       cargo fmt --check
  clippy    cargo clippy, all targets, warnings denied
  doc       cargo doc, warnings denied
  line      the registry and what is below it know no sockets and no WebSocket library
  deny      cargo deny: licences, bans, sources (advisories need a network and are not part of this)
  nextest   cargo nextest, the whole workspace
  doctest   the examples in the docs
  fuzz      each fuzz target for FUZZ_SECONDS (20), starting from its corpus
  build     the release binary that the steps below run, and a client of pulsegate.v1 for them
  bench     200 clients, 40 of them vanish: told within the bound and a second, nobody else given up (root);
            beside nginx, HAProxy and a relay every cell is measured, whatever the figures; so is what delivery costs,
            beside plain sessions and Socket.IO
  soak      20 clients of pulsegate.v1 and 12 unmodified ones on bad lines for 20 s: nothing lost, doubled or falsely claimed
  node      npm ws, Chromium, Socket.IO
  python    Python websockets, bad input, shutdown, configuration
  netns     network faults between network namespaces (root)
  promtool  promtool check metrics on a live scrape

What a step needs and the machine lacks is installed when root (apt, npm, pip in a venv, cargo install).
With CI=true a missing part is a failure; without, the step is skipped and says so.
TEXT
}

passed=0
failed=0
skipped=()
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

have() { command -v "$1" >/dev/null 2>&1; }

# --- what a step needs -------------------------------------------------------------------------------------

apt_updated=
apt_install() {
  have apt-get && [[ $EUID -eq 0 ]] || return 1
  if [[ -z $apt_updated ]]; then
    apt-get update -qq >/dev/null || return 1
    apt_updated=yes
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# need COMMAND PACKAGE: the command, from its Debian package if it is missing.
need() {
  have "$1" || apt_install "$2" || {
    missing="$1 (Debian package $2)"
    return 1
  }
}

# need_cargo SUBCOMMAND: as a cargo subcommand, built from its released source.
need_cargo() {
  have "cargo-$1" || cargo install --locked --quiet "cargo-$1" || {
    missing="cargo-$1 (cargo install --locked cargo-$1)"
    return 1
  }
}

# What jemalloc is built with.
need_compiler() { need cc gcc && need make make; }

need_binary() {
  need_compiler || return 1
  [[ -x $PULSEGATE_BIN && -x $target/release/examples/peer ]] || step_build || {
    missing="the release binaries, which do not build"
    return 1
  }
}

# Servers that only our own tools start: the services that come with them stay off.
need_proxy() {
  if have "$1" || [[ -x /usr/sbin/$1 ]]; then return; fi
  missing="$1 (Debian package $2)"
  [[ $EUID -eq 0 ]] || return 1
  local policy=/usr/sbin/policy-rc.d made='' status=0
  if [[ ! -e $policy ]]; then
    made=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" || return 1
  fi
  apt_install "$2" || status=$?
  [[ -z $made ]] || rm -f "$policy"
  return "$status"
}

need_fuzz() { need_compiler && need c++ g++ && need_cargo fuzz; }

need_node() {
  need_binary && need node nodejs && need npm npm && need "${CHROMIUM_BIN:-chromium}" chromium || return 1
  local stamp=$root/tests/node/node_modules/.package-lock.json
  if [[ ! $stamp -nt $root/tests/node/package-lock.json ]]; then
    (cd "$root/tests/node" && npm ci --silent --no-audit --no-fund) || {
      missing="the npm packages of tests/node (npm ci)"
      return 1
    }
  fi
}

need_python() {
  need_binary && need python3 python3 || return 1
  local wanted=$root/tests/python/requirements.txt
  cmp -s "$wanted" "$cache/venv/requirements.txt" && return
  python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv || {
    missing="python3-venv"
    return 1
  }
  {
    python3 -m venv --clear "$cache/venv" &&
      "$cache/venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" &&
      cp "$wanted" "$cache/venv/"
  } || {
    missing="the Python packages of tests/python/requirements.txt"
    return 1
  }
}

# A library, not a command: the tests preload it into a gateway whose wall clock they bend.
need_faketime() {
  compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || apt_install libfaketime || {
    missing="libfaketime (Debian package libfaketime)"
    return 1
  }
}

# The package would start a Prometheus server; only its checker is wanted, so only that is unpacked.
need_promtool() {
  if have promtool; then
    export PROMTOOL=promtool
    return
  fi
  export PROMTOOL=$cache/promtool
  [[ -x $PROMTOOL ]] && return
  {
    mkdir -p "$cache" &&
      { [[ $EUID -ne 0 ]] || apt-get update -qq >/dev/null; } &&
      (cd "$scratch" && apt-get download -qq -o APT::Sandbox::User=root prometheus >/dev/null && dpkg-deb -x prometheus_*.deb prometheus) &&
      cp "$scratch/prometheus/usr/bin/promtool" "$PROMTOOL"
  } || {
    missing="promtool (Debian package prometheus)"
    return 1
  }
}

need_namespaces() {
  [[ $EUID -eq 0 ]] || {
    missing="root, for network namespaces"
    return 1
  }
  need ip iproute2 && need nft nftables || return 1
  local probe=pulsegate-$$-probe
  local status=0
  { ip netns add "$probe" && ip netns exec "$probe" nft list tables; } >/dev/null 2>&1 || status=$?
  ip netns del "$probe" 2>/dev/null || true
  [[ $status -eq 0 ]] || missing="the right to make network namespaces and nftables rules in them"
  return "$status"
}

needs_of() {
  case $1 in
    clippy | doc | doctest | build) need_compiler ;;
    deny) need_cargo "$1" ;;
    nextest) need_compiler && need_cargo "$1" ;;
    fuzz) need_fuzz ;;
    node) need_node ;;
    python) need_python && need_node && need_faketime ;;
    bench) need_node && need_namespaces && need_proxy nginx nginx-light && need_proxy haproxy haproxy ;;
    soak) need_python && need_node ;;
    netns) need_namespaces && need_python && need_node ;;
    promtool) need_python && need_node && need_promtool ;;
    *) true ;;
  esac
}

# --- the steps ---------------------------------------------------------------------------------------------

step_fmt() { cargo fmt --all --check; }
step_clippy() { cargo clippy --quiet --locked --workspace --all-targets -- -D warnings; }
step_doc() { RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --workspace --no-deps --document-private-items; }

step_line() {
  local tree found=0
  tree=$(cargo tree --locked -p pulsegate-registry -e normal --prefix none)
  grep -q '^pulsegate-registry ' <<<"$tree" || return 1
  for crate in tokio mio socket2 hyper tungstenite tokio-tungstenite; do
    if grep "^$crate " <<<"$tree"; then found=1; fi
  done
  return "$found"
}

# Offline it works on what is fetched, and it looks at the crates of every platform.
step_deny() {
  cargo fetch --quiet --locked && cargo deny --offline --log-level error check bans licenses sources
}
step_nextest() { cargo nextest run --locked --workspace --no-fail-fast --status-level fail --final-status-level slow; }
step_doctest() { cargo test --quiet --locked --workspace --doc; }

# Built in a directory of its own, since all crates are instrumented; without link-time optimisation, which would
# cost more time than it saves. No address sanitizer: the targets reach no unsafe code of ours. The corpus is only
# read; what is found new goes with the scratch directory, and an input that breaks a target is shown.
step_fuzz() {
  local name status=0 host
  host=$(rustc -vV | sed -n 's/^host: //p')
  # cargo-fuzz passes flags that a stable compiler takes only so.
  RUSTC_BOOTSTRAP=1 CARGO_PROFILE_RELEASE_LTO=off \
    cargo fuzz build --features engine --sanitizer none --debug-assertions --codegen-units 16 --target-dir "$target/fuzz" || return 1
  for name in "${FUZZ_TARGETS[@]}"; do
    mkdir -p "$scratch/fuzz/$name/finds" "$scratch/fuzz/$name/broke"
    printf -- '-- fuzz: %s\n' "$name"
    "$target/fuzz/$host/release/$name" -max_total_time="$FUZZ_SECONDS" -timeout=5 -rss_limit_mb=2048 -max_len=8192 \
      -print_final_stats=1 -artifact_prefix="$scratch/fuzz/$name/broke/" \
      "$scratch/fuzz/$name/finds" "$root/fuzz/corpus/$name" || status=1
    find "$scratch/fuzz/$name/broke" -type f -printf '%f breaks %p, in base64:\n' -exec base64 {} \;
  done
  return "$status"
}

# The client is not what is measured: no link-time optimisation, which would cost a minute.
step_build() {
  cargo build --quiet --locked --release -p pulsegate &&
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
      cargo build --quiet --locked --release -p pulsegate-client --example peer
}
step_bench() {
  cargo build --quiet --locked --release -p pulsegate-bench &&
    "$target/release/bench" detection --sessions 200 --dead 40 --profile fast --network good --slack-ms 1000 \
      --out "$scratch/detection.svg" --json "$scratch/detection.json" &&
    "$target/release/bench" proxies --brief --json "$scratch/proxies.json" &&
    "$target/release/bench" delivery --brief --json "$scratch/delivery.json"
}
step_soak() {
  cargo build --quiet --locked --release -p pulsegate-soak &&
    "$target/release/soak" --clients 20 --seconds 20 --unmodified 12 --seed "${SOAK_SEED:-1}" \
      --tests "$root/tests" --python "$cache/venv/bin/python"
}
step_node() { (cd "$root/tests/node" && node --test --test-concurrency=1 --test-reporter=spec ./*.test.mjs); }
step_python() { run_pytest python --ignore=python/test_promtool.py; }
step_netns() { run_pytest netns; }
step_promtool() { run_pytest python/test_promtool.py; }

run_pytest() { (cd "$root/tests" && "$cache/venv/bin/python" -B -m pytest "$@"); }

# --- running and counting ----------------------------------------------------------------------------------

# sum REGEX FILE: adds up the one number that the expression captures, over all lines.
sum() { sed -nE "s/$1/\1/p" "$2" | awk '{ total += $1 } END { print total + 0 }'; }

# count STEP STATUS LOG: sets and adds `good` and `bad` as the runner reports them; a step without a count of its
# own counts as one.
count() {
  good=0 bad=0
  case $1 in
    nextest)
      good=$(sum '^ *Summary .* tests? run: ([0-9]+) passed.*' "$3")
      bad=$(($(sum '^ *Summary .* ([0-9]+)(\/[0-9]+)? tests? run:.*' "$3") - good))
      ;;
    doctest)
      good=$(sum '^test result:.* ([0-9]+) passed.*' "$3")
      bad=$(sum '^test result:.* ([0-9]+) failed.*' "$3")
      ;;
    # One line for each target that ran to its end.
    fuzz) good=$(grep -c '^Done [0-9]* runs in ' "$3" || true) ;;
    node)
      good=$(sum '^ℹ pass ([0-9]+)$' "$3")
      bad=$(sum '^ℹ fail ([0-9]+)$' "$3")
      ;;
    python | netns | promtool)
      good=$(sum '^.*\b([0-9]+) passed.* in [0-9.]+s.*' "$3")
      bad=$(($(sum '^.*\b([0-9]+) failed.* in [0-9.]+s.*' "$3") + $(sum '^.*\b([0-9]+) errors?.* in [0-9.]+s.*' "$3")))
      ;;
    *) [[ $2 -ne 0 ]] || good=1 ;;
  esac
  # A runner that died before it could count has failed all the same, and one that ran nothing proved nothing
  # (only the docs may be without an example).
  if [[ $bad -eq 0 ]] && { [[ $2 -ne 0 ]] || [[ $good -eq 0 && $1 != doctest ]]; }; then bad=1; fi
  passed=$((passed + good))
  failed=$((failed + bad))
}

run_step() {
  local step=$1 start=$SECONDS log=$scratch/$1.log status=0
  printf '\n== %s\n' "$step"
  missing=
  if ! needs_of "$step"; then
    if [[ $strict == true ]]; then
      failed=$((failed + 1))
      printf -- '-- %s: FAILED, missing: %s\n' "$step" "$missing"
    else
      skipped+=("$step")
      printf -- '-- %s: SKIPPED, missing: %s\n' "$step" "$missing"
    fi
    return
  fi
  "step_$step" </dev/null >"$log" 2>&1 || status=$?
  count "$step" "$status" "$log"
  if [[ $bad -ne 0 ]]; then tail -n "$LOG_LINES_SHOWN" "$log"; fi
  printf -- '-- %s: %d passed, %d failed (%d s)\n' "$step" "$good" "$bad" $((SECONDS - start))
}

main() {
  if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    usage
    return
  fi
  local step steps=("$@")
  [[ ${#steps[@]} -gt 0 ]] || steps=("${STEPS[@]}")
  for step in "${steps[@]}"; do
    if [[ " ${STEPS[*]} " != *" $step "* ]]; then
      printf 'no such step: %s\n\n' "$step" >&2
      usage >&2
      return 2
    fi
  done
  have cargo || {
    printf 'cargo is missing: install a Rust toolchain first (https://rustup.rs)\n' >&2
    return 1
  }
  cd "$root"
  for step in "${steps[@]}"; do run_step "$step"; done
  if [[ ${#skipped[@]} -gt 0 ]]; then printf '\nSKIPPED steps: %s\n' "${skipped[*]}"; fi
  printf '\n%d passed, %d failed\n' "$passed" "$failed"
  [[ $failed -eq 0 ]]
}

main "$@"
