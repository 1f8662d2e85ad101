"""How data are read: what the user says of them."""

from __future__ import annotations

from dataclasses import dataclass

from deltalm_ds.downstream.templates import Template
from deltalm_ds.errors import UserError
from deltalm_ds.text.languages import ADVICE, is_language


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How data are read where they do not tell it themselves."""

    source_language: str | None = None
    """Language of the sources. Of data that name their languages, only what has this one is used."""
    target_language: str | None = None
    """The same of the targets."""
    both_directions: bool = False
    """Use pairs of files such as train.en and train.fr, which have no direction, in both."""
    source_template: str | None = None
    """What the model reads, made from the fields of a row: "{answer} </s> {context}". Default: the task's."""
    target_template: str | None = None
    """What it should write, likewise."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of .tsv files without a line that names them. Default: their first line does."""

    def __post_init__(self) -> None:
        for language in (self.source_language, self.target_language):
            if language is not None and not is_language(language):
                raise UserError(f"{language!r} is no language: {ADVICE}")
        for template in (self.source_template, self.target_template):
            if template is not None:
                Template(template)
        if self.columns is not None and (len({*self.columns}) < len(self.columns) or not all(self.columns)):
            raise UserError(f"--columns {' '.join(self.columns)} must be different names")
