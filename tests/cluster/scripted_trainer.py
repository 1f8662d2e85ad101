"""In the place of a training program, for tests of the batch scripts alone: each start does as it is told.

OUTPUT/plan.json has a list of what the job's first start does, its second, and so on; the last holds for all
later ones:

    {"step": 20}          leave a checkpoint and a record of this step
    {"wait": true}        wait for SIGTERM or SIGUSR1
    {"exit": 85}          leave with this code (default: 0), or with that of {"exits": {"3": 1}} for rank 3
    {"kill": 2}           rank 2 ends by SIGKILL, the others wait
    {"unfit": true}       where the doctor is asked for, have it exclude this node
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    arguments = sys.argv[1:]
    output = Path(arguments[arguments.index("--output") + 1])
    rank, start = int(os.environ["SLURM_PROCID"]), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    plan = json.loads((output / "plan.json").read_text())
    orders = plan[min(start, len(plan) - 1)]
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: asked.append(number))
    if arguments[:2] == ["-m", "deltalm_ds.doctor"]:
        if rank == 0 and "unfit" in orders:
            print("exclude", os.environ["SLURMD_NODENAME"])
            return 3
        return 0
    print(f"start {start} rank {rank} of {os.environ['SLURM_STEP_NUM_TASKS']}: {' '.join(arguments)}")
    if rank == 0 and "step" in orders:
        (output / "checkpoints" / f"step_{orders['step']}").mkdir(parents=True, exist_ok=True)
        with (output / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": orders["step"], "kind": "train", "loss": 1.0}) + "\n")
    if orders.get("kill") == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    while (orders.get("wait") or "kill" in orders) and not asked:
        time.sleep(0.02)
    if asked:
        print(f"rank {rank} was sent signal {asked[0]}")
        return 85
    code = orders.get("exits", {}).get(str(rank), orders.get("exit", 0))
    if code not in (0, 85):
        print(f"rank {rank} says why it fails")
        if "exits" in orders:
            return code
    if "exits" in orders:  # the others wait for the one that fails
        time.sleep(30)
    return code


if __name__ == "__main__":
    sys.exit(main())
