"""Trimming a model folder from beginning to end: count, cut, check, save."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.downstream.encoding import TextEncoder
from deltalm_ds.downstream.plain_text import read_text
from deltalm_ds.errors import UserError
from deltalm_ds.exporting.targets import check_target, new_folder
from deltalm_ds.tables import format_table
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.trimming.comparing import Ids, compare_outputs, decoding_speed, logit_difference
from deltalm_ds.trimming.counting import TextCounts, count_differences, count_pieces
from deltalm_ds.trimming.cutting import Trimmed, trim_model
from deltalm_ds.weights import Description, read_description, save_own
from deltalm_ds.weights.description import TOKENIZER_FILE

_LOGIT_TOLERANCE = 1e-5
_LONGEST_SAMPLE_OUTPUT = 64


@dataclass(frozen=True, kw_only=True)
class TrimSettings:
    """Cut a model's vocabulary to the pieces of given text.

    The text is cut into the same pieces as before, and their logits stay: both are checked before anything is
    written. Give all that the model is to read and to write, sources and targets alike.
    """

    model: tyro.conf.Positional[Path]
    """Model folder, with its tokenizer."""
    target: tyro.conf.Positional[Path]
    """Folder to write; nothing may be there."""
    text: tuple[Path, ...]
    """Files of plain text, UTF-8, one text a line; also .gz, .xz, .zst, and .zip of such."""
    min_count: int = 1
    """Pieces that the text has less often are dropped. Above 1, lines with such pieces are cut otherwise."""
    keep_sentinels: bool = False
    """Keep the sentinels of a tuned model. A model that is only pre-trained keeps them anyway."""
    samples: int = 32
    """Lines of the text on which outputs and speed are compared."""
    seed: int = 1
    """Chooses these lines."""

    def __post_init__(self) -> None:
        for name in ("min_count", "samples"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be 1 or more, not {getattr(self, name)}")


def trim(settings: TrimSettings, say: Callable[[str], object]) -> None:
    """Write the smaller model, and tell what became of it line by line.

    UserError, and nothing written, where the text is cut differently with min_count 1 or a logit differs.
    """
    check_target(settings.target)
    description = read_description(settings.model)
    old_tokenizer = description.open_tokenizer()
    lines = tqdm(read_text(settings.text), desc="counting", unit=" lines", disable=None)
    counts = count_pieces(old_tokenizer, lines, settings.samples, settings.seed)
    keep = np.flatnonzero(counts.pieces >= settings.min_count).tolist()
    keep_sentinels = settings.keep_sentinels or description.task is None
    with new_folder(settings.target) as folder:
        trimmed = trim_model(settings.model, description, keep, keep_sentinels, folder / TOKENIZER_FILE)
        for line in trimmed.report:
            say(line)
        new_tokenizer = trimmed.description.open_tokenizer()
        say(_compare_tokenizers(settings, old_tokenizer, new_tokenizer, trimmed, counts))
        for line in _compare_models(trimmed, description, old_tokenizer, new_tokenizer, counts.sample):
            say(line)
        save_own(trimmed.after, folder, _with_history(trimmed.description, settings, description))
    say(f"written: {settings.target}")


def _compare_tokenizers(
    settings: TrimSettings, old: Tokenizer, new: Tokenizer, trimmed: Trimmed, counts: TextCounts
) -> str:
    """How many lines are cut as before."""
    lines = tqdm(read_text(settings.text), desc="verifying", unit=" lines", disable=None)
    num_different, first = count_differences(old, new, trimmed.old_pieces, lines)
    if num_different and settings.min_count == 1:
        raise UserError(
            f"{num_different:,} of {counts.num_lines:,} lines are cut differently by the smaller tokenizer, "
            f"the first {first[:80]!r}: this tokenizer cannot be trimmed; nothing was written"
        )
    num_equal = counts.num_lines - num_different
    return f"tokenisation: {num_equal:,} of {counts.num_lines:,} lines cut as before, piece by piece"


def _compare_models(
    trimmed: Trimmed, description: Description, old: Tokenizer, new: Tokenizer, sample: list[str]
) -> list[str]:
    """What the models make of the sample lines, and what they need."""
    sources, targets = _encoded(trimmed, description, old, sample)
    new_sources, new_targets = _encoded(trimmed, trimmed.description, new, sample)
    alike = [
        number
        for number in range(len(sample))
        if np.array_equal(trimmed.old_rows[new_sources[number]], sources[number])
        and np.array_equal(trimmed.old_rows[new_targets[number]], targets[number])
    ]
    speeds = decoding_speed(trimmed.before, sources), decoding_speed(trimmed.after, new_sources)
    table = _table(trimmed, speeds)
    if not alike:
        return ["logits and outputs: not compared, since every sample line is cut otherwise", table]
    sources, targets, new_sources, new_targets = (
        [ids[number] for number in alike] for ids in (sources, targets, new_sources, new_targets)
    )
    difference = logit_difference(trimmed, sources, new_sources, targets, new_targets)
    if not difference <= _LOGIT_TOLERANCE:
        raise UserError(
            f"logits of kept tokens differ by {difference:.1e} of the largest: the weights hold numbers that "
            "are not finite or too large; nothing was written"
        )
    outputs = compare_outputs(trimmed, sources, new_sources, _search(description))
    total = outputs.num_lines
    return [
        f"logits of kept tokens on {total} lines: they differ by {difference:.1e} of the largest at most",
        f"outputs of its own search: {outputs.num_kept} of {total} were made of kept pieces only, and "
        f"{outputs.num_kept_equal} of these are the same",
        f"greedy outputs, dropped pieces forbidden before: {outputs.num_greedy_equal} of {total} are the "
        "same",
        table,
    ]


def _encoded(
    trimmed: Trimmed, description: Description, tokenizer: Tokenizer, lines: list[str]
) -> tuple[Ids, Ids]:
    """Each line as a source, for the task's first target language, and as a target."""
    task, longest = description.task, trimmed.before.config.max_positions
    encoder = TextEncoder(
        tokenizer,
        task.tags if task else {},
        max_source_length=min(task.max_source_length, longest) if task else longest,
        max_target_length=min(task.max_target_length, longest) if task else longest,
    )
    language = next(iter(task.tags), "") if task else ""
    return encoder.sources(lines, [language] * len(lines))[0], encoder.targets(lines)[0]


