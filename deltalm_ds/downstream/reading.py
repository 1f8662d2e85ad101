"""Files and folders of every public format read into examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from deltalm_ds.downstream.aligned import read_aligned
from deltalm_ds.downstream.examples import DownstreamExample
from deltalm_ds.downstream.finding import DataFiles, find_data
from deltalm_ds.downstream.making import OTHER_LANGUAGE, ExampleMaker
from deltalm_ds.downstream.options import ReadingOptions
from deltalm_ds.downstream.rows import Row, read_jsonl, read_tsv
from deltalm_ds.downstream.splits import Split
from deltalm_ds.downstream.task import Task
from deltalm_ds.downstream.wmt import read_sgml
from deltalm_ds.downstream.xml_files import read_tar, read_xml
from deltalm_ds.errors import UserError


def read_examples(
    paths: Sequence[Path],
    task: Task,
    split: Split,
    options: ReadingOptions | None = None,
    left_out: Counter[str] | None = None,
) -> Iterator[DownstreamExample]:
    """The examples of files and folders, one at a time, in the order of `paths` and of names in a folder.

    A file that is named holds the `split`; in a folder or an archive the files of the split are found by
    their names (docs/tasks-data.md). Training leaves out rows of which a side is blank; validation and test
    sets keep them, so that lines correspond. `left_out` counts by reason what is left out. UserError, at
    once, where no file is found, and when it is reached, with file and line, for whatever is wrong in one.
    """
    options = options or ReadingOptions()
    found = find_data(paths, task, split, options)
    return _examples(found, task, split, options, Counter() if left_out is None else left_out)


def _examples(
    found: Sequence[DataFiles], task: Task, split: Split, options: ReadingOptions, left_out: Counter[str]
) -> Iterator[DownstreamExample]:
    any_found = False
    for data in found:
        maker = ExampleMaker(task, split, options, data.languages, left_out)
        for example in maker.examples(_rows(data, task, options)):
            any_found = True
            yield example
    if not any_found:
        names = ", ".join(str(text) for data in found[:3] for text in data.files)
        wanted = f"{options.source_language or 'any'}-{options.target_language or 'any'}"
        why = f": {left_out[OTHER_LANGUAGE]:,} are not {wanted}" if left_out[OTHER_LANGUAGE] else ""
        raise UserError(f"no example for {split} in {names}{why}; give other data or languages")


def _rows(data: DataFiles, task: Task, options: ReadingOptions) -> Iterator[Row]:
    if data.format == "aligned":
        return read_aligned(data.files, task.endings)
    if data.format == "tsv":
        return read_tsv(data.files[0], options.columns)
    if data.format == "jsonl":
        return read_jsonl(data.files[0])
    if data.format == "sgml":
        return read_sgml(data.files, data.languages)
    return read_tar(data.files[0], data.members) if data.format == "tar" else read_xml(data.files[0])
