"""The training loop: batches in, optimizer steps, records, validations and checkpoints out."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from deltalm_ds.data.batches import StepBatches
from deltalm_ds.data.loader import StepLoader, to_tensors
from deltalm_ds.data.samples import GroupName
from deltalm_ds.model import DeltaLMConfig, DropoutState
from deltalm_ds.training.checkpoint_folder import MODEL, RunState
from deltalm_ds.training.checkpoints import CheckpointStore
from deltalm_ds.training.distributed import Process, on_first, sum_over_ranks
from deltalm_ds.training.engine import Engine, StepOutcome
from deltalm_ds.training.flops import Peak, training_flops
from deltalm_ds.training.monitor import Monitor, duration, say
from deltalm_ds.training.run_settings import RunSettings
from deltalm_ds.training.schedule import learning_rate_at
from deltalm_ds.training.selection import BestModels
from deltalm_ds.training.totals import Totals
from deltalm_ds.training.validation import ValidationReport


class Validates(Protocol):
    """What the trainer asks of a validation."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to validate on."""

    @property
    def texts_title(self) -> str:
        """What a report's texts show."""

    def run(self, engine: Engine) -> ValidationReport:
        """Validate the engine's model; called by all processes together, and the same for all."""


@dataclass
class Progress:
    """Where the run stands."""

    step: int = 0
    """Optimizer steps done, skipped ones included."""
    next_position: int = 0
    """Global position of the first sample of the next step."""
    skipped_steps: int = 0
    """Steps without an update, for their gradient was not finite."""


