"""Rows made into examples: templates filled in, languages found, directions chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import permutations

from deltalm_ds.downstream.examples import DownstreamExample
from deltalm_ds.downstream.options import ReadingOptions
from deltalm_ds.downstream.rows import SOURCE_LANGUAGE, TARGET_LANGUAGE, Place, Row
from deltalm_ds.downstream.splits import Split
from deltalm_ds.downstream.task import Task
from deltalm_ds.downstream.templates import FieldValue, Template
from deltalm_ds.errors import UserError
from deltalm_ds.text.languages import ADVICE, is_language

BLANK, OTHER_LANGUAGE = "blank", "other language"
"""What rows are left out for."""

_IDS, _GROUPS = ("gem_id", "id"), ("group", "category")
_is_language = cache(is_language)


class ExampleMaker:
    """Makes examples of the rows of files of which the names tell the languages `named`: none, one or two."""

    def __init__(
        self,
        task: Task,
        split: Split,
        options: ReadingOptions,
        named: tuple[str, ...],
        left_out: Counter[str],
    ) -> None:
        self._task, self._split, self._left_out = task, split, left_out
        self._both_directions = options.both_directions
        self._asked = options.source_language, options.target_language
        self._source = Template(options.source_template or task.source_template)
        self._target = Template(options.target_template or task.target_template)
        self._wanted = {*self._source.fields, *self._target.fields}
        self._directions_of = cache(self._find_directions)
        if len(named) == 2:
            self._named: tuple[str | None, str | None] = (named[0], named[1])
        else:
            self._named = (named[0], named[0]) if named and task.same_language else (None, None)
        if task.same_language:
            first, second = self._asked
            if first and second and first != second:
                raise UserError(
                    f"the task {task.name} reads and writes one language: give it --source-language or "
                    f"--target-language, not {first} and {second}"
                )
            self._asked = first or second, second or first

    def examples(self, rows: Iterable[Row]) -> Iterator[DownstreamExample]:
        """The examples of rows, in order: none, one or, of rows without direction, several of each.

        UserError, with its place, for a row that lacks a field, or whose languages are not known.
        """
        for row in rows:
            if self._wanted <= row.fields.keys():
                yield from self._example(row, row.fields, self._languages(row))
            elif directions := self._directions_of(tuple(row.fields)):
                chosen = self._chosen(directions, row.place)
                if not chosen:
                    self._left_out[OTHER_LANGUAGE] += 1
                for source, target in chosen:
                    sides = {"source": row.fields[source], "target": row.fields[target]}
                    yield from self._example(row, {**row.fields, **sides}, (source, target))
            else:
                missing = next(
                    name for name in (*self._source.fields, *self._target.fields) if name not in row.fields
                )
                there = ", ".join(map(ascii, list(row.fields)[:12])) or "none with text"
                raise UserError(
                    f"{row.place}, has no field {missing!r}, only {there}: name the right ones with "
                    "--source-template and --target-template"
                )

    def _find_directions(self, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """All directions between fields that are called as languages are, where nothing else is wanted."""
        if not self._wanted - set(names) <= {"source", "target"}:
            return ()
        # An example's name is called as Indonesian is.
        return tuple(permutations((name for name in names if is_language(name) and name not in _IDS), 2))

    def _chosen(self, directions: tuple[tuple[str, str], ...], place: Place) -> list[tuple[str, str]]:
        chosen = [
            direction
            for direction in directions
            if _fits(direction, self._asked)
            or (self._both_directions and _fits(direction[::-1], self._asked))
        ]
        if not self._both_directions and (again := {pair[::-1] for pair in chosen} & {*chosen}):
            first, second = min(again)
            raise UserError(
                f"{place.text}: from {first} to {second}, or back? give --source-language and "
                "--target-language, or --both-directions"
            )
        return chosen

    def _languages(self, row: Row) -> tuple[str, str] | None:
        """The languages of a row's source and target; None if the user wants others."""
        source = _language_field(row, SOURCE_LANGUAGE)
        target = _language_field(row, TARGET_LANGUAGE) or _language_field(row, "lang")
        if self._task.same_language:
            source, target = source or target, target or source
        if not _fits((source, target), self._asked):
            return None
        source = source or self._asked[0] or self._named[0] or self._task.default_source_language
        target = target or self._asked[1] or self._named[1]
        if source is None or target is None:
            side = "source" if source is None else "target"
            raise UserError(
                f"{row.place}, does not tell its {side}'s language, and neither does the file's name: give "
                f"--{side}-language, or a field {side}_language"
            )
        return source, target

    def _example(
        self, row: Row, fields: Mapping[str, FieldValue], languages: tuple[str, str] | None
    ) -> Iterator[DownstreamExample]:
        if languages is None:
            self._left_out[OTHER_LANGUAGE] += 1
            return
        try:
            sources, targets = self._source.texts(fields), self._target.texts(fields)
        except ValueError as error:
            raise UserError(f"{row.place}: {error}: name one of them in the template") from None
        if len(sources) != 1:
            raise UserError(
                f"{row.place}, has {len(sources)} sources where one is needed: name a field with one text in "
                "--source-template"
            )
        if self._split == "train":
            targets = tuple(target for target in targets if target)
            if not targets or not sources[0]:
                self._left_out[BLANK] += 1
                return
        elif not targets:
            raise UserError(f"{row.place}, has no target: remove it, or add one")
        yield DownstreamExample(
            sources[0], targets, *languages, _first(fields, _IDS), _first(fields, _GROUPS)
        )


def _fits(direction: tuple[str | None, str | None], wanted: tuple[str | None, str | None]) -> bool:
    """Whether every language that is known and asked for is the one asked for."""
    return all(
        known == asked or None in (known, asked) for known, asked in zip(direction, wanted, strict=True)
    )


def _language_field(row: Row, name: str) -> str | None:
    language = row.fields.get(name)
    if not language:
        return None
    if not isinstance(language, str) or not _is_language(language):
        raise UserError(f"{row.place}, names the language {language!r} in {name!r}, which is none: {ADVICE}")
    return language


def _first(fields: Mapping[str, FieldValue], names: tuple[str, ...]) -> str:
    values = (fields.get(name) for name in names)
    return next((value for value in values if isinstance(value, str)), "")
