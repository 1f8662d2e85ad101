# shellcheck shell=bash
# Runs BEFORE and COMMAND in the job, and does what follows from how they end. Sourced by common.sh.
#
# Whether to requeue: README.md has the table. OUTPUT/slurm/history.tsv has a line for every start and every end:
# time, job, restart, "start" or "end", newest checkpoint, last recorded step, exit code, and a word.

supervise() {
    HISTORY=$OUTPUT/slurm/history.tsv
    mkdir -p "$LOGS" "$OUTPUT/slurm"
    touch "$HISTORY"
    ln -sfn "$(basename "$LOGS")" "$OUTPUT/logs/newest"
    INTERRUPTED='' STEP=''
    trap 'INTERRUPTED=yes' TERM CONT         # SLURM ends the job: the step has the same signal, and saves
    trap 'INTERRUPTED=yes; forward USR1' USR1 # to the batch script alone: sbatch --signal=B:USR1
    begin
    watch_batch_script
    if [ ${#BEFORE[@]} -gt 0 ]; then
        run_step doctor "${BEFORE[@]}"
        [ "$CODE" != 3 ] || exclude_nodes
        [ "$CODE" = 0 ] || finish "the doctor"
    fi
    run_step rank "${COMMAND[@]}"
    finish "the step"
}

forward() { [ -z "$STEP" ] || kill "-$1" "$STEP"; }

# --- Where the run stands.

newest_checkpoint() { # its step; 0 for none
    local folder step newest=0
    for folder in "$OUTPUT"/checkpoints/step_*; do
        step=${folder##*/step_}
        [[ $step =~ ^[0-9]+$ ]] && [ "$step" -gt "$newest" ] && newest=$step
    done
    echo "$newest"
}

last_step() { # that was recorded; 0 for none
    [ -f "$OUTPUT/metrics.jsonl" ] || { echo 0 && return; }
    tail -n 1 "$OUTPUT/metrics.jsonl" | sed -nE 's/.*"step": ([0-9]+).*/\1/p;' | grep . || echo 0
}

job_field() { # NAME, of `scontrol show job`
    scontrol --oneliner show job "$SLURM_JOB_ID" |
        awk -v RS='[ \n]' -v name="$1=" 'index($0, name) == 1 && !seen++ { print substr($0, length(name) + 1) }' || true
}

record() { # start|end CODE WORDS
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(date '+%F %T')" "$SLURM_JOB_ID" "${SLURM_RESTART_COUNT:-0}" \
        "$1" "$(newest_checkpoint)" "$(last_step)" "$2" "$3" >>"$HISTORY"
}

starts_without_progress() { # of this job, this one included, since its newest checkpoint
    awk -F '\t' -v job="$SLURM_JOB_ID" -v newest="$(newest_checkpoint)" \
        '$2 == job && $4 == "start" && $5 == newest { count++ } END { print count + 0 }' "$HISTORY"
}

begin() {
    local last
    last=$(awk -F '\t' -v job="$SLURM_JOB_ID" '$2 == job { line = $4 "\t" $8 } END { print line }' "$HISTORY")
    case $last in
        '') last="first start" ;;
        end*) last="the last start ended: ${last#end?}" ;;
        *) last="the last start ended without a word: its node failed, it was preempted, or requeued by hand" ;;
    esac
    note "job $SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST, $TASKS tasks; $last"
    record start - "$SLURM_JOB_NODELIST"
    note "output $OUTPUT; newest checkpoint: step $(newest_checkpoint)"
    note "each rank's output: $LOGS/rank-N.log; progress: tail -F $OUTPUT/logs/newest/rank-0.log"
    if [ "$(starts_without_progress)" -gt $((MAX_REQUEUES + 1)) ]; then
        give_up 1 "started $(starts_without_progress) times without a newer checkpoint"
    fi
}

# A step of its own, which requeues the job if this very script is killed.
watch_batch_script() {
    srun --job-name=guard --input=none --overlap --mem=0 --nodes=1 --ntasks=1 --ntasks-per-node=1 \
        --cpus-per-task=1 --nodelist="$SLURMD_NODENAME" --output="$LOGS/guard.log" \
        bash "$SCRIPTS/guard.sh" $$ "$(readlink "/proc/$$/fd/1")" "$HISTORY" >"$LOGS/srun-guard.log" 2>&1 &
}

# --- A step, and how it ends: CODE, and where it is not 0 RANK, NODE and END of the first task that failed.

