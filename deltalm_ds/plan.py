"""Plan a run: `python -m deltalm_ds.plan --model large --nodes 8 --gpu h200`."""

from __future__ import annotations

import json

from deltalm_ds.commands import parse, run
from deltalm_ds.errors import UserError
from deltalm_ds.files import write_text_atomically
from deltalm_ds.planning.choosing import Option, best_of, options_of, sweep
from deltalm_ds.planning.configuration import configuration
from deltalm_ds.planning.report import describe_option, describe_options, describe_run, sweep_head, sweep_row
from deltalm_ds.planning.settings import PlanSettings


def main() -> None:
    """The command."""
    settings = parse(PlanSettings, "plan")
    print(describe_run(settings), flush=True)
    options = options_of(settings)
    best = best_of(options)
    print(f"\n{describe_options(options)}\n")
    if best is None:
        print("nothing fits: take more devices, or devices with more memory")
    else:
        print(f"recommended: {describe_option(settings, best)}", flush=True)
    if settings.write is not None:
        if best is None:
            raise UserError(f"--write {settings.write}: nothing fits, so nothing is recommended")
        content = configuration(best.stage, settings.dtype, settings.batch_size, best.micro_batch)
        write_text_atomically(settings.write, json.dumps(content, indent=2) + "\n")
        print(f"written: {settings.write}")
    if settings.device.speeds is None:
        return
    print(f"\nthe same run on other numbers of devices\n{sweep_head()}", flush=True)
    swept: list[tuple[int, Option | None]] = []
    for num_devices, option in sweep(settings):
        print(sweep_row(settings, num_devices, option), flush=True)
        swept.append((num_devices, option))
    if settings.picture is not None:
        from deltalm_ds.planning.pictures import draw_plan  # matplotlib takes a moment to import

        draw_plan(settings.picture, settings, options, swept)
        print(f"\ndrawn: {settings.picture}")


if __name__ == "__main__":
    run("plan", main)
