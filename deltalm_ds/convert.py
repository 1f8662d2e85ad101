"""From one model layout to another: `python -m deltalm_ds.convert SOURCE TARGET --to LAYOUT`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from deltalm_ds.commands import parse, run
from deltalm_ds.errors import UserError
from deltalm_ds.exporting.hugging_face import write_hugging_face
from deltalm_ds.exporting.model import DtypeName, ExportModel, average, cast, read_model, with_tokenizer
from deltalm_ds.exporting.published import write_fairseq, write_released
from deltalm_ds.exporting.targets import check_space, check_target, new_folder
from deltalm_ds.weights import save_own

Layout = Literal["native", "released", "fairseq", "huggingface", "ctranslate2"]


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """Write a model in another layout."""

    source: tyro.conf.Positional[Path]
    """A model of any layout, which is recognised: a model folder, XLM-R or InfoXLM, a released or fine-tuned
    DeltaLM file, a run's output folder (its newest whole checkpoint) or one of its checkpoints."""
    target: tyro.conf.Positional[Path]
    """File (released, fairseq) or folder to write; nothing may be there."""
    to: Layout
    """Its layout."""
    heads: int | None = None
    """Attention heads of a source that does not say it; without this, width / 64."""
    tokenizer: Path | None = None
    """SentencePiece model, for a source that has none."""
    average: tuple[Path, ...] = ()
    """More sources of the same shape, whose weights are averaged with the first's."""
    dtype: DtypeName = "fp32"
    """Type of the numbers written; ctranslate2 has --quantization in place of it."""

    def __post_init__(self) -> None:
        if self.heads is not None and self.heads < 1:
            raise UserError(f"--heads must be at least 1, not {self.heads}")
        if self.to == "ctranslate2" and self.dtype != "fp32":
            raise UserError("--dtype does not go with --to ctranslate2: give --quantization")


def main() -> None:
    """The command."""
    settings = parse(ConvertSettings, "convert")
    check_target(settings.target)
    model = read_any(settings.source, settings.heads)
    if settings.average:
        model = average(model, (read_any(path, settings.heads) for path in settings.average))
    if settings.tokenizer is not None:
        model = with_tokenizer(model, settings.tokenizer)
    print(model.origin)
    model = cast(model, settings.dtype)
    check_space(settings.target, model.weights)
    write(model, settings)
    print(f"written: {settings.target} ({settings.to})")


def read_any(path: Path, heads: int | None) -> ExportModel:
    """The model at `path`: of a layout that `read_model` knows, or a checkpoint of a run."""
    return read_model(path, heads)


def write(model: ExportModel, settings: ConvertSettings) -> None:
    """Write `model` to the target."""
    if settings.to == "released":
        write_released(model, settings.target)
    elif settings.to == "fairseq":
        write_fairseq(model, settings.target)
    elif settings.to == "huggingface":
        write_hugging_face(model, settings.target)
    elif settings.to == "native":
        description = model.described()
        with new_folder(settings.target) as folder:
            save_own(model, folder, description)


if __name__ == "__main__":
    run("convert", main)
