#!/usr/bin/env bash
#SBATCH --job-name=deltalm-tensorboard
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=8:00:00
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#
# TensorBoard on RUNS of site.sh, or on other folders. It listens on its node's loopback alone, for it asks nobody who
# they are; the job's log says the command that brings it to your machine.
#
#     sbatch --partition cpu slurm/tensorboard.sh [FOLDER]

script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then # SLURM runs a copy, and knows where the original lies
    until script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=//p') && [ -n "$script" ]; do sleep 15; done
    script=${script%" $*"}
fi
# shellcheck source=slurm/common.sh
. "$(dirname "$script")/common.sh"
read_arguments "$@"

OUTPUT=${OPTIONS[0]:-$RUNS}
COMMAND=("$PYTHON" -m tensorboard.main --logdir "$OUTPUT" --host 127.0.0.1 --port 0)
[ "$MODE" = job ] || run_job

load_modules
messages=$(mktemp)
trap 'rm -f "$messages"; kill %1 2>/dev/null' EXIT
"${COMMAND[@]}" >"$messages" 2>&1 &
until port=$(sed -nE 's,.*http://[^:]+:([0-9]+)/.*,\1,p' "$messages" | grep .); do
    kill -0 $! 2>/dev/null || { cat "$messages" && exit 1; }
    sleep 0.2
done
note "TensorBoard shows $OUTPUT on $SLURMD_NODENAME. On your machine:"
note "    ssh -N -J $(id -un)@$LOGIN_NODE -L 6006:127.0.0.1:$port $(id -un)@$SLURMD_NODENAME"
note "then open http://localhost:6006/. It ends with the job: scancel $SLURM_JOB_ID"
wait
