#!/usr/bin/env bash
# put, get and mixed at 1, 16, 64 and 256 clients against a fresh cluster of three nodes on this machine.
#
#   benches/matrix.sh                after `make build`; or `make bench`
#   SECS=5 WARMUP=1                  length of one measurement and of its warm-up
#   MIXES="put get" CLIENTS="1 64"   which
#
# 16-byte keys, 256-byte values, 10,000 keys, closed loop, every write synced at a quorum before it is acknowledged.
# Figures of different machines, and of different minutes on a busy one, do not compare.
set -euo pipefail
cd "$(dirname "$0")/.."
SYNOD=target/release/synod
SECS=${SECS:-5} WARMUP=${WARMUP:-1} MIXES=${MIXES:-put get mixed} CLIENTS=${CLIENTS:-1 16 64 256}
[ -x "$SYNOD" ] || { echo "no $SYNOD: run \`make build\` first" >&2; exit 2; }

DATA=$(mktemp -d)
CLUSTER=
stop() {
  if [ -n "$CLUSTER" ]; then
    kill -TERM "$CLUSTER" 2>/dev/null || true
    wait "$CLUSTER" 2>/dev/null || true
  fi
  rm -rf "$DATA"
}
trap stop EXIT

# Ports below the ephemeral range; tried anew if taken.
for _ in 1 2 3 4 5; do
  PORT=$((10000 + RANDOM % 20000))
  "$SYNOD" cluster --nodes 3 --base-port "$PORT" --data-dir "$DATA" >"$DATA/out" 2>"$DATA/log" &
  CLUSTER=$!
  for _ in $(seq 100); do
    grep -q 'Ctrl-C stops' "$DATA/out" && break 2
    kill -0 "$CLUSTER" 2>/dev/null || break
    sleep 0.1
  done
  kill -TERM "$CLUSTER" 2>/dev/null || true
  CLUSTER=
done
[ -n "$CLUSTER" ] || { echo "the cluster did not start:" >&2; tail -n 5 "$DATA/log" >&2; exit 1; }
ENDPOINTS="127.0.0.1:$PORT,127.0.0.1:$((PORT + 1)),127.0.0.1:$((PORT + 2))"

field() { # $1: name of a number in the JSON line on stdin; the first of that name is the total
  grep -o "\"$1\": *[0-9.]*" | head -n 1 | sed 's/.*: *//'
}

echo "| mix | clients | ops/s | p50 us | p99 us | p99.9 us | max us | not done | unknown |"
echo "|---|---|---|---|---|---|---|---|---|"
for mix in $MIXES; do
  for clients in $CLIENTS; do
    json=$("$SYNOD" --endpoints "$ENDPOINTS" --output json bench "$mix" --clients "$clients" --keys 10000 \
      --value-size 256 --duration "${SECS}s" --warmup "${WARMUP}s" 2>>"$DATA/log")
    row="| $mix | $clients |"
    for name in ops_per_s p50 p99 p999 max not_done unknown; do
      row="$row $(printf '%s' "$json" | field "$name") |"
    done
    echo "$row"
  done
done
