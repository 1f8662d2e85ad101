#!/usr/bin/env bash
# guard.sh BATCH_PID JOB_LOG HISTORY: requeue the job if its batch script is killed, which SLURM takes for its end.
#
# It runs as a step of its own, beside the batch script. It ends when the batch script does, and when SLURM ends
# the job (scancel, time limit), which is the batch script's to answer.
batch=$1 log=$2 history=$3

trap '' USR1 # asks the ranks to save
trap 'if kill -0 "$batch" 2>/dev/null; then exit; fi' TERM

# shellcheck source=slurm/job_field.sh
. "$(dirname "$0")/job_field.sh"

while kill -0 "$batch" 2>/dev/null; do sleep 0.5; done
while [ "$(job_field JobState)" = RUNNING ]; do sleep 0.2; done
# Unless the job has started again meanwhile.
if [ "$(job_field ExitCode)" = 0:9 ] && [ "$(job_field Restarts)" = "${SLURM_RESTART_COUNT:-0}" ]; then
    reason="the batch script was killed"
    printf '%s  requeued: %s\n' "$(date '+%F %T')" "$reason" >>"$log"
    printf '%s\t%s\t%s\tend\t-\t-\t137\t%s\n' "$(date '+%F %T')" "$SLURM_JOB_ID" "${SLURM_RESTART_COUNT:-0}" \
        "$reason" >>"$history"
    scontrol requeue "$SLURM_JOB_ID"
fi
