#!/usr/bin/env bash
#SBATCH --job-name=deltalm-base
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#
# The paper's run: DeltaLM-base from InfoXLM on 8 nodes of 8 GPUs, 600,000 steps of 2,048 samples of 512 tokens, span
# corruption and translation span corruption. It saves, requeues itself and goes on until the steps are done.
#
#     sbatch slurm/pretrain_64gpu.sh              the run; bash in place of sbatch takes the queue from site.sh
#     sbatch --nodes 4 slurm/pretrain_64gpu.sh    on 32 GPUs, or going on there: same samples, same learning rate
#     bash slurm/pretrain_64gpu.sh --dry-run      what would run

script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then # SLURM runs a copy, and knows where the original lies
    until script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=//p') && [ -n "$script" ]; do sleep 15; done
    script=${script%" $*"}
fi
# shellcheck source=slurm/common.sh
. "$(dirname "$script")/common.sh"
read_arguments "$@"

demand DATA "the folder that python -m deltalm_ds.prepare made"
demand START_FROM "the folder or file of InfoXLM-base"
pretrain pretrain-64gpu \
    --preset base --steps 600000 --batch-size 2048 \
    --max-source-length 512 --max-target-length 512 \
    --monolingual-objective span-corruption --pair-objective translation-span-corruption
