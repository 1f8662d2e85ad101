#!/usr/bin/env bash
#SBATCH --job-name=deltalm-finetune
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#
# Fine-tuning for a task, by finetune.py's options; nodes and GPUs by sbatch's. One task of the job is one GPU.
#
#     sbatch slurm/finetune.sh --task translation --data wmt/en-fr --source-language en --from RUN/model --output TUNED
#     sbatch --ntasks-per-node 1 --gpus-per-node 1 slurm/finetune.sh …    on one GPU
#     bash slurm/finetune.sh --dry-run -- --task translation …             what would run

script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then # SLURM runs a copy, and knows where the original lies
    until script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=//p') && [ -n "$script" ]; do sleep 15; done
    script=${script%" $*"}
fi
# shellcheck source=slurm/common.sh
. "$(dirname "$script")/common.sh"
read_arguments "$@"

has_option --task || refuse "say what to tune for, for example --task translation --data wmt/en-fr --from RUN/model"
has_option --output || refuse "say where the run goes, so that it never goes on with another one: --output FOLDER"
train "" finetune
