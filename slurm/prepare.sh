#!/usr/bin/env bash
#SBATCH --job-name=deltalm-prepare
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#
# Prepare RECIPE of site.sh, the folder DATA, on the cores of several nodes, by MPI (MPI_LAUNCHER in site.sh). At the
# time limit, or after a node's failure, it is requeued and goes on where it was.
#
#     sbatch --partition cpu slurm/prepare.sh --tokenizer infoxlm/sentencepiece.bpe.model
#     bash slurm/prepare.sh --nodes 8 --dry-run

script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then # SLURM runs a copy, and knows where the original lies
    until script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=//p') && [ -n "$script" ]; do sleep 15; done
    script=${script%" $*"}
fi
# shellcheck source=slurm/common.sh
. "$(dirname "$script")/common.sh"
read_arguments "$@"

demand RECIPE "text files, folders or a recipe"
[ -n "${DATA-}" ] || refuse "DATA is not set in site.sh: the folder to make"
OUTPUT=$DATA STATE=$RUNS/prepare-$(basename "$DATA")
PROGRESS=$(dirname "$DATA")/.$(basename "$DATA").work
run_by_mpi prepare "$RECIPE" --output "$DATA"
