# shellcheck shell=bash
# shellcheck disable=SC2154  # `script` is the batch script that sources this file
# What the batch scripts share: site.sh, arguments, environment, and the srun lines. supervise.sh runs them.
#
#     bash slurm/NAME.sh [OPTIONS OF SBATCH] [-- OPTIONS OF THE PROGRAM]    submits the script, with site.sh's queue
#     bash slurm/NAME.sh --dry-run [the same]                               prints what would run
#     sbatch [OPTIONS OF SBATCH] slurm/NAME.sh [OPTIONS OF THE PROGRAM]     submits it

set -euo pipefail

SCRIPTS=$(cd "$(dirname "$script")" && pwd)
REPOSITORY=$(dirname "$SCRIPTS")
EXIT_USER_ERROR=2

note() { printf '%s  %s\n' "$(date '+%F %T')" "$*" || true; } # a full disk is no reason to end

refuse() { # what is wrong and what to do
    printf '%s: error: %s\n' "$(basename "$script")" "$1" >&2
    exit "$EXIT_USER_ERROR"
}

# --- Arguments: MODE is job, submit or print; OPTIONS, all of them in ARGUMENTS too, go to the program.

read_arguments() {
    MODE=submit OPTIONS=() SBATCH_OPTIONS=()
    if [ "$(basename "${BASH_SOURCE[-1]}")" = slurm_script ]; then
        MODE=job OPTIONS=("$@")
    else
        local is_option_of_program=
        for argument in "$@"; do
            case $is_option_of_program$argument in
                --help | -h) sed -n '/^#$/,/^$/s/^# \{0,1\}//p' "$script" && exit ;;
                --dry-run) MODE=print ;;
                --) is_option_of_program=yes ;;
                yes*) OPTIONS+=("$argument") ;;
                *) SBATCH_OPTIONS+=("$argument") ;;
            esac
        done
    fi
    ARGUMENTS=("${OPTIONS[@]}")
    count_tasks
    local site=${DELTALM_SITE:-$SCRIPTS/site.sh}
    [ -f "$site" ] || refuse "no site file $site: copy slurm/site.sh there, or unset DELTALM_SITE"
    # shellcheck source=slurm/site.sh
    . "$site"
    set_environment
}

# NODES, TASKS and TASKS_PER_NODE: SLURM's in a job, otherwise those that sbatch would be asked for.
count_tasks() {
    if [ "$MODE" = job ]; then
        NODES=$SLURM_JOB_NUM_NODES TASKS=${SLURM_NTASKS:-$SLURM_JOB_NUM_NODES}
    else
        NODES=1 TASKS='' TASKS_PER_NODE=1
        local word previous=''
        for word in $(sed -n 's/^#SBATCH //p' "$script") "${SBATCH_OPTIONS[@]}"; do
            case $word in
                --*=*) previous=${word%%=*} word=${word#*=} ;;
                -[Nn][0-9]*) previous=${word::2} word=${word:2} ;;
            esac
            case $previous in
                --nodes | -N) NODES=$word ;;
                --ntasks | -n) TASKS=$word ;;
                --ntasks-per-node) TASKS_PER_NODE=$word TASKS='' ;;
            esac
            previous=$word
        done
        TASKS=${TASKS:-$((NODES * TASKS_PER_NODE))}
    fi
    TASKS_PER_NODE=$(((TASKS + NODES - 1) / NODES))
}

# The value of an option among OPTIONS, or nothing.
option_value() { # NAME
    local name=$1 value=
    set -- "${OPTIONS[@]}"
    while [ $# -gt 0 ]; do
        case $1 in
            "$name") value=${2-} ;;
            "$name"=*) value=${1#*=} ;;
        esac
        shift
    done
    printf '%s' "$value"
}

has_option() { # NAME
    local name=$1 option
    for option in "${OPTIONS[@]}"; do
        case $option in "$name" | "$name"=*) return 0 ;; esac
    done
    return 1
}

