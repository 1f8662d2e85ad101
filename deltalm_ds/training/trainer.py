"""The training loop: batches in, optimizer steps, records, validations and checkpoints out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from deltalm_ds.data.batches import StepBatches
from deltalm_ds.data.loader import StepLoader, to_tensors
from deltalm_ds.data.samples import GroupName
from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLMConfig, DropoutState
from deltalm_ds.ops import CrossEntropy
from deltalm_ds.training.checkpoint_folder import MODEL, RunState
from deltalm_ds.training.checkpoints import CheckpointStore
from deltalm_ds.training.distributed import Process, on_first, sum_over_ranks
from deltalm_ds.training.engine import Engine, StepOutcome
from deltalm_ds.training.flops import training_flops
from deltalm_ds.training.progress import Progress
from deltalm_ds.training.recorder import Recorder
from deltalm_ds.training.requests import Requests, Stopped
from deltalm_ds.training.run_settings import RunSettings
from deltalm_ds.training.saver import BackgroundSaver
from deltalm_ds.training.schedule import learning_rate_at
from deltalm_ds.training.selection import BestModels
from deltalm_ds.training.spikes import StepJudge
from deltalm_ds.training.totals import Totals
from deltalm_ds.training.validation import Pause, ValidationReport
from deltalm_ds.training.watchdog import Watchdog

_SECONDS_OF_WAITING = 0.5
"""After these a rank without its next batches looks whether the run is asked to stop."""


class Validates(Protocol):
    """What the trainer asks of a validation."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to validate on."""

    @property
    def texts_title(self) -> str:
        """What a report's texts show."""

    def run(self, engine: Engine, pause: Pause) -> ValidationReport:
        """Validate the engine's model; called by all processes together, and the same for all."""


@dataclass(frozen=True)
class _ValidationPause:
    """Between two batches of a validation."""

    requests: Requests
    watchdog: Watchdog

    def together(self) -> None:
        self.watchdog.progress("validation")
        self.requests.check()

    def is_wanted(self) -> bool:
        self.watchdog.progress("validation")
        return self.requests.is_asked_to_stop


