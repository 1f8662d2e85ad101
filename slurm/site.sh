# shellcheck shell=bash
# shellcheck disable=SC2034  # all of it is used by common.sh
# What this site has: the one file to edit. Every batch script reads it, where it is submitted and in the job.
# (Another file instead: DELTALM_SITE=/path/to/site.sh.) REPOSITORY is the folder above this one.

# --- The queue. sbatch reads these variables; an option of sbatch goes before them, and they go before the #SBATCH
# lines. `bash slurm/NAME.sh` sets them itself; for `sbatch slurm/NAME.sh` have them in the shell: `. slurm/site.sh`.
#export SBATCH_ACCOUNT=my-project
#export SBATCH_PARTITION=gpu
#export SBATCH_QOS=normal
#export SBATCH_CONSTRAINT=h200
#export SBATCH_RESERVATION=my-reservation
#export SBATCH_TIMELIMIT=24:00:00         # where the queue ends jobs earlier than the scripts ask for

# --- The programs. Either a Python with deltalm-ds (`make pretrain` makes this one) …
PYTHON=$REPOSITORY/.venv/bin/python
# … with the modules that it needs, loaded in the batch script and inherited by all ranks …
load_modules() {
    :
    #module purge
    #module load cuda/13.0 openmpi/4.1
}
# … or a container: pyxis (srun --container-image, by enroot) or apptainer; PYTHON is then the one in the image.
CONTAINER=none                            # none, pyxis or apptainer
CONTAINER_IMAGE=                          # docker://…, or a .sqsh or .sif file
CONTAINER_MOUNTS=                         # HOST:CONTAINER[,HOST:CONTAINER]: the repository, data and runs must be in it

# How MPI programs start here (prepare.sh and score.sh): an srun with the plugin that the MPI library goes with
# (`srun --mpi=list`), or the library's own mpirun.
MPI_LAUNCHER=(srun --mpi=pmix)
#MPI_LAUNCHER=(mpirun --bind-to none --map-by "ppr:$TASKS_PER_NODE:node")

# --- The network between nodes (`ip -brief address`). Empty: NCCL and Gloo guess, and on nodes with several interfaces
# they may take one that does not lead to the other nodes. A list of prefixes, such as ib0 or eth,en.
NETWORK_INTERFACE=
# Which InfiniBand or RoCE adapters carry the data (`ibstat -l`). Empty: NCCL takes all active ones, which is right
# unless some of them serve storage only.
export NCCL_IB_HCA=
# Where ranks meet. Empty: the first node of the step, at a port made from the job's number.
#export MASTER_ADDR=
#export MASTER_PORT=

# --- Paths, on file systems that all nodes see.
DATA=                                     # the folder that `python -m deltalm_ds.prepare` made
START_FROM=                               # InfoXLM-base: Hugging Face folder or fairseq file; "nothing": random weights
RUNS=$REPOSITORY/runs                     # a folder in it for each run
DEEPSPEED_CONFIG=$REPOSITORY/ds_configs/zero2.json
RECIPE=                                   # what prepare.sh prepares: text files, folders or a recipe

# --- Added to the options of every training run, for instance --micro-batch-size 32.
TRAINING_OPTIONS=()

# --- Requeues in a row without a newer checkpoint, after which a job gives up.
MAX_REQUEUES=3

# --- 1: every rank's node, GPU, disk and network are examined before training; a bad node is excluded, and the job
# requeued without it.
DOCTOR=0
DOCTOR_OPTIONS=()

# --- The host that `ssh` from outside reaches, for the tunnel that tensorboard.sh prints.
LOGIN_NODE=login.example.org