# A variable of site.sh that must name an existing path; for --dry-run a word about it is enough.
demand() { # NAME WHAT
    local name=$1 value=${!1-} problem=
    if [ -z "$value" ]; then
        problem="$name is not set in ${DELTALM_SITE:-$SCRIPTS/site.sh}: $2"
    elif [ "$value" != nothing ] && [ ! -e "$value" ]; then
        problem="$name=$value does not exist: $2"
    fi
    [ -n "$problem" ] || return 0
    [ "$MODE" = print ] || refuse "$problem"
    printf '%s: to be mended first: %s\n' "$(basename "$script")" "$problem" >&2
    printf -v "$name" '%s' "${value:-\$$name}"
}

# --- Environment of all ranks.

set_environment() {
    # A rank that is killed leaves its last lines in its log, one that crashes in native code its Python stack.
    export PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1
    # `python -m deltalm_ds.…` finds the package without an installation, whatever the folder.
    export PYTHONPATH=$REPOSITORY${PYTHONPATH:+:$PYTHONPATH}
    # GPU 3 is the same one for torch, nvidia-smi and the doctor's report.
    export CUDA_DEVICE_ORDER=PCI_BUS_ID
    # NCCL says why an operation failed; otherwise torch can only say "unhandled system error".
    export NCCL_DEBUG=${NCCL_DEBUG:-WARN}
    # A try lasts 4 µs × 2^22, 17 s, and there are seven: a switch that fails over takes longer than the default.
    export NCCL_IB_TIMEOUT=${NCCL_IB_TIMEOUT:-22}
    # Empty would mean: no adapter.
    [ -n "${NCCL_IB_HCA-}" ] || unset NCCL_IB_HCA
    # NCCL takes the first interface by name, Gloo that of the host's name: neither need lead to the other nodes.
    if [ -n "${NETWORK_INTERFACE-}" ]; then
        export NCCL_SOCKET_IFNAME=$NETWORK_INTERFACE GLOO_SOCKET_IFNAME=${NETWORK_INTERFACE%%,*}
    fi
}

# --- What runs: BEFORE (the doctor), COMMAND and AFTER, each a line of words, perhaps empty. OUTPUT is what the
# program writes, STATE the folder of logs and history, PROGRESS one in which finished parts are counted, DONE a file
# with which COMMAND has been done.

BEFORE=() COMMAND=() AFTER=() PROGRESS='' DONE=''

logs() { printf '%s' "$STATE/logs/${SLURM_JOB_ID:-JOB}.${SLURM_RESTART_COUNT:-0}"; }

# srun for all tasks of the job, into SRUN; their output goes into a file for each.
build_srun() { # NAME OF THE LOGS
    # shellcheck disable=SC2016  # for --dry-run, which cannot know the nodes' cores
    local cpus='$((SLURM_CPUS_ON_NODE / TASKS_PER_NODE))'
    [ "$MODE" != job ] || cpus=$((SLURM_CPUS_ON_NODE / TASKS_PER_NODE))
    SRUN=(
        srun
        --job-name="$1"
        --input=none
        --output="$(logs)/$1-%t.log" --open-mode=append
        --cpus-per-task="$cpus" # srun does not take it from the job, and would bind a rank to one core
        --gpu-bind=none         # all ranks of a node see all its GPUs, or NCCL cannot copy from one to another
        --kill-on-bad-exit=1    # when a rank fails the others would wait for it
        --wait=600              # and when one has ended well, they have time to write
    )
    enter_container
}

# The container's words: into SRUN, and into INSIDE those that stand before the program.
enter_container() {
    INSIDE=()
    case ${CONTAINER:-none} in
        none) ;;
        pyxis)
            SRUN+=("--container-image=$CONTAINER_IMAGE")
            [ -z "$CONTAINER_MOUNTS" ] || SRUN+=("--container-mounts=$CONTAINER_MOUNTS")
            ;;
        apptainer) # which leaves its place to the program (exec), so that signals reach it
            INSIDE=(apptainer exec --nv)
            [ -z "$CONTAINER_MOUNTS" ] || INSIDE+=(--bind "$CONTAINER_MOUNTS")
            INSIDE+=("$CONTAINER_IMAGE")
            ;;
        *) refuse "CONTAINER=$CONTAINER in site.sh: none, pyxis or apptainer" ;;
    esac
}

