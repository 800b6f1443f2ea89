#!/usr/bin/env bash
# Runs an audiodd command on a TPU that create.sh created, on all hosts of a pod slice
# together. The hosts find each other without flags.
#   bash launch/tpu/run.sh NAME ZONE distill --dataset=tones --workdir=runs/tpu
# Every host needs the data: DATA=gs://bucket/folder copies it to ~/data on each of them
# (then pass --data_dir=data), and each host downloads datasets that have a download. Only
# `distill` runs on several hosts; every command runs on one host. The first host writes
# the run directory, and this script fetches it into ./runs-NAME.
# The same command resumes an interrupted run, as long as the first host's disk exists. A
# --workdir=gs://bucket/run survives the machine: the same command resumes it on a new one,
# and nothing is fetched. --data_dir and --cache_dir can be in a bucket too.
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
case " $* " in *" --workdir=gs://"*) exit ;; esac
gcloud compute tpus tpu-vm scp --recurse "$name":runs "runs-$name" --zone="$zone" --worker=0
echo "fetched runs-$name; next: audiodd report runs-$name"
