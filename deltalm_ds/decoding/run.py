"""The command `generate`: lines in, outputs out, by one process or many."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from deltalm_ds.decoding.forms import head
from deltalm_ds.decoding.interactive import answer_lines
from deltalm_ds.decoding.lines import Chunk, read_chunks, read_lines
from deltalm_ds.decoding.options import GenerateSettings
from deltalm_ds.decoding.parts import PartialOutput
from deltalm_ds.decoding.rates import GenerationProgress, rates
from deltalm_ds.decoding.remarks import Counts
from deltalm_ds.decoding.work import ChunkWorker, Plan, Result, work_apart
from deltalm_ds.errors import UserError
from deltalm_ds.processes import Workers
from deltalm_ds.ranks import Ranks
from deltalm_ds.text.languages import is_language
from deltalm_ds.text.scripts import scripts_of

Say = Callable[[str], None]


def generate(settings: GenerateSettings, say: Say) -> None:
    """Do what the command is asked for; `say` is told what is for people, by rank 0.

    UserError for whatever the user has to mend.
    """
    with Ranks() as ranks:
        if ranks.count > 1 and (settings.input is None or settings.output is None):
            raise UserError("several ranks share files: give --input and --output")
        if ranks.count > 1 and settings.processes > 1:
            raise UserError("each rank is a process of its own: leave out --processes")
        plan = Plan.of(settings, ranks.rank_on_node)
        if settings.reads_and_writes_as_it_comes and sys.stdin.isatty():
            answer_lines(ChunkWorker(plan, 1), plan.language, settings.chosen_format, say)
            return
        with contextlib.ExitStack() as files:
            file, total = _opened(settings.input, files)
            lines = read_lines(file, str(settings.input or "standard input"))
            targets = None
            if settings.score_targets is not None:
                target_file, _ = _opened(settings.score_targets, files)
                targets = read_lines(target_file, str(settings.score_targets))
            run = _Run(plan, ranks, total)
            chunks = read_chunks(lines, targets, settings.buffer_lines)
            if settings.output is None:
                run.to_stdout(chunks)
            else:
                run.to_file(chunks, PartialOutput(settings.output))
        run.report(say)


class _Run:
    """One run over the chunks of a text."""

    def __init__(self, plan: Plan, ranks: Ranks, total: int | None) -> None:
        self._plan, self._ranks, self._total = plan, ranks, total
        self._counts = Counts()  # with what an earlier run has done
        self._new = Counts()
        self._seconds = 0.0

    def to_stdout(self, chunks: Iterator[Chunk]) -> None:
        """Write outputs as they are made."""
        sys.stdout.buffer.write(head(self._plan.settings.chosen_format).encode())
        work = self._work()
        with GenerationProgress(self._total, self._ranks) as progress:
            for _, result in self._results(work, chunks, progress):
                sys.stdout.buffer.write(result.text.encode())
                sys.stdout.buffer.flush()

    def to_file(self, chunks: Iterator[Chunk], output: PartialOutput) -> None:
        """Write the parts that are not there, this rank's share of them; rank 0 puts all together."""
        ranks = self._ranks
        settings = self._plan.settings
        done_before = ranks.from_first(lambda: output.start(self._plan.fingerprint(), settings.resume))
        paths: list[Path] = []
        work = self._work()
        with GenerationProgress(self._total, ranks) as progress:

            def missing() -> Iterator[Chunk]:
                for chunk in chunks:
                    path = output.path_of(chunk)
                    paths.append(path)
                    is_mine = chunk.number % ranks.count == ranks.rank
                    if path.name not in done_before:
                        if is_mine:
                            yield chunk
                        continue
                    if ranks.is_first:
                        progress.skip(chunk.num_bytes)
                    if is_mine:
                        self._counts.add(output.read_counts(chunk))

            for chunk, result in self._results(work, missing(), progress):
                output.write(chunk, result.text, result.counts)
        if ranks.is_first:
            output.finish(head(settings.chosen_format), paths)

    def report(self, say: Say) -> None:
        """Tell rates and warnings."""
        counts, new = Counts(), Counts()
        for of_rank, new_of_rank in self._ranks.gathered((self._counts, self._new)):
            counts.add(of_rank)
            new.add(new_of_rank)
        if not self._ranks.is_first:
            return
        say(
            f"{counts.num_lines:,} lines, {counts.num_sentences:,} sentences, {counts.num_tokens:,} tokens; "
            f"{self._seconds:,.1f} s, {rates(new.num_sentences, new.num_tokens, self._seconds)}"
        )
        for warning in counts.warnings():
            say(f"warning: {warning}")
        language = self._plan.language
        scripts = scripts_of(language) if is_language(language) else ()
        if scripts and counts.num_lines_with_text:
            share = counts.num_in_script / counts.num_lines_with_text
            say(f"{share:.1%} of the outputs are in the script of {language} ({', '.join(scripts)})")

    def _work(self) -> Callable[[Chunk], Result]:
        settings = self._plan.settings
        if settings.processes > 1:
            return partial(work_apart, settings)
        return ChunkWorker(self._plan, self._ranks.count_on_node)

    def _results(
        self, work: Callable[[Chunk], Result], chunks: Iterator[Chunk], progress: GenerationProgress
    ) -> Iterator[tuple[Chunk, Result]]:
        started = time.monotonic()
        pending: deque[Chunk] = deque()

        def noted() -> Iterator[Chunk]:
            for chunk in chunks:
                pending.append(chunk)
                yield chunk

        with Workers(self._plan.settings.processes) as workers:
            for result in workers.map(work, noted()):
                chunk = pending.popleft()
                self._counts.add(result.counts)
                self._new.add(result.counts)
                yield chunk, result
                progress.add(chunk.num_bytes, result.counts)
        self._seconds = time.monotonic() - started


def _opened(path: Path | None, files: contextlib.ExitStack) -> tuple[BinaryIO, int | None]:
    """The file, or stdin, and how many bytes are to come where that is known."""
    if path is None:
        file: BinaryIO = sys.stdin.buffer
    else:
        try:
            file = files.enter_context(path.open("rb"))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return file, None
    return file, max(0, status.st_size - file.tell())