# A training program until its steps are done; NAME is its folder in RUNS, where OPTIONS say no --output.
train() { # NAME PROGRAM OPTION...
    local program=$2 output=()
    OUTPUT=$(option_value --output)
    [ -n "$OUTPUT" ] || { OUTPUT=$RUNS/$1 && output=(--output "$OUTPUT"); }
    STATE=$OUTPUT
    shift 2
    if [ "${DOCTOR:-0}" = 1 ]; then
        build_srun doctor
        BEFORE=("${SRUN[@]}" "${INSIDE[@]}" "$PYTHON" -m deltalm_ds.doctor --output "$OUTPUT" "${DOCTOR_OPTIONS[@]}")
    fi
    build_srun rank
    COMMAND=("${SRUN[@]}" "${INSIDE[@]}" "$PYTHON" "$REPOSITORY/deltalm_ds/$program.py" "$@"
        "${output[@]}" --deepspeed_config "$DEEPSPEED_CONFIG" --resume-if-begun
        "${TRAINING_OPTIONS[@]}" "${OPTIONS[@]}")
    run_job
}

pretrain() { # NAME OPTION...
    local name=$1 from=()
    shift
    [ "${START_FROM-}" = nothing ] || from=(--from "$START_FROM")
    DOCTOR_OPTIONS=(--data "$DATA" "${DOCTOR_OPTIONS[@]}") # do all ranks read the same?
    train "$name" pretrain --data "$DATA" "${from[@]}" "$@"
}

# A program whose ranks find each other by MPI. Its OUTPUT, STATE and PROGRESS are set already.
run_by_mpi() { # PROGRAM OPTION...
    local program=$1
    shift
    if [ "${MPI_LAUNCHER[0]}" = srun ]; then
        build_srun rank
        SRUN=("${MPI_LAUNCHER[@]}" "${SRUN[@]:1}")
    else
        enter_container
        SRUN=("${MPI_LAUNCHER[@]}")
    fi
    COMMAND=("${SRUN[@]}" "${INSIDE[@]}" "$PYTHON" -m "deltalm_ds.$program" "$@" "${OPTIONS[@]}")
    run_job
}

# Submit, print or run it.
run_job() {
    case $MODE in
        submit)
            command -v sbatch >/dev/null || refuse "no sbatch here: go where jobs are submitted, or look with --dry-run"
            exec sbatch "${SBATCH_OPTIONS[@]}" "$script" "${ARGUMENTS[@]}"
            ;;
        print) print_job && exit ;;
        job)
            load_modules
            # shellcheck source=slurm/supervise.sh
            . "$SCRIPTS/supervise.sh"
            supervise
            ;;
    esac
}

print_job() {
    echo "# $NODES nodes, $TASKS tasks, $TASKS_PER_NODE a node; output in $OUTPUT"
    env | sed -n '/^SBATCH_/s/^/export /p'
    quoted sbatch "${SBATCH_OPTIONS[@]}" "$script" "${ARGUMENTS[@]}"
    echo "# In the job:"
    env | grep -E '^(NCCL|GLOO|MASTER|CUDA_DEVICE|PYTHON)[A-Z_]*=' | sort | sed 's/^/export /'
    quoted "${BEFORE[@]}"
    quoted "${COMMAND[@]}"
    quoted "${AFTER[@]}"
}

# The words as a command of shell, an option a line. A dollar stays: it is for what only the job knows.
quoted() {
    [ $# -gt 0 ] || return 0
    local word text=$1
    for word in "${@:2}"; do
        case $word in
            *[!a-zA-Z0-9_./:=,%@+\$\(\)-]*) word="'${word//\'/\'\\\'\'}'" ;;
            '') word="''" ;;
        esac
        case $word in
            --?* | "'--"*) text+=$' \\\n    '$word ;;
            *) text+=" $word" ;;
        esac
    done
    printf '%s\n' "$text"
}