run_step() { # NAME COMMAND...
    local name=$1 messages=$LOGS/srun-$1.log
    shift
    "$@" 2>>"$messages" &
    STEP=$! INTERRUPTED=yes
    while [ -n "$INTERRUPTED" ]; do
        INTERRUPTED='' CODE=0
        wait "$STEP" || CODE=$?
    done
    STEP=''
    RANK='' NODE='' END=''
    [ "$CODE" != 0 ] || return 0
    # srun tells of tasks in the order in which they ended; its own exit code is the largest of all, and most of
    # them end because the first one did.
    local line pattern='^srun: error: ([^:]+): tasks? ([0-9]+)[0-9,-]*: (.*)$'
    line=$(grep -m 1 -E "$pattern" "$messages" || grep -m 1 '^srun: error: ' "$messages" || echo "srun ended with $CODE")
    END=${line#srun: error: }
    if [[ $line =~ $pattern ]]; then
        NODE=${BASH_REMATCH[1]} RANK=${BASH_REMATCH[2]} END=${BASH_REMATCH[3]}
        if [[ $END =~ ^Exited\ with\ exit\ code\ ([0-9]+) ]]; then
            CODE=${BASH_REMATCH[1]}
        elif [ "$CODE" -lt 128 ]; then
            CODE=137 # by a signal, and others ended otherwise
        fi
    fi
    sed 's/^/    /' "$messages"
    [ "$CODE" = 85 ] || put_on_top "$name"
}

# The last lines of the task that failed first, at the head of the job's log.
put_on_top() { # NAME OF THE STEP
    local log top
    log=$(readlink "/proc/$$/fd/1")
    top=$(
        echo "==== job $SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}, $(date '+%F %T'): $(first_failure)"
        [ -z "$RANK" ] || { echo "==== the last lines of $LOGS/$1-$RANK.log:" && tail -n 30 "$LOGS/$1-$RANK.log"; }
        printf '====\n\n'
    )
    [ -f "$log" ] || { echo "$top" && return; }
    { echo "$top" && echo && cat "$log"; } >"$log.new"
    cat "$log.new" >"$log"
    rm "$log.new"
    [ "$(readlink "/proc/$$/fd/2")" != "$log" ] || exec 2>>"$log"
    exec >>"$log"
}

first_failure() { [ -n "$RANK" ] && echo "rank $RANK on $NODE failed first: $END" || echo "$END"; }

# --- What follows.

finish() { # WHAT HAS ENDED
    local reason before
    case $CODE in
        0)
            record end 0 done
            note "done: $1 has reached its end"
            exit 0
            ;;
        2) give_up 2 "$(first_failure); a mistake in options or data, told at the top of this log" ;;
        85)
            [ ! -e "$OUTPUT/stop" ] || give_up 85 "saved and stopped, as $OUTPUT/stop asks; remove it and submit again"
            requeue "saved, and asked to stop or hung (exit code 85)"
            ;;
    esac
    reason="$(first_failure), after step $(last_step)"
    if [ "$CODE" -lt 128 ]; then # an exception: bad luck once, a fault of the program or the data twice
        before=$(awk -F '\t' -v job="$SLURM_JOB_ID" '$2 == job && $4 == "end" { last = $6 " " $7 } END { print last }' "$HISTORY")
        [ "$before" != "$(last_step) $CODE" ] || give_up "$CODE" "$reason, for the second time"
    fi
    requeue "$reason"
}

give_up() { # EXIT CODE, REASON
    record end "$1" "$2"
    note "not requeued: $2"
    exit "$1"
}

requeue() { # REASON [NODES TO EXCLUDE]
    local answer starts
    if [ "$(job_field JobState)" != RUNNING ] && [ "$(job_field Reason)" != TimeLimit ] && ! is_preempted; then
        give_up "$CODE" "$1; the job is being ended from outside: by scancel, or by scontrol requeue, which starts it again"
    fi
    starts=$(starts_without_progress)
    [ "$starts" -le "$MAX_REQUEUES" ] ||
        give_up "$CODE" "$1; $MAX_REQUEUES requeues in a row without a newer checkpoint than step $(newest_checkpoint)"
    record end "$CODE" "$1"
    note "requeued: $1"
    for _ in 1 2 3 4 5 6 7 8 9 10; do # while SLURM's controller is away
        answer=$(scontrol requeue "$SLURM_JOB_ID" 2>&1) && break
        case $answer in *pending*) break ;; esac # SLURM has done it itself
        note "scontrol requeue: $answer"
        sleep 30
    done
    [ -z "${2-}" ] || scontrol update JobId="$SLURM_JOB_ID" ExcNodeList="$2" || note "could not exclude $2"
    exit "$CODE"
}

is_preempted() { [[ $(job_field PreemptTime) =~ ^[0-9] ]]; }

# The doctor has named nodes: they are not to be given to this job again.
exclude_nodes() {
    local nodes before
    nodes=$(sed -n 's/^exclude //p' "$LOGS"/doctor-*.log | tr ', ' '\n\n' | sort -u | paste -sd, -)
    [ -n "$nodes" ] || return 0
    before=$(job_field ExcNodeList)
    case $before in '' | '(null)') ;; *) nodes=$before,$nodes ;; esac
    requeue "the doctor excludes $nodes" "$nodes"
}
