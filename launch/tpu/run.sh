#!/usr/bin/env bash
# Runs a command of audiodd on a TPU that create.sh made: all hosts of a pod slice
# together, which find each other without a flag.
#   bash launch/tpu/run.sh NAME ZONE distill --dataset=tones --workdir=runs/tpu
# Each host reads the data, so each must have it: DATA=gs://bucket/folder copies it to
# ~/data on all of them (then --data_dir=data), and what a dataset downloads by itself,
# every host downloads. Only `distill` runs on several hosts; on one host every command
# does. The first host writes the run directory; this script fetches it into ./runs-NAME.
# Interrupted (or preempted, and created again)? The same command continues, as long as
# the first host's disk is there; --workdir on a mounted bucket or disk outlives it.
set -euo pipefail

if [ $# -lt 3 ]; then
  echo "usage: bash launch/tpu/run.sh NAME ZONE COMMAND [flags]" >&2
  exit 2
fi
name="$1" zone="$2"
shift 2
on() { gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"; }

if [ -n "${DATA:-}" ]; then
  on all "mkdir -p data && gcloud storage cp --recursive --no-clobber $(printf %q "$DATA")/* data/"
fi
on all "venv/bin/audiodd $(printf '%q ' "$@")"
gcloud compute tpus tpu-vm scp --recurse "$name":runs "runs-$name" --zone="$zone" --worker=0
echo "fetched runs-$name; look: audiodd report runs-$name"
