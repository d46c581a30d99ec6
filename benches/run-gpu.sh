#!/usr/bin/env bash
# Everything that a machine with a GPU is to show, from programs built elsewhere: it needs no toolchain.
#
#   benches/run-gpu.sh pack FOLDER      build and copy the programs and this script (here)
#   FOLDER/run-gpu.sh run RESULTS       conformance, a discovery, every stage against the CPU, all benches (there)
#
# FEATURES names the backends to build, DEVICES those to run on. What `run` leaves in RESULTS/criterion
# becomes a table with `cargo xtask bench-report --criterion RESULTS/criterion --name NAME`.
set -euo pipefail
features=${FEATURES:-cuda,wgpu}
devices=${DEVICES:-cuda wgpu cpu}
benches="load capture train encode score-nodes score-edges discover eap acdc growth"

pack() {
  local out=$1
  cd "$(dirname "$0")/.."
  mkdir -p "$out"
  cargo build --release --locked -p circuitscope-cli --features "$features"
  cp "$(target_dir)/release/circuitscope" "$out/"
  cargo bench --locked -p circuitscope-benches --features "$features" --no-run --message-format json \
    | sed -n 's/.*"kind":\["bench"\].*"name":"\([^"]*\)".*"executable":"\([^"]*\)".*/\1 \2/p' \
    | while read -r name file; do cp "$file" "$out/bench-$name"; done
  cargo test --release --locked -p circuitscope-benches --test backends --features "$features" --no-run --message-format json \
    | sed -n 's/.*"kind":\["test"\].*"executable":"\([^"]*\)".*/\1/p' \
    | while read -r file; do cp "$file" "$out/device-tests"; done
  strip "$out/circuitscope" "$out/device-tests" "$out"/bench-*
  cp benches/run-gpu.sh "$out/"
  du -sh "$out"
}

target_dir() {
  cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

run() {
  local results here
  here=$(cd "$(dirname "$0")" && pwd)
  mkdir -p "$1"
  results=$(cd "$1" && pwd)
  export CRITERION_HOME="$results/criterion"
  { nvidia-smi || true; uname -a; } >"$results/machine.txt" 2>&1
  local failed=0
  for device in $devices; do
    echo "== $device"
    "$here/circuitscope" doctor --device "$device" --format json >"$results/doctor-${device//:/-}.json" || failed=1
    "$here/circuitscope" discover --task ioi --device "$device" --format json \
      >"$results/discover-${device//:/-}.json" || failed=1
  done
  echo "== every stage on every backend"
  "$here/device-tests" gpu_ --ignored --test-threads 1 >"$results/device-tests.txt" 2>&1 || failed=1
  for bench in $benches; do
    echo "== bench $bench"
    "$here/bench-$bench" --bench >"$results/bench-$bench.txt" || failed=1
  done
  return "$failed"
}

case ${1:-} in
  pack | run) [ $# -eq 2 ] && "$1" "$2" ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