class Trainer:
    """One run on one process of many; every method is called by all processes together."""

    def __init__(
        self,
        *,
        settings: RunSettings,
        output: Path,
        process: Process,
        engine: Engine,
        model_config: DeltaLMConfig,
        save_model: Callable[[dict[str, torch.Tensor], Path], None],
        groups: list[GroupName],
        fingerprint: dict[str, Any],
        loader: StepLoader,
        validator: Validates,
        selection: BestModels | None,
        store: CheckpointStore,
        monitor: Monitor | None,
        peak: Peak,
    ) -> None:
        self.settings = settings
        self.output = output
        self.process = process
        self.engine = engine
        self.model_config = model_config
        self.save_model = save_model
        self.fingerprint = fingerprint
        self.loader = loader
        self.validator = validator
        self.selection = selection
        self.store = store
        self.monitor = monitor
        self.peak = peak
        self.progress = Progress()
        self.totals = Totals(groups, process.device)
        self._groups = groups

    def resume(self, state: RunState) -> None:
        """Take over what a checkpoint says of the run; the engine has its tensors already."""
        self.progress = Progress(state.step, state.next_position, state.monitoring["skipped_steps"])
        self.totals.load_state(state.monitoring["totals"])
        if self.selection is not None:
            self.selection.load_state(state.monitoring["selection"])

    def train(self) -> None:
        """Run to the last step, to --stop-after, or until the validation score no longer rises."""
        monitoring = self.settings.monitoring
        assert self.settings.steps is not None  # complete() has filled it in
        last = self.settings.steps
        if self.settings.stop_after is not None:
            last = min(last, self.progress.step + self.settings.stop_after)
        self._clock = _Clock(self.progress.step)
        waited = 0.0
        steps: Iterator[StepBatches] = iter(self.loader)
        while self.progress.step < last and not self._is_done:
            batches = next(steps)
            self.totals.add_counts(waited_seconds=self.loader.waited_seconds - waited)
            waited = self.loader.waited_seconds
            outcome, learning_rate = self._run_step(batches)
            step = self.progress.step
            if step % monitoring.log_every == 0 or step == last:
                self._record(outcome, learning_rate)
            is_due = monitoring.validate_every and step % monitoring.validate_every == 0
            if is_due or step == self.settings.steps:  # not where --stop-after interrupts: it decides nothing
                self._validate()
            if step == last or self._is_done or step % monitoring.save_every == 0:
                self._save()
        if self._is_done:
            self._save_model()

    @property
    def model_folder(self) -> Path:
        """Where the trained model goes."""
        return self.output / MODEL

    @property
    def has_model(self) -> bool:
        """Whether it is there: the run has reached its end."""
        return self._is_done

    @property
    def _is_done(self) -> bool:
        has_stopped = self.selection is not None and self.selection.should_stop
        return has_stopped or self.progress.step == self.settings.steps

    def _run_step(self, batches: StepBatches) -> tuple[StepOutcome, float]:
        settings, device = self.settings, self.process.device
        learning_rate = self._learning_rate(self.progress.step)
        self.engine.set_learning_rate(learning_rate)
        micro_batches = [to_tensors(batch, device) for batch in batches.micro_batches]
        num_target_tokens = torch.tensor(batches.num_target_tokens, dtype=torch.float64, device=device)
        outcome, losses = self.engine.step(
            micro_batches,
            sum_over_ranks(num_target_tokens),
            DropoutState(settings.seed, self.progress.step),
            settings.label_smoothing,
            settings.smoothing_form,
        )
        of_step = Totals(self._groups, device)
        for batch, sums in zip(micro_batches, losses, strict=True):
            of_step.add_losses(batch, sums)
        for on_host in batches.micro_batches:  # whose lengths need no wait for the device
            of_step.add_counts(
                flops=training_flops(
                    self.model_config,
                    np.diff(on_host.source_cumulative_lengths),
                    np.diff(on_host.target_cumulative_lengths),
                    on_host.num_target_tokens,
                )
            )
        of_step.add_counts(source_tokens=batches.num_source_tokens, target_tokens=batches.num_target_tokens)
        for tensor in of_step.tensors():
            sum_over_ranks(tensor)
        of_step.add_counts(samples=batches.end_position - batches.first_position)
        self.totals.add(of_step)
        self.progress.step += 1
        self.progress.next_position = batches.end_position
        if not outcome.applied:
            self.progress.skipped_steps += 1
            self._say(
                f"step {self.progress.step} skipped: the gradient is not finite (samples "
                f"{batches.first_position} to {batches.end_position - 1}, loss scale {outcome.loss_scale:g})"
            )
        return outcome, learning_rate

    def _record(self, outcome: StepOutcome, learning_rate: float) -> None:
        """Write a record of the steps since the last one and begin new sums."""
        waited = float(sum_over_ranks(self.totals.counts_of("waited_seconds")))
        self.totals.add_counts(seconds=self._clock.lap())
        seconds = self.totals.count("seconds")
        totals, self.totals = self.totals, Totals(self._groups, self.process.device)
        if self.monitor is None:
            return
        tokens = totals.count("source_tokens") + totals.count("target_tokens")
        flops = totals.count("flops")
        world_size = self.process.world_size
        values = {
            "loss": totals.count("loss") / max(1.0, totals.count("target_tokens")),
            **totals.losses(),
            "learning_rate": learning_rate,
            "gradient_norm": outcome.gradient_norm,
            "loss_scale": outcome.loss_scale,
            "skipped_steps": self.progress.skipped_steps,
            "samples": self.progress.next_position,
            "tokens_per_second": tokens / seconds,
            "samples_per_second": totals.count("samples") / seconds,
            "model_flop_utilisation": flops / seconds / (self.peak.tflops * 1e12 * world_size),
            "peak_tflops": self.peak.tflops,
            "memory_gib": _peak_memory_gib(self.process.device),
            "data_wait_share": waited / (seconds * world_size),
        }
        self.monitor.record(self.progress.step, "train", values)
        self._say(self._progress_line(values))

    def _progress_line(self, values: dict[str, Any]) -> str:
        steps = self.settings.steps or 0
        left = self._clock.seconds_per_step(self.progress.step) * (steps - self.progress.step)
        skipped = f"  skipped {self.progress.skipped_steps}" if self.progress.skipped_steps else ""
        objectives = ", ".join(
            f"{group} {values[f'nll/{group}']:.3f}"
            for group in dict.fromkeys(group.objective for group in self._groups)
            if f"nll/{group}" in values
        )
        return (
            f"step {self.progress.step:,}/{steps:,}  loss {values['loss']:.4f} ({objectives})  "
            f"lr {values['learning_rate']:.2e}  norm {values['gradient_norm']:.2f}  "
            f"{values['tokens_per_second']:,.0f} tokens/s  MFU {values['model_flop_utilisation']:.1%}  "
            f"data wait {values['data_wait_share']:.1%}{skipped}  left {duration(left)}"
        )

    def _validate(self) -> None:
        if self.validator.is_empty:
            self._say("no validation: the data have no validation samples")
            return
        report = self.validator.run(self.engine)
        if self.selection is not None:
            self._select(self.selection, report.values)
        if self.monitor is not None:
            self.monitor.record(self.progress.step, "validation", report.values)
            self._say(report.lines())
            if report.texts:
                self.monitor.show_text(self.progress.step, self.validator.texts_title, report.texts)
                self._say(report.texts)

    def _select(self, selection: BestModels, values: dict[str, float]) -> None:
        step, score = self.progress.step, values[selection.metric]
        if selection.observe(step, score):
            weights = self.engine.full_weights()
            on_first(lambda: selection.keep(step, weights, self.save_model))
        elif selection.should_stop:
            num = selection.num_without_improvement
            self._say(f"stopping: {selection.metric} has not improved in {num} validations")

    def _save(self) -> None:
        start = time.perf_counter()
        self.totals.add_counts(seconds=self._clock.lap())
        folder = self.store.save(
            RunState(
                step=self.progress.step,
                next_position=self.progress.next_position,
                world_size=self.process.world_size,
                zero_stage=self.engine.config.zero_stage,
                dtype=self.engine.config.dtype,
                fingerprint=self.fingerprint,
                model_config=self.model_config.to_dict(),
                settings=self.settings.to_dict(),
                monitoring={
                    "skipped_steps": self.progress.skipped_steps,
                    "totals": self.totals.to_state(),
                    **({} if self.selection is None else {"selection": self.selection.to_state()}),
                },
            )
        )
        self._say(f"saved {folder} in {time.perf_counter() - start:.1f} s")

    def _save_model(self) -> None:
        """Leave the trained weights as a folder that --from and `DeltaLM.from_pretrained` read."""
        folder, selection = self.model_folder, self.selection
        if selection is not None and selection.kept:
            on_first(lambda: self.save_model(selection.averaged(), folder))
            self._say(f"the model in {folder} is {selection.describe()}")
            return
        weights = self.engine.full_weights()
        on_first(lambda: self.save_model(weights, folder))
        self._say(f"the trained model is in {folder}: new runs start from it by --from")

    def _learning_rate(self, step: int) -> float:
        settings = self.settings.optimizer_settings
        assert settings.learning_rate is not None
        assert settings.warmup_steps is not None
        assert self.settings.steps is not None
        return learning_rate_at(
            step,
            peak=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            total_steps=self.settings.steps,
            schedule=settings.schedule,
        )

    def _say(self, text: str) -> None:
        if self.process.is_first:
            say(text)


class _Clock:
    """Time of this process's steps, everything between them included."""

    def __init__(self, first_step: int) -> None:
        self._first_step = first_step
        self._start = self._lap = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call."""
        before, self._lap = self._lap, time.perf_counter()
        return self._lap - before

    def seconds_per_step(self, step: int) -> float:
        """Mean over this process's steps so far."""
        return (time.perf_counter() - self._start) / max(1, step - self._first_step)


def _peak_memory_gib(device: torch.device) -> float:
    """Most memory this process has held: the device's, or its own on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
