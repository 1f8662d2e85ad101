"""What `prepare` prints: how inputs were understood, what became of them, tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from deltalm_ds.preparing.finishing import BuiltSource
from deltalm_ds.preparing.layout import COUNTS
from deltalm_ds.preparing.sources import Counts
from deltalm_ds.tables import format_table
from deltalm_ds.text.cleaning import REASONS
from deltalm_ds.text.inputs import Input
from deltalm_ds.text.stored import StoredText

_FORMATS = {
    "blocks": "documents between blank lines",
    "lines": "a document a line",
    "jsonl": "JSON lines",
    "aligned": "line by line",
    "tsv": "a pair a line",
    "tmx": "TMX",
}
_NAMES_SHOWN = 3


def describe_inputs(inputs: Sequence[Input], left_out: Sequence[StoredText]) -> str:
    """How every input was understood, a line a source and format, and which files were left out."""
    groups: dict[str, list[Input]] = defaultdict(list)
    for entry in inputs:
        groups[_understanding(entry)].append(entry)
    lines = [f"{what}: {_named([_path_names(entry) for entry in group])}" for what, group in groups.items()]
    if left_out:
        lines.append(
            "left out (test sets, read-me files, members of archives that are no text): "
            f"{_named(list(map(str, left_out)))}"
        )
    return "\n".join(lines)


def describe_sources_without_files(sources: Sequence[str]) -> str:
    """Which sources of a recipe have no files, in one line."""
    return f"without files, and so left out, {len(sources)} of the recipe's sources: {', '.join(sources)}"


def _understanding(entry: Input) -> str:
    what = entry.name if entry.languages else f"language by field {entry.language_field!r}"
    what += ", pairs, " if entry.is_pairs else ", "
    what += _FORMATS[entry.format]
    if entry.format == "jsonl":
        what += f", text in field {' and '.join(map(repr, entry.fields))}"
    elif entry.format == "tsv":
        what += f", columns {' and '.join(entry.fields)}"
    return what + (", held out for validation" if entry.held_out else "")


def _path_names(entry: Input) -> str:
    return " + ".join([str(entry.files[0]), *(text.plain_name for text in entry.files[1:])])


def _named(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown + (f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else "")


def describe_result(sources: Sequence[BuiltSource]) -> str:
    """The table of what was written, a row a source and one for all."""
    total: Counter[str] = Counter()
    total_held_out = 0
    rows = [("source", "documents", "lines", "tokens", "characters/token", "unknown", "validation")]
    for source in sources:
        held_out = sum(entry.documents for entry in source.entries if entry.split == "valid")
        rows.append(_row(source.name, source.statistics, held_out))
        total.update(source.statistics)
        total_held_out += held_out
    return format_table([*rows, _row("all", total, total_held_out)])


def _row(name: str, statistics: Mapping[str, int], held_out: int) -> tuple[str, str, str, str, str, str, str]:
    documents, tokens, lines, characters, unknown = (statistics[column] for column in COUNTS)
    return (
        name,
        f"{documents:,}",
        f"{lines:,}",
        f"{tokens:,}",
        f"{characters / max(tokens, 1):.2f}",
        f"{unknown / max(tokens, 1):.3%}",
        f"{held_out / max(documents, 1):.2%}",
    )


def describe_left_out(counts: Mapping[str, Counts], sources: Sequence[BuiltSource]) -> str:
    """The table of what was left out and why, a row a source; nothing if nothing was."""
    duplicates = {source.name: source.num_duplicates for source in sources}
    left_out = {}
    for name, count in counts.items():
        reasons = Counter(count.left_out)
        reasons["duplicate"], reasons["near duplicate"] = duplicates.get(name, (0, 0))
        if +reasons:
            left_out[name] = reasons
    if not left_out:
        return ""
    columns = [reason for reason in REASONS if any(reasons[reason] for reasons in left_out.values())]
    rows = [("left out of", "read", *columns)]
    for name, reasons in sorted(left_out.items()):
        # What was damaged or blank was never a document.
        read = counts[name].read + reasons["damaged"] + reasons["blank"]
        rows.append((name, f"{read:,}", *(f"{reasons[column]:,}" for column in columns)))
    return format_table(rows)


def describe_rate(num_bytes: int, seconds: float) -> str:
    """How much text the inputs have, the time that encoding and writing took, and the rate."""
    rate = num_bytes / 1e6 / seconds
    return f"{num_bytes / 1e6:,.1f} MB of text encoded and written in {seconds:.1f} s, {rate:.1f} MB/s"
