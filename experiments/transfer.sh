#!/usr/bin/env bash
# Scores kernel regression and networks on coresets with a teacher's labels, on four
# datasets; results/teacher_labels.md has the tables.
#   DIGITS=/data/fsdd ESC=/data/ESC-50 ARABIC=/data/arabic URBAN=/data/UrbanSound8K \
#     bash experiments/transfer.sh [digits-2 esc10-5 arabic-10 arabic-2 urban-5 urban-20]
# SEEDS is the number of networks per training set (3), MODEL the network (convnet), OUT the
# folder of the runs. Finished runs are not repeated, and interrupted ones resume.
set -euo pipefail
out="${OUT:-runs/transfer}"
model="${MODEL:-convnet}"

# score NAME [flags of distill]
score() {
  local run="$out/$1"
  shift
  audiodd distill --preset=transfer --workdir="$run" "$@"
  audiodd evaluate --workdir="$run" --protocol="krr,$model" --against=random,all \
    --num_seeds="${SEEDS:-3}" --out="$run/$model"
}

# acquire NAME BUDGETS [flags of active]: runs all acquisition functions
acquire() {
  local run="$out/$1" budgets="$2"
  shift 2
  audiodd active --acquisition=all --config.active.initial=1/class --budgets="$budgets" \
    --num_seeds="${SEEDS:-3}" --model="$model" --workdir="$run" "$@"
}

for name in "${@:-digits-2 esc10-5 arabic-10 arabic-2 arabic-active urban-5 urban-20}"; do
  for each in $name; do
    samples="${each##*-}"
    case "$each" in
      digits-*) score "$each" --dataset=spoken_digit --data_dir="${DIGITS:?set DIGITS to the folder of the Free Spoken Digit Dataset}" --samples_per_class="$samples" ;;
      esc10-*) score "$each" --dataset=esc10 --data_dir="${ESC:?set ESC to the folder of ESC-50 or ESC-10}" --samples_per_class="$samples" --fold=all ;;
      arabic-active)
        acquire "$each" 2/class,10/class --dataset=arabic_speech_commands --data_dir="${ARABIC:?set ARABIC to the folder of Arabic Speech Commands}" ;;
      arabic-*) score "$each" --dataset=arabic_speech_commands --data_dir="${ARABIC:?set ARABIC to the folder of Arabic Speech Commands}" --samples_per_class="$samples" ;;
      urban-*)
        score "$each" --dataset=urbansound8k --data_dir="${URBAN:?set URBAN to the folder of UrbanSound8K}" --samples_per_class="$samples" --fold=all --allow_partial ;;
      *)
        echo "unknown name: $each" >&2
        exit 2
        ;;
    esac
  done
done
