"""Draws docs/data_flow.svg: `python docs/draw_data_flow.py docs/data_flow.svg`."""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from typing import TypeAlias

Colours: TypeAlias = tuple[str, str]
Box: TypeAlias = tuple[Colours, str, list[str]]

WIDTH, HEIGHT = 1060, 600
FONT = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
FILE, CODE, SEAM = ("#fdf3d8", "#b58900"), ("#e3eefb", "#2f6db5"), ("#e6f4e6", "#3c8a3c")
INK, FAINT = "#1c1c1c", "#5a5a5a"
BOX_WIDTH, BOX_HEIGHT = 184, 92
COLUMNS = [28, 234, 440, 646, 852]


def text(x: float, y: float, content: str, size: float = 12, weight: str = "normal", ink: str = INK) -> str:
    return (
        f'<text x="{x}" y="{y}" font-family="{FONT}" font-size="{size}" font-weight="{weight}" '
        f'fill="{ink}">{escape(content)}</text>'
    )


def box(column: int, y: float, colours: Colours, title: str, lines: list[str]) -> str:
    fill, edge = colours
    x = COLUMNS[column]
    size = f'width="{BOX_WIDTH}" height="{BOX_HEIGHT}"'
    parts = [
        f'<rect x="{x}" y="{y}" {size} rx="6" fill="{fill}" stroke="{edge}"/>',
        text(x + 10, y + 22, title, 13, "bold"),
    ]
    parts += [text(x + 10, y + 42 + 17 * number, line, 11.5) for number, line in enumerate(lines)]
    return "\n".join(parts)


def arrow(*points: tuple[float, float]) -> str:
    path = " ".join(f"{x},{y}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.5" marker-end="url(#head)"/>'
    )


def across(column: int, y: float) -> str:
    """From a column's box to the next one's."""
    middle = y + BOX_HEIGHT / 2
    return arrow((COLUMNS[column] + BOX_WIDTH, middle), (COLUMNS[column + 1] - 3, middle))


def heading(y: float, title: str, remark: str) -> str:
    return text(28, y, title, 14, "bold") + text(28 + 8.9 * len(title) + 12, y, remark, 12, ink=FAINT)


ONCE: list[Box] = [
    (FILE, "Text", ["fr.txt, en.jsonl", "train.en + train.fr"]),
    (CODE, "text/", ["documents and pairs", "SentencePiece pieces", "ids = piece + 1"]),
    (CODE, "data/builder", ["shuffled once, by key", "a share held out", "many processes"]),
    (FILE, "Prepared folder", ["tokenizer.model", "train/fr.bin, fr.idx", "manifest.json: hashes"]),
]
EVERY_SAMPLE: list[Box] = [
    (CODE, "Position i", ["one number: all of the", "state that the order has"]),
    (CODE, "data/order", ["quota of each source", "keyed permutations:", "source and item of i"]),
    (CODE, "data/windows", ["tokens of the item,", "read from the mapped", ".bin by arithmetic"]),
    (CODE, "data/objectives", ["spans cut out, drawn", "from (seed, i) only:", "source and target"]),
    (CODE, "data/batches", ["tokens of many samples", "end to end, with their", "cumulative lengths"]),
]
EVERY_STEP: list[Box] = [
    (FILE, "Starting weights", ["of XLM-R, InfoXLM or", "a DeltaLM, read by", "weights/ (--from)"]),
    (CODE, "model/", ["encoder, then decoder", "of interleaved blocks,", "[tokens, width]"]),
    (CODE, "Loss", ["summed over tokens,", "divided by the tokens", "of all ranks"]),
    (CODE, "training/", ["DeepSpeed: ZeRO 0 to 3,", "AdamW, fp32 sums", "of gradients"]),
    (FILE, "Run folder", ["checkpoints/step_N", "tensorboard/", "metrics.jsonl"]),
]


def row(y: float, boxes: list[Box]) -> list[str]:
    drawn = [box(column, y, *content) for column, content in enumerate(boxes)]
    return drawn + [across(column, y) for column in range(len(boxes) - 1)]


def down(from_column: int, y: float, to_column: int, to_y: float) -> str:
    """From under one box to the head of another, a row below."""
    start, end = COLUMNS[from_column] + BOX_WIDTH / 2, COLUMNS[to_column] + BOX_WIDTH / 2
    return arrow((start, y + BOX_HEIGHT), (start, y + 118), (end, y + 118), (end, to_y - 3))


def draw() -> str:
    once, step, rank = 54, 224, 394
    parts = [
        heading(36, "Once", "python -m deltalm_ds.prepare"),
        *row(once, ONCE),
        down(3, once, 2, step),
        heading(206, "Every sample", "in the loader's workers"),
        *row(step, EVERY_SAMPLE),
        down(4, step, 1, rank),
        heading(376, "Every step", "on every rank"),
        *row(rank, EVERY_STEP),
    ]
    seam_x, seam_y, seam_width = COLUMNS[1], 524, COLUMNS[2] + BOX_WIDTH - COLUMNS[1]
    parts += [
        f'<rect x="{seam_x}" y="{seam_y}" width="{seam_width}" height="52" rx="6" '
        f'fill="{SEAM[0]}" stroke="{SEAM[1]}"/>',
        text(seam_x + 10, seam_y + 21, "ops/", 13, "bold"),
        text(seam_x + 50, seam_y + 21, "the seam for kernels: attention, dropout + add +", 11.5),
        text(seam_x + 50, seam_y + 39, "LayerNorm, bias + GELU, linear + cross-entropy", 11.5),
        arrow((COLUMNS[1] + 92, seam_y), (COLUMNS[1] + 92, rank + BOX_HEIGHT + 3)),
        arrow((COLUMNS[2] + 92, seam_y), (COLUMNS[2] + 92, rank + BOX_HEIGHT + 3)),
        text(COLUMNS[3], seam_y + 21, "yellow: files", 12, ink=FAINT),
        text(COLUMNS[3], seam_y + 39, "blue: code, green: the operations under it", 12, ink=FAINT),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}">',
            "<title>How data flow through deltalm-ds</title>",
            '<defs><marker id="head" markerWidth="9" markerHeight="8" refX="7" refY="4" orient="auto">'
            f'<path d="M0,0 L9,4 L0,8 z" fill="{INK}"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(), encoding="utf-8")
