#!/usr/bin/env bash
# guard.sh BATCH_PID JOB_LOG HISTORY: requeue the job if its batch script is killed, which SLURM takes for its end.
#
# It runs as a step of its own, beside the batch script. It ends when the batch script does, and when SLURM ends
# the job (scancel, time limit), which is the batch script's to answer.
batch=$1 log=$2 history=$3

trap '' USR1 # asks the ranks to save
trap 'if kill -0 "$batch" 2>/dev/null; then exit; fi' TERM

while kill -0 "$batch" 2>/dev/null; do sleep 0.5; done
# A batch script that ends by itself has ended this step first, and one that was killed on its way there has recorded
# its end. SLURM will end this step, too: there is no time to lose.
if awk -F '\t' -v job="$SLURM_JOB_ID" -v own="${SLURM_RESTART_COUNT:-0}" \
    '$2 == job && $3 >= own && ($4 == "end" || $3 > own) { found = 1 } END { exit found }' "$history"; then
    told="not requeued: the batch script was killed"
    for _ in {1..40}; do
        if scontrol requeue "$SLURM_JOB_ID"; then
            told="requeued: the batch script was killed"
            break
        fi
        sleep 0.2
    done
    printf '%s  %s\n' "$(date '+%F %T')" "$told" >>"$log"
    printf '%s\t%s\t%s\tend\t-\t-\t137\t%s\n' "$(date '+%F %T')" "$SLURM_JOB_ID" "${SLURM_RESTART_COUNT:-0}" \
        "${told#*: }" >>"$history"
fi
