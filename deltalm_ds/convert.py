"""From one model layout to another: `python -m deltalm_ds.convert SOURCE TARGET --to LAYOUT`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from deltalm_ds.commands import parse, run
from deltalm_ds.errors import UserError
from deltalm_ds.exporting.hugging_face import write_hugging_face
from deltalm_ds.exporting.model import (
    DtypeName,
    ExportModel,
    Quantization,
    average,
    cast,
    read_model,
    with_tokenizer,
)
from deltalm_ds.exporting.published import write_fairseq, write_released
from deltalm_ds.exporting.targets import check_space, check_target, new_folder
from deltalm_ds.training.checkpoint_folder import CHECKPOINTS, RUN
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
    quantization: Quantization | None = None
    """Type of ctranslate2's weights; float32 without this."""
    compare_on: Path | None = None
    """Text, a line each, on which the ctranslate2 model is compared with ours; random pieces without this."""
    language: str | None = None
    """The language to write in that comparison, where the model has tags; its first without this."""

    def __post_init__(self) -> None:
        if self.heads is not None and self.heads < 1:
            raise UserError(f"--heads must be at least 1, not {self.heads}")
        if self.to == "ctranslate2" and self.dtype != "fp32":
            raise UserError("--dtype does not go with --to ctranslate2: give --quantization")
        if self.to != "ctranslate2":
            for name in ("quantization", "compare_on", "language"):
                if getattr(self, name) is not None:
                    raise UserError(f"--{name.replace('_', '-')} goes with --to ctranslate2 only")


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
    check_space(settings.target, model.num_bytes(settings.dtype))
    write(model, settings)
    print(f"written: {settings.target} ({settings.to})")


def read_any(path: Path, heads: int | None) -> ExportModel:
    """The model at `path`: of a layout that `read_model` knows, or a checkpoint of a run."""
    if not (path / CHECKPOINTS).is_dir() and not (path / RUN).is_file():
        return read_model(path, heads)
    # It imports DeepSpeed, which takes seconds.
    from deltalm_ds.training.export_checkpoint import read_checkpoint

    return read_checkpoint(path)


def write(model: ExportModel, settings: ConvertSettings) -> None:
    """Write `model` to the target."""
    if settings.to == "released":
        write_released(model, settings.target)
    elif settings.to == "fairseq":
        write_fairseq(model, settings.target)
    elif settings.to == "huggingface":
        write_hugging_face(model, settings.target)
    elif settings.to == "ctranslate2":
        _write_ctranslate2(model, settings)
    elif settings.to == "native":
        description = model.described()
        with new_folder(settings.target) as folder:
            save_own(model, folder, description)


def _write_ctranslate2(model: ExportModel, settings: ConvertSettings) -> None:
    try:
        from deltalm_ds.exporting.ct2 import made_sources, measure, text_sources, write_ctranslate2
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install 'deltalm-ds[serve]'") from error
    if settings.compare_on is None:
        sources = made_sources(model)
    else:
        sources = text_sources(model, settings.compare_on, settings.language)
    write_ctranslate2(model, settings.target, settings.quantization or "float32")
    print(measure(model, settings.target, sources))


if __name__ == "__main__":
    run("convert", main)