def _search(description: Description) -> SearchSettings:
    """The model's own search, cut short: outputs of untuned models have no end."""
    own = dict(description.task.search) if description.task else {}
    try:
        search = SearchSettings(**own)
    except TypeError:
        raise UserError(f"the model's search settings {own} are unknown: take a newer deltalm-ds") from None
    return dataclasses.replace(
        search, max_length_a=0.0, max_length_b=min(search.max_length_b, _LONGEST_SAMPLE_OUTPUT), num_best=1
    )


def _table(trimmed: Trimmed, speeds: tuple[float, float]) -> str:
    models = trimmed.before, trimmed.after
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in models]
    return format_table(
        [
            ("", "before", "after"),
            ("pieces", f"{trimmed.num_pieces_before:,}", f"{len(trimmed.old_pieces):,}"),
            ("rows of the token table", *(f"{model.config.vocabulary_rows:,}" for model in models)),
            ("parameters", *(f"{size:,}" for size in sizes)),
            ("MB in fp32", *(f"{size * 4 / 1e6:,.1f}" for size in sizes)),
            ("tokens/s, greedy, here", *(f"{speed:,.0f}" for speed in speeds)),
        ]
    )


def _with_history(new: Description, settings: TrimSettings, old: Description) -> Description:
    trimmed = {
        "text": [path.name for path in settings.text],
        "min_count": settings.min_count,
        "pieces_before": old.vocabulary.num_pieces,
    }
    return dataclasses.replace(new, training={**old.training, "trimmed": trimmed})
