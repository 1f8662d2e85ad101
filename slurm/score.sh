#!/usr/bin/env bash
#SBATCH --job-name=deltalm-score
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=4:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#
# Generate from a model and score the outputs: a GPU for each task of the job, by MPI (MPI_LAUNCHER in site.sh).
#
#     sbatch slurm/score.sh MODEL SOURCES REFERENCES LANGUAGE [OPTIONS OF generate]
#     sbatch slurm/score.sh runs/tuned/model test.en test.fr fr --beam 5
#
# The outputs are in RUNS/score-PARENT_OF_MODEL-SOURCES-JOB/, the scores beside them and at the end of the job's log.

script=${BASH_SOURCE[0]}
if [ "${script##*/}" = slurm_script ]; then # SLURM runs a copy, and knows where the original lies
    until script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=//p') && [ -n "$script" ]; do sleep 15; done
    script=${script%" $*"}
fi
# shellcheck source=slurm/common.sh
. "$(dirname "$script")/common.sh"
read_arguments "$@"

[ ${#OPTIONS[@]} -ge 4 ] || refuse "give MODEL SOURCES REFERENCES LANGUAGE, say runs/tuned/model test.en test.fr fr"
model=${OPTIONS[0]} sources=${OPTIONS[1]} references=${OPTIONS[2]} language=${OPTIONS[3]}
for path in "$model" "$sources" "$references"; do
    [ -e "$path" ] || [ "$MODE" = print ] || refuse "$path does not exist"
done
OUTPUT=$RUNS/score-$(basename "$(dirname "$model")")-$(basename "$sources")-${SLURM_JOB_ID:-JOB}
STATE=$OUTPUT PROGRESS=$OUTPUT/outputs.txt.partial DONE=$OUTPUT/outputs.txt
OPTIONS=("${OPTIONS[@]:4}")

SRUN=(srun --job-name=score --input=none --nodes=1 --ntasks=1 --ntasks-per-node=1)
enter_container
AFTER=("${SRUN[@]}" "${INSIDE[@]}" "$PYTHON" -m deltalm_ds.score "$OUTPUT/outputs.txt" --references "$references"
    --language "$language" --sources "$sources" --json "$OUTPUT/scores.json")
run_by_mpi generate "$model" --input "$sources" --target-language "$language" --output "$OUTPUT/outputs.txt" --resume