def all_skipped(settings: RunSettings, state: RunState) -> tuple[tuple[int, int], ...]:
    """Ranges of samples that the run leaves out: those of its settings and those that it has left out."""
    return tuple(sorted({*settings.skipped_samples(), *state.skipped_samples}))


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
        recorder: Recorder,
        requests: Requests,
        watchdog: Watchdog,
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
        self.recorder = recorder
        self.requests = requests
        self.watchdog = watchdog
        self.progress = Progress()
        self.judge = StepJudge(settings.spike_settings, recorder.say)
        self.saver = BackgroundSaver(store, recorder.record, recorder.say)
        self.was_stopped = False
        """Whether the run was asked to stop, and has saved."""
        self._groups = groups
        self._skipped_samples = settings.skipped_samples()
        self._waited_seconds = 0.0

    def resume(self, state: RunState) -> None:
        """Take over what a checkpoint says of the run; the engine has its tensors already."""
        monitoring = state.monitoring
        self.progress = Progress.from_state(monitoring["progress"])
        self.judge.window.load_state(monitoring["losses"])
        self.recorder.totals.load_state(monitoring["totals"])
        self.saver.saved_step = state.step
        self.watchdog.resume(state.step)
        self._skipped_samples = all_skipped(self.settings, state)
        if self.selection is not None:
            self.selection.load_state(monitoring["selection"])

    def train(self) -> None:
        """Run to the last step, to --stop-after, or until the validation score no longer rises.

        A run that is asked to stop saves and sets `was_stopped`.
        """
        try:
            self._train()
        except Stopped as request:
            self.recorder.say(f"asked to stop by {request}")
            if self.saver.saved_step != self.progress.step:
                self._save()
            self._finish_saving()
            self.recorder.say(f"stopped after step {self.progress.step:,}; --resume goes on")
            self.was_stopped = True

    def _train(self) -> None:
        monitoring = self.settings.monitoring
        assert self.settings.steps is not None  # complete() has filled it in
        last = self.settings.steps
        if self.settings.stop_after is not None:
            last = min(last, self.progress.step + self.settings.stop_after)
        self.recorder.start(self.progress.step)
        if self.progress.validation_is_due:
            self._validate()
        steps: Iterator[StepBatches] = iter(self.loader)
        while self.progress.step < last and not self._is_done:
            is_save_wanted = self._get_ready()
            outcome, learning_rate = self._run_step(next(steps))
            step = self.progress.step
            if step % monitoring.log_every == 0 or step == last:
                if self.process.is_first:
                    self.store.check_lease()
                self.recorder.record_step(self.progress, outcome, learning_rate)
            is_due = monitoring.validate_every and step % monitoring.validate_every == 0
            if is_due or step == self.settings.steps:  # not where --stop-after interrupts: it decides nothing
                self._validate()
            if step == last or self._is_done or step % monitoring.save_every == 0 or is_save_wanted:
                self._save()
        self._finish_saving()
        if self._is_done:
            self._save_model()

    @property
    def model_folder(self) -> Path:
        """Where the trained model goes."""
        return self.output / MODEL

    @property
    def has_model(self) -> bool:
        """Whether it is there: the run has reached its end."""
        return self._is_done and not self.was_stopped

    @property
    def _is_done(self) -> bool:
        has_stopped = self.selection is not None and self.selection.should_stop
        return has_stopped or self.progress.step == self.settings.steps

    def _get_ready(self) -> bool:
        """Wait for the next batches, commit what has been written, and tell whether somebody wants a save."""
        self.watchdog.progress("step")
        while not self.loader.wait(_SECONDS_OF_WAITING) and not self.requests.is_asked_to_stop:
            pass
        is_save_wanted, is_any_writing = self.requests.agree(is_writing=self.saver.is_writing)
        if not is_any_writing:
            self._finish_saving()
            self.watchdog.progress("step")
        waited, self._waited_seconds = self._waited_seconds, self.loader.waited_seconds
        self.recorder.totals.add_counts(waited_seconds=self._waited_seconds - waited)
        return is_save_wanted

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
            spike_limit=self.judge.window.limit,
            skip_spikes=settings.spike_settings.skip_spikes,
            between=self._look_up,
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
        self.recorder.totals.add(of_step)
        self.progress.step += 1
        self.progress.next_position = batches.end_position
        self._judge(batches, outcome, losses)
        self.watchdog.finished_step()
        return outcome, learning_rate

    def _look_up(self) -> None:
        """Between two micro-batches."""
        self.watchdog.progress("step")
        self.requests.check()

    def _judge(self, batches: StepBatches, outcome: StepOutcome, losses: Sequence[CrossEntropy]) -> None:
        if self.judge.judge(self.progress, batches, outcome, losses):
            self._finish_saving()
            raise UserError(
                f"{self.progress.skipped_in_a_row} steps in a row were skipped, the last being step "
                f"{self.progress.step}: lower the learning rate, or resume with --skip-samples FIRST:END of "
                "the samples named above"
            )

    def _validate(self) -> None:
        self.progress.validation_is_due = True
        if self.validator.is_empty:
            self.recorder.say("no validation: the data have no validation samples")
        else:
            report = self.validator.run(self.engine, _ValidationPause(self.requests, self.watchdog))
            if self.process.is_first:
                self.store.check_lease()
            if self.selection is not None:
                self._select(self.selection, report.values)
            self.recorder.record(self.progress.step, "validation", report.values)
            self.recorder.say(report.lines())
            if report.texts:
                self.recorder.show_text(self.progress.step, self.validator.texts_title, report.texts)
        self.progress.validation_is_due = False

    def _select(self, selection: BestModels, values: dict[str, float]) -> None:
        step, score = self.progress.step, values[selection.metric]
        if selection.observe(step, score):
            self.watchdog.progress("save")
            weights = self.engine.full_weights()
            on_first(lambda: selection.keep(step, weights, self._save_as_holder))
        elif selection.should_stop:
            num = selection.num_without_improvement
            self.recorder.say(f"stopping: {selection.metric} has not improved in {num} validations")

    def _finish_saving(self) -> None:
        if self.saver.is_unfinished:
            self.watchdog.progress("save")
            self.saver.finish()

    def _save(self) -> None:
        self.watchdog.progress("save")
        self.recorder.stop_lap()
        self.saver.start(
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
                    "progress": self.progress.to_state(),
                    "losses": self.judge.window.to_state(),
                    "totals": self.recorder.totals.to_state(),
                    **({} if self.selection is None else {"selection": self.selection.to_state()}),
                },
                skipped_samples=self._skipped_samples,
            )
        )

    def _save_as_holder(self, weights: dict[str, torch.Tensor], folder: Path) -> None:
        self.store.check_lease()
        self.save_model(weights, folder)

    def _save_model(self) -> None:
        """Leave the trained weights as a folder that --from and `DeltaLM.from_pretrained` read."""
        self.watchdog.progress("save")
        folder, selection = self.model_folder, self.selection
        if selection is not None and selection.kept:
            on_first(lambda: self._save_as_holder(selection.averaged(), folder))
            self.recorder.say(f"the model in {folder} is {selection.describe()}")
            return
        weights = self.engine.full_weights()
        on_first(lambda: self._save_as_holder(weights, folder))
        self.recorder.say(f"the trained model is in {folder}: new runs start from it by --from")

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
