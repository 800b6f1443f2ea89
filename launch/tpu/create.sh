#!/usr/bin/env bash
# Creates a Cloud TPU virtual machine, or a pod slice with several hosts, and installs the
# package on every host.
#   bash launch/tpu/create.sh NAME ZONE [TYPE] [VERSION]
#   bash launch/tpu/create.sh audiodd us-central1-a v5litepod-8
# It costs money until it is deleted:
#   gcloud compute tpus tpu-vm delete NAME --zone=ZONE
# Requires gcloud, signed in, with a project and a quota for the type. Preemptible machines
# (OPTIONS="--preemptible") are cheaper; interrupted runs resume.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ $# -lt 2 ]; then
  echo "usage: bash launch/tpu/create.sh NAME ZONE [TYPE] [VERSION]" >&2
  exit 2
fi
name="$1" zone="$2" type="${3:-v5litepod-8}" version="${4:-v2-alpha-tpuv5-lite}"
read -r -a options <<<"${OPTIONS:-}"

gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
  --accelerator-type="$type" --version="$version" "${options[@]}"

archive="$(mktemp -d)/audiodd_jax.tar.gz"
git archive --format=tar.gz --prefix=audiodd_jax/ --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$name": --zone="$zone" --worker=all
# JAX for TPUs comes first, so that installing the package keeps it.
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command='
  set -e
  sudo apt-get update -qq && sudo apt-get install -y -qq python3-venv
  tar -xzf audiodd_jax.tar.gz
  python3 -m venv venv
  venv/bin/pip install --quiet "jax[tpu]"
  venv/bin/pip install --quiet "./audiodd_jax[gcs]"
  venv/bin/audiodd version'
echo "next: bash launch/tpu/run.sh $name $zone distill --dataset=tones --workdir=runs/tpu"
