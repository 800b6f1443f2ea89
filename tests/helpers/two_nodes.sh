#!/usr/bin/env bash
# A sweep on two Ray nodes of one machine, one worker of which is killed half-way. It
# expects a network of its own, with nothing but a loopback interface:
#   unshare --net bash two_nodes.sh FILE WORKDIR
set -euo pipefail
file="$1" workdir="$2"
python="${PYTHON:-python3}"
ray() { "$python" -m ray.scripts.scripts "$@"; }

# Not among the tests: the names of sockets must be short.
scratch="$(mktemp -d)"
ip link set lo up
# Ray has workers wait for everything else on the machine otherwise.
export RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0
ray start --head --node-ip-address=127.0.0.1 --port=6379 --num-cpus=1 \
  --include-dashboard=false --temp-dir="$scratch" --disable-usage-stats
ray start --address=127.0.0.1:6379 --node-ip-address=127.0.0.1 --num-cpus=1
trap 'ray stop --force >/dev/null 2>&1 || true; rm -rf "$scratch"' EXIT

"$python" -m audiodd_jax sweep "$file" --workdir="$workdir" --ray=127.0.0.1:6379 &
sweep=$!
finished() {
  local count
  count="$(grep -c '"event": "finished"' "$workdir/sweep.jsonl" 2>/dev/null || true)"
  echo "${count:-0}"
}
while [ "$(finished)" -lt 5 ] && kill -0 "$sweep"; do sleep 0.2; done
# A run that has taken steps and is not done; its process is the worker's child.
run=""
while [ -z "$run" ] && kill -0 "$sweep"; do
  for folder in "$workdir"/seed=*; do
    if [ ! -e "$folder/result.json" ] && [ -e "$folder/metrics.jsonl" ] &&
      [ "$(wc -l <"$folder/metrics.jsonl")" -ge 4 ]; then
      run="$(pgrep -f -- "--workdir=$folder$" | head -n 1 || true)"
      [ -z "$run" ] || break
    fi
  done
  sleep 0.1
done
worker="$(ps -o ppid= -p "$run" | tr -d ' ')"
kill -9 "$worker"
echo "killed the worker of $folder"
wait "$sweep"
