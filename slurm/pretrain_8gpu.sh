#!/usr/bin/env bash
#SBATCH --job-name=deltalm-base-8
#SBATCH --nodes=1
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
# The paper's run on one node of 8 GPUs: the same samples and updates as pretrain_64gpu.sh, eight times as long. It
# saves, requeues itself and goes on until the steps are done.
#
#     sbatch slurm/pretrain_8gpu.sh                          the run; bash for sbatch takes the queue from site.sh
#     sbatch slurm/pretrain_8gpu.sh --micro-batch-size 32    with options of pretrain.py
#     bash slurm/pretrain_8gpu.sh --dry-run                  what would run

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
pretrain pretrain-8gpu \
    --preset base --steps 600000 --batch-size 2048 \
    --max-source-length 512 --max-target-length 512 \
    --monolingual-objective span-corruption --pair-objective translation-span-corruption
