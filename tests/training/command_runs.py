"""The command `pretrain`, run by tests in small, and what it recorded."""

import contextlib
import io
import sys

from deltalm_ds.training.monitor import read_metrics


def pretrain(cases):
    """Exit code and stderr of the command with each case's arguments, one after another in one process."""
    import torch.distributed as dist

    from deltalm_ds import commands
    from deltalm_ds import pretrain as command

    # DeepSpeed cannot join a second group in one process, so good runs leave theirs for the next.
    dist.destroy_process_group = lambda: None
    results = []
    for arguments in cases:
        sys.argv[1:] = arguments
        said, code = io.StringIO(), 0
        with contextlib.redirect_stderr(said):
            try:
                commands.run("pretrain", command.main)
            except SystemExit as stop:
                code = stop.code
        results.append([code, said.getvalue()])
    return results


def options(corpus, output, **changes):
    values = {
        "data": corpus,
        "output": output,
        "max-source-length": 48,
        "max-target-length": 48,
        "steps": 6,
        "batch-size": 8,
        "learning-rate": 0.004,
        "warmup-steps": 2,
        "log-every": 1,
        "validate-every": 0,
        "validation-samples": 6,
        "text-samples": 3,
        "num-loader-workers": 0,
        **changes,
    }
    return [str(part) for name, value in values.items() for part in (f"--{name}", value)]


def records(output, kind):
    return [record for record in read_metrics(output) if record["kind"] == kind]


def losses(output):
    return [record["loss"] for record in records(output, "train")]
