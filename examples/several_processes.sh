#!/usr/bin/env bash
# One training on several processes: batches are per process, batch norm sees the batches of all, one process writes.
#
#   examples/several_processes.sh                                  two processes on this machine
#   examples/several_processes.sh machine 0 first-machine:29500    on the first of two machines
#   examples/several_processes.sh machine 1 first-machine:29500    on the second, at the same time
#
# Both machines need the same data at the same place, and the folder of the run on a file system that both see: the first
# process writes it, all read it.
# What follows is handed to adjcompress train:  TRAIN="--data cifar10 --model resnet50" examples/several_processes.sh
set -euo pipefail
read -r -a options <<<"${TRAIN:-}"
if [ "${1:-}" = machine ]; then
    exec torchrun --nnodes=2 --nproc-per-node="${PROCESSES:-1}" --node-rank="$2" --rdzv-id=adjcompress --rdzv-backend=c10d \
        --rdzv-endpoint="$3" --no-python adjcompress train "${options[@]}"
fi
exec torchrun --standalone --nproc-per-node="${PROCESSES:-2}" --no-python adjcompress train "${options[@]}"
