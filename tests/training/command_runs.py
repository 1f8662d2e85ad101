"""The commands `pretrain` and `finetune`, run by tests in small, and what they recorded."""

import contextlib
import io
import sys

from deltalm_ds.training.monitor import read_metrics


def pretrain(cases):
    """Exit code and stderr of the command with each case's arguments, one after another in one process."""
    from deltalm_ds import pretrain as command

    return run_cases("pretrain", command.main, cases)


def finetune(cases):
    """The same of `finetune`."""
    from deltalm_ds import finetune as command

    return run_cases("finetune", command.main, cases)


def run_cases(name, main, cases):
    import torch.distributed as dist

    from deltalm_ds import commands

    # DeepSpeed cannot join a second group in one process, so good runs leave theirs for the next.
    dist.destroy_process_group = lambda: None
    results = []
    for arguments in cases:
        sys.argv[1:] = arguments
        said, code = io.StringIO(), 0
        with contextlib.redirect_stderr(said):
            try:
                commands.run(name, main)
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


def tuning_options(data, output, **changes):
    values = {
        "task": "translation",
        "data": data,
        "source-language": "en",
        "output": output,
        "vocabulary-size": 63,
        "steps": 6,
        "batch-tokens": 600,
        "learning-rate": 0.002,
        "warmup-steps": 2,
        "log-every": 1,
        "validate-every": 3,
        "validation-samples": 4,
        "text-samples": 1,
        "max-source-length": 32,
        "max-target-length": 32,
        "num-loader-workers": 0,
        **changes,
    }
    given = ((f"--{name}", value) for name, value in values.items() if value is not None)
    return [str(part) for option in given for part in option]


def records(output, kind):
    return [record for record in read_metrics(output) if record["kind"] == kind]


def losses(output):
    return [record["loss"] for record in records(output, "train")]
