# shellcheck shell=bash
# Sourced by supervise.sh's job and by guard.sh.

job_field() { # NAME, of what SLURM says of the job
    local said=''
    for _ in {1..20}; do # while its controller is away
        said=$(scontrol --oneliner show job "$SLURM_JOB_ID" 2>/dev/null) && break
        sleep 15
    done
    awk -v RS='[ \n]' -v name="$1=" 'index($0, name) == 1 && !n++ { print substr($0, length(name) + 1) }' <<<"$said"
}
