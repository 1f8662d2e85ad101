"""Draw docs/tensorboard.png: runs served by slurm/tensorboard.sh, as a browser shows them.

python tests/cluster/draw_tensorboard.py RUNS PICTURE
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from local_slurm import LocalSlurm
from tensorboard_page import browser_on, served

TAGS = "%5Etrain/(loss|learning_rate|gradient_norm|nll/(en|fr|en-fr))$"
LOOKS = "_smoothingWeight=0&_ignoreYOutliers=false"
SECONDS_TO_DRAW = 3.0  # after the words, which are there first


def main(runs: Path, picture: Path) -> None:
    """Write the picture."""
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalSlurm() as cluster,
        served(cluster, Path(folder), runs.resolve()) as port,
        browser_on(f"http://127.0.0.1:{port}/") as page,
    ):
        page.show(f"scalars&tagFilter={TAGS}&{LOOKS}", "train/loss")
        time.sleep(SECONDS_TO_DRAW)
        page.save_picture(picture)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
