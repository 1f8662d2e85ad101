"""Texts made from the fields of a row: "{answer} </s> {context}"."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping

from deltalm_ds.errors import UserError

FieldValue = str | tuple[str, ...]
"""A text, or several that are equally right."""

# All that str.splitlines takes for a line end as well, so that no reader of outputs counts other lines.
_BREAKS = re.compile(r"[ \t\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")


class Template:
    """A text with names of fields in braces; {{ and }} are braces themselves.

    UserError for unbalanced braces, for anything but a name between them, and for a template without fields.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        """As it was given."""
        advice = 'a template is text with names of fields in braces, such as "{answer} </s> {context}"'
        self._parts: list[tuple[str, str | None]] = []
        if text.splitlines() not in ([], [text]):
            raise UserError(f"the template {text!r} has several lines: {advice}")
        try:
            for literal, name, specification, conversion in string.Formatter().parse(text):
                if name == "" or specification or conversion:
                    raise UserError(f"the template {text!r} has braces without a bare name: {advice}")
                self._parts.append((literal, name))
        except ValueError as error:
            raise UserError(f"the template {text!r} cannot be read ({error}): {advice}") from None
        self.fields: tuple[str, ...] = tuple(dict.fromkeys(name for _, name in self._parts if name))
        """The names in it, each once."""
        if not self.fields:
            raise UserError(f"the template {text!r} names no field: {advice}")
        self._is_field = self._parts == [("", self.fields[0])]

    def texts(self, fields: Mapping[str, FieldValue]) -> tuple[str, ...]:
        """The texts that a row's fields make: one, or one for every text of the field that has several.

        KeyError for a field that the row lacks; ValueError if two fields have several texts.
        """
        if self._is_field:
            value = fields[self.fields[0]]
            return (value,) if isinstance(value, str) else value
        several = [name for name in self.fields if not isinstance(fields[name], str)]
        if len(several) > 1:
            raise ValueError(f"the fields {several[0]!r} and {several[1]!r} both have several texts")
        made: list[str] = []
        for choice in fields[several[0]] if several else ("",):
            chosen = {**fields, several[0]: choice} if several else fields
            made.append("".join(f"{literal}{chosen[name] if name else ''}" for literal, name in self._parts))
        return tuple(made)


def one_line(text: str) -> str:
    """A text with every run of spaces, tabs and line ends as one space, none at its ends."""
    return _BREAKS.sub(" ", text).strip()
