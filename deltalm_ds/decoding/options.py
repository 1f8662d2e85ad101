"""The options of `generate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.errors import UserError

DType = Literal["fp32", "bf16"]
OutputFormat = Literal["text", "tsv", "jsonl"]


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The search. Where nothing is given: what the model was tuned with."""

    beam: int | None = None
    """Hypotheses kept for each sentence; 1 is greedy. With --sampling: samples drawn for each sentence."""
    length_penalty: float | None = None
    """Exponent of the length that a hypothesis' summed log-probability is divided by; above 1 favours long
    outputs, 0 ranks by the sum alone."""
    max_length_a: float | None = None
    """An output has at most a · n + b tokens before its end, n the source's tokens: this is a."""
    max_length_b: int | None = None
    """And this is b. No output is longer than the model has positions."""
    min_length: int | None = None
    """An output has at least so many tokens before its end."""
    num_best: int | None = None
    """Hypotheses written for each line, at most the beam; more than 1 needs --output-format tsv or jsonl."""
    no_repeat_ngram: int | None = None
    """No sequence of so many tokens occurs twice in an output; 0: anything may."""
    repetition_penalty: float | None = None
    """The log-probability of a token that the output already has is multiplied by this; 1 changes nothing."""
    sampling: bool = False
    """Draw tokens at random in place of the beam search."""
    temperature: float | None = None
    """Log-probabilities are divided by this before drawing; below 1 makes likely tokens likelier."""
    top_k: int | None = None
    """Draw from the so many likeliest tokens; 0: from all."""
    top_p: float | None = None
    """Draw from the fewest likeliest tokens that have this probability together; 1: from all."""
    seed: int | None = None
    """Draws follow from this and the line's number, whatever the batches."""

    def given(self) -> dict[str, Any]:
        """What the user has set, by name."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value is not None and value is not False}

    def resolved(self, defaults: Mapping[str, Any]) -> SearchSettings:
        """With a model's defaults where the user gave nothing; UserError for impossible or unknown ones."""
        known = {one.name for one in dataclasses.fields(SearchSettings)}
        if unknown := sorted(defaults.keys() - known):
            raise UserError(
                f"the model's search settings have {', '.join(unknown)}, which this program does not know: "
                "use a newer deltalm-ds"
            )
        return SearchSettings(**{**defaults, **self.given()})


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """Write a model's output for each line of text: python -m deltalm_ds.generate MODEL < in > out

    One output line for one input line, in order; an empty line gives an empty line. On a terminal each line
    is answered at once. Under mpirun or srun --mpi all ranks share the lines of --input (docs/generating.md).
    """

    model: tyro.conf.Positional[Path]
    """The model folder."""
    input: Path | None = None
    """File of UTF-8 text. Default: standard input."""
    output: Path | None = None
    """File to write; until it is finished, its parts are in a folder OUTPUT.partial. Default: standard
    output."""
    resume: bool = False
    """Go on where a run that was interrupted stopped; with the same --output, model and options."""
    output_format: OutputFormat | None = None
    """text: the best output a line; tsv and jsonl: all of --num-best with scores. Default: text, or tsv with
    --score-targets."""
    score_targets: Path | None = None
    """File with a target for each line of input: write how likely these are, and generate nothing."""
    target_language: str | None = None
    """The language to write. Default: the only one that the model was tuned to write."""
    split_sentences: bool = False
    """Generate sentence by sentence, for paragraphs in tasks of sentences; they are joined again."""
    prefix: str = ""
    """Text that every output begins with."""
    forced_first_token: str | None = None
    """A language whose tag, or a piece of the tokenizer that, every output begins with, before --prefix."""
    allow_pieces_of: Path | None = None
    """File of text in the language to write: outputs are made only of pieces that it has."""
    batch_tokens: int = 4096
    """Tokens of the sources that are decoded together, padding counted; less takes less memory."""
    buffer_lines: int = 2000
    """Lines that are read, sorted by length and written together."""
    device: str | None = None
    """cpu, cuda, cuda:1 … Default: a GPU if there is one."""
    dtype: DType | None = None
    """Numbers to compute in. Default: bf16 on GPUs that have it, else fp32."""
    processes: int = 1
    """Processes on CPUs; each holds the model. With GPUs, start a process for each by mpirun."""
    search: SearchOptions = field(default_factory=SearchOptions)

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "buffer_lines", "processes"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be 1 or more, not {getattr(self, name)}")
        if self.resume and self.output is None:
            raise UserError("--resume goes on with a file: name it by --output")
        if self.processes > 1 and self.device not in (None, "cpu"):
            raise UserError("--processes is for CPUs: on GPUs start one process for each, with mpirun -np")
        if self.split_sentences and (self.search.num_best or 1) > 1:
            raise UserError("--split-sentences joins the best outputs of sentences: it has no --num-best")
        if self.score_targets is not None:
            self._check_scoring()
        elif (self.search.num_best or 1) > 1 and self.output_format in (None, "text"):
            raise UserError("--num-best above 1 needs --output-format tsv or jsonl")

    def _check_scoring(self) -> None:
        if self.output_format == "text":
            raise UserError("--score-targets writes numbers: choose --output-format tsv or jsonl")
        useless = [f"--{name.replace('_', '-')}" for name in self.search.given() if name != "length_penalty"]
        useless += ["--split-sentences"] * self.split_sentences + ["--prefix"] * bool(self.prefix)
        useless += ["--forced-first-token"] * (self.forced_first_token is not None)
        useless += ["--allow-pieces-of"] * (self.allow_pieces_of is not None)
        if useless:
            raise UserError(f"--score-targets generates nothing: leave out {', '.join(useless)}")

    @property
    def chosen_format(self) -> OutputFormat:
        """The output format, given or not."""
        return self.output_format or ("text" if self.score_targets is None else "tsv")

    @property
    def reads_and_writes_as_it_comes(self) -> bool:
        """Whether lines come from stdin and outputs go to stdout, so that a terminal can be answered."""
        return self.input is None and self.output is None and self.score_targets is None
