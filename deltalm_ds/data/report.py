"""What `prepare` and `corpus` print: how inputs were understood, what became of them, tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from deltalm_ds.data.builder import BuiltSource, SourceStatistics
from deltalm_ds.text.inputs import Input, PairInput
from deltalm_ds.text.survey import Survey

_FORMATS = {
    "blocks": "documents between blank lines",
    "lines": "a document a line",
    "jsonl": "JSON lines",
}
_NAMES_SHOWN = 3


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the heading among them, as aligned columns: the first flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def describe_inputs(inputs: Sequence[Input], left_out: Sequence[Path]) -> str:
    """How every input was understood, a line a source and format, and which files were left out."""
    groups: dict[str, list[Input]] = defaultdict(list)
    for entry in inputs:
        groups[_understanding(entry)].append(entry)
    lines = [f"{what}: {_named([_path_names(entry) for entry in group])}" for what, group in groups.items()]
    if left_out:
        lines.append(f"left out (test sets and read-me files of folders): {_named(list(map(str, left_out)))}")
    return "\n".join(lines)


def _understanding(entry: Input) -> str:
    if isinstance(entry, PairInput):
        what = f"{entry.name}, pairs, line by line"
    else:
        language = entry.language or f"language by field {entry.language_field!r}"
        field = f", text in field {entry.text_field!r}" if entry.format == "jsonl" else ""
        what = f"{language}, {_FORMATS[entry.format]}{field}"
    return what + (", held out for validation" if entry.held_out else "")


def _path_names(entry: Input) -> str:
    return " + ".join([str(entry.paths[0]), *(path.name for path in entry.paths[1:])])


def _named(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown + (f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else "")


def describe_blank_pairs(survey: Survey) -> Iterator[str]:
    """A line for every pair input with pairs left out for a blank side."""
    for entry, count in survey.num_blank_pairs.items():
        if count:
            total = survey.num_documents[entry] + count
            yield f"{_path_names(entry)}: {count:,} of {total:,} pairs left out, a side is blank"


def describe_result(sources: Sequence[BuiltSource]) -> str:
    """The table of what was written, a row a source and one for all."""
    total = SourceStatistics()
    total_held_out = 0
    rows = [("source", "documents", "lines", "tokens", "bytes/token", "unknown", "validation")]
    for source in sources:
        held_out = sum(entry.documents for entry in source.entries if entry.split == "valid")
        rows.append(_row(source.name, source.statistics, held_out))
        total.add(source.statistics)
        total_held_out += held_out
    return format_table([*rows, _row("all", total, total_held_out)])


def _row(name: str, statistics: SourceStatistics, held_out: int) -> tuple[str, str, str, str, str, str, str]:
    return (
        name,
        f"{statistics.documents:,}",
        f"{statistics.lines:,}",
        f"{statistics.tokens:,}",
        f"{statistics.text_bytes / max(statistics.tokens, 1):.2f}",
        f"{statistics.unknown / max(statistics.tokens, 1):.3%}",
        f"{held_out / max(statistics.documents, 1):.2%}",
    )


def describe_rate(sources: Sequence[BuiltSource], seconds: float) -> str:
    """Text of all sources, the time that encoding and writing took, and the rate."""
    text_bytes = sum(source.statistics.text_bytes for source in sources)
    return (
        f"{text_bytes / 1e6:.1f} MB of text encoded in {seconds:.1f} s, {text_bytes / 1e6 / seconds:.1f} MB/s"
    )
