# shellcheck shell=bash
# Runs BEFORE, COMMAND and AFTER in the job, and does what follows from how they end. Sourced by common.sh.
#
# Whether to requeue: docs/cluster.md has the table. STATE/slurm/history.tsv has a line for every start and end:
# time, job, restart, "start" or "end", progress, last recorded step, exit code, and a word.

supervise() {
    LOGS=$(logs) HISTORY=$STATE/slurm/history.tsv
    mkdir -p "$LOGS" "$STATE/slurm"
    touch "$HISTORY"
    ln -sfn "$(basename "$LOGS")" "$STATE/logs/newest"
    INTERRUPTED='' STEP='' PROGRESS_NAME="newest checkpoint's step"
    [ -z "$PROGRESS" ] || PROGRESS_NAME="files finished"
    trap 'INTERRUPTED=yes' TERM CONT         # SLURM ends the job: the step has the same signal, and saves
    trap 'INTERRUPTED=yes; forward USR1' USR1 # to the batch script alone: sbatch --signal=B:USR1
    begin
    watch_batch_script
    if [ ${#BEFORE[@]} -gt 0 ]; then
        run_step doctor "${BEFORE[@]}"
        [ "$CODE" != 3 ] || exclude_nodes
        [ "$CODE" = 0 ] || follow_up
    fi
    if [ -z "$DONE" ] || [ ! -e "$DONE" ]; then
        run_step rank "${COMMAND[@]}"
        [ "$CODE" = 0 ] || follow_up
    fi
    leave_to_successor
    CODE=0
    "${AFTER[@]}" || CODE=$?
    [ "$CODE" = 0 ] || give_up "$CODE" "$(quoted "${AFTER[@]}" | head -n 1) ended with exit code $CODE"
    record end 0 "at its end"
    note "done: $OUTPUT"
    exit 0
}

forward() { [ -z "$STEP" ] || kill "-$1" "$STEP" || true; }

# A node that SLURM has lost, and whose job it has started anew, may come back with this script still alive on it.
leave_to_successor() {
    awk -F '\t' -v job="$SLURM_JOB_ID" -v own="${SLURM_RESTART_COUNT:-0}" \
        '$2 == job && $4 == "start" && $3 > own { found = 1 } END { exit found }' "$HISTORY" || exit "$CODE"
}

is_requeued() { # by SLURM or by hand
    local restarts
    restarts=$(job_field Restarts)
    [ -n "$restarts" ] && [ "$restarts" != "${SLURM_RESTART_COUNT:-0}" ]
}

# --- Where the run stands.

progress() { # step of the newest checkpoint, or number of finished parts; 0 for none
    local folder step newest=0
    if [ -n "$PROGRESS" ]; then
        { find "$PROGRESS" -type f 2>/dev/null || true; } | wc -l
        return
    fi
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

job_field() { # NAME, of what SLURM says of the job
    local said=''
    for _ in {1..20}; do # while its controller is away
        said=$(scontrol --oneliner show job "$SLURM_JOB_ID" 2>/dev/null) && break
        sleep 15
    done
    awk -v RS='[ \n]' -v name="$1=" 'index($0, name) == 1 && !n++ { print substr($0, length(name) + 1) }' <<<"$said"
}

place() { if [ -n "$PROGRESS" ]; then progress; else last_step; fi; }

record() { # start|end CODE WORDS
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(date '+%F %T')" "$SLURM_JOB_ID" "${SLURM_RESTART_COUNT:-0}" \
        "$1" "$(progress)" "$(last_step)" "$2" "$3" >>"$HISTORY" || true # a full disk is told, not died of
}

starts_without_progress() { # of this job, this one included, since its newest checkpoint
    awk -F '\t' -v job="$SLURM_JOB_ID" -v newest="$(progress)" \
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
    note "output: $OUTPUT; $PROGRESS_NAME: $(progress)"
    note "what ranks say: $LOGS/rank-N.log; to follow it: tail -F $STATE/logs/newest/rank-0.log"
    if [ "$(starts_without_progress)" -gt $((MAX_REQUEUES + 1)) ]; then
        give_up 1 "started $(starts_without_progress) times without a change of $PROGRESS_NAME"
    fi
}

# A step of its own, which requeues the job if this very script is killed.
watch_batch_script() {
    keep_guard >"$LOGS/srun-guard.log" 2>&1 &
    GUARD=$!
    trap end_guard EXIT
}

# The step may end before this script: by a signal to all steps, or by what SLURM had still to send to a lost node, for
# steps have the same numbers in each start.
keep_guard() {
    local step=''
    trap 'kill "$step" || true; wait "$step" || true; exit' TERM
    while kill -0 $$; do
        srun --job-name=guard --input=none --overlap --mem=0 --nodes=1 --ntasks=1 --ntasks-per-node=1 \
            --cpus-per-task=1 --nodelist="$SLURMD_NODENAME" --output="$LOGS/guard.log" --open-mode=append \
            bash "$SCRIPTS/guard.sh" $$ "$(readlink "/proc/$$/fd/1")" "$HISTORY" &
        step=$!
        wait "$step" || true
        sleep 1
    done
}

# Before this script ends by itself, which no record tells where the disk is full.
end_guard() {
    kill "$GUARD" 2>/dev/null || return 0
    for _ in {1..100}; do
        kill -0 "$GUARD" 2>/dev/null || return 0
        sleep 0.1
    done
}

# --- A step, and how it ends: CODE, and where it is not 0 RANK, NODE and END of the first task that failed.

run_step() { # NAME COMMAND...
    local name=$1 messages=$LOGS/srun-$1.log
    shift
    "$@" >>"$LOGS/$name-0.log" 2>>"$messages" & # srun's tasks have files of their own already, those of mpirun not
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
    line=$(grep -m 1 -E "$pattern" "$messages" || grep -m 1 '^srun: error: ' "$messages" ||
        echo "$1 ended with exit code $CODE")
    END=${line#srun: error: }
    if [[ $line =~ $pattern ]]; then
        NODE=${BASH_REMATCH[1]} RANK=${BASH_REMATCH[2]} END=${BASH_REMATCH[3]}
        if [[ $END =~ ^Exited\ with\ exit\ code\ ([0-9]+) ]]; then
            CODE=${BASH_REMATCH[1]}
        elif [ "$CODE" -lt 128 ]; then
            CODE=137 # by a signal, and others ended otherwise
        fi
    fi
    tail -n 20 "$messages" | sed 's/^/    /'
    [ "$CODE" = 85 ] || put_on_top "$name"
}

# The last lines of the task that failed first, at the head of the job's log.
put_on_top() { # NAME OF THE STEP
    local log top words=$LOGS/srun-$1.log
    [ -z "$RANK" ] || words=$LOGS/$1-$RANK.log
    log=$(readlink "/proc/$$/fd/1")
    top=$(
        echo "==== job $SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}, $(date '+%F %T'): $(first_failure)"
        echo "==== the last lines of $words:"
        tail -n 30 "$words"
        echo "===="
    )
    [ -f "$log" ] || { echo "$top" && return; }
    if { echo "$top" && echo && cat "$log"; } >"$log.new"; then
        cat "$log.new" >"$log" || true
    else # no space
        echo "$top" || true
    fi
    rm -f "$log.new"
    [ "$(readlink "/proc/$$/fd/2")" != "$log" ] || exec 2>>"$log"
    exec >>"$log"
}

first_failure() { [ -n "$RANK" ] && echo "rank $RANK on $NODE failed first: $END" || echo "$END"; }

# --- What follows.

follow_up() {
    local reason previous
    leave_to_successor
    case $CODE in
        2) give_up 2 "$(first_failure); a mistake in options or data, told at the top of this log" ;;
        85)
            [ ! -e "$OUTPUT/stop" ] || give_up 85 "saved and stopped, as $OUTPUT/stop asks; remove it and submit again"
            requeue "saved, and asked to stop or hung (exit code 85)"
            ;;
    esac
    reason="$(first_failure), after step $(last_step)"
    [ -z "$PROGRESS" ] || reason="$(first_failure), with $(progress) files finished"
    if [ "$CODE" -lt 128 ]; then # an exception: bad luck once, a fault of the program or the data twice
        previous=$(awk -F '\t' -v job="$SLURM_JOB_ID" -v place="${PROGRESS:+5}" \
            '$2 == job && $4 == "end" { last = $(place ? place : 6) " " $7 } END { print last }' "$HISTORY")
        [ "$previous" != "$(place) $CODE" ] || give_up "$CODE" "$reason, for the second time"
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
    if is_requeued ||
        { [ "$(job_field JobState)" != RUNNING ] && [ "$(job_field Reason)" != TimeLimit ] && ! is_preempted; }; then
        answer=$(sed -n 's/^srun: error: \(Node failure.*\)/\1/p' "$LOGS"/srun-*.log | sort -u | paste -sd' ' -)
        [ -n "$answer" ] || is_requeued || [ "$(job_field EndTime)" = Unknown ] ||
            give_up "$CODE" "$1; the job is cancelled"
        answer="SLURM starts the job again itself: ${answer:-preempted, or requeued by hand}"
        record end "$CODE" "$answer"
        note "$answer"
        exit "$CODE"
    fi
    starts=$(starts_without_progress)
    [ "$starts" -le "$MAX_REQUEUES" ] ||
        give_up "$CODE" "$1; $MAX_REQUEUES requeues in a row without a change of $PROGRESS_NAME, $(progress)"
    record end "$CODE" "$1"
    note "requeued: $1"
    for _ in {1..20}; do
        answer=$(scontrol requeue "$SLURM_JOB_ID" 2>&1) && break
        case $answer in *pending*) break ;; esac # SLURM has done it itself
        note "scontrol requeue: $answer"
        sleep 15
    done
    [ -z "${2-}" ] || exclude "$2" || note "could not exclude $2"
    exit "$CODE"
}

exclude() { # NODES, of the job that waits to start again; while SLURM ends this script, and what it runs
    for _ in {1..20}; do
        scontrol update JobId="$SLURM_JOB_ID" ExcNodeList="$1" && return
        sleep 0.2
    done
    return 1
}

is_preempted() { [[ $(job_field PreemptTime) =~ ^[0-9] ]]; }

# The doctor has named nodes: they are not to be given to this job again.
exclude_nodes() {
    local nodes excluded
    nodes=$(sed -n 's/^exclude //p' "$LOGS"/doctor-*.log | sed 's/[ ,]/\n/g' | sort -u | paste -sd, -)
    [ -n "$nodes" ] || return 0
    excluded=$(job_field ExcNodeList)
    case $excluded in '' | '(null)') ;; *) nodes=$excluded,$nodes ;; esac
    requeue "the doctor excludes $nodes" "$nodes"
}
