#!/usr/bin/env bash
#SBATCH --job-name=deltalm-pretrain
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#
# Pre-training of any size: nodes and GPUs by sbatch's options, the run by pretrain.py's. One task is one GPU.
#
#     sbatch --nodes 4 slurm/pretrain_multi.sh --output RUN --preset large --batch-size 4096
#     sbatch --nodes 1 --ntasks-per-node 2 --gpus-per-node 2 slurm/pretrain_multi.sh --output RUN --preset small
#     bash slurm/pretrain_multi.sh --nodes 4 --dry-run -- --output RUN --preset large

script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then # SLURM runs a copy, and knows where the original lies
    until script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=//p') && [ -n "$script" ]; do sleep 15; done
    script=${script%" $*"}
fi
# shellcheck source=slurm/common.sh
. "$(dirname "$script")/common.sh"
read_arguments "$@"

demand DATA "the folder that python -m deltalm_ds.prepare made"
demand START_FROM "weights to start from, or the word nothing"
has_option --output || refuse "say where the run goes, so that it never goes on with another one: --output FOLDER"
pretrain ""
