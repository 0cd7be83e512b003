"""The training loop: mixes rows, accumulates, steps, watches the adversary, keeps the best checkpoints.

It knows nothing about any particular objective, attack or data set.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType

from accelerate import Accelerator
from safetensors.torch import load_file
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from textadv.models import bare, load_trainable_state, trainable_state
from textadv.models.finite import odd_gradient
from textadv.models.split_norm import require_adversarial_rows
from textadv.objectives import Moment, Objectives
from textadv.training import checkpoint as checkpoints
from textadv.training.accumulation import accumulate
from textadv.training.averaging import Average, Averaging
from textadv.training.divergence import LEAST_SCALE, NO_STEP, Course, require_finite, rows_of
from textadv.training.keeping import RANKING, KeptWeights, improved, selected
from textadv.training.liveness import LivenessGate
from textadv.training.mining import Miner, mine
from textadv.training.optimisation import LearningRate, adamw
from textadv.training.overfitting import SLOWER, Guard, Watch
from textadv.training.precision import without_autocast
from textadv.training.progress import Progress, Scores, Settings, Trained, require_training
from textadv.training.resumable import Resumable
from textadv.training.sampling import Sampler, whole_batches
from textadv.training.step_report import StepReport, largest_of_all, over_processes
from textadv.training.tracking import Tracker
from textadv.values.batch import Role
from textadv.values.errors import NonFiniteError
from textadv.values.host.interrupts import Interrupted, asked, finishing, take_time
from textadv.values.randomness import seeded_scope

DROPOUT = 2


class Trainer:
    """One training run; `score` measures a model on held-out rows; without it the last weights are kept.

    sampler: the rows of every optimizer step. objectives: what is minimised on the rows of each role.
    folder: where the log, the kept weights and the checkpoints go.
    averaging: averaged weights are scored, kept and ended with, the raw ones trained on. guard: against catastrophic
    overfitting of the raw weights. memory: what an objective carries from step to step, saved with checkpoints.
    carried: texts that every checkpoint holds, by the name of their file. miner: adds hard rows to the sampler.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        sampler: Sampler,
        objectives: Objectives,
        settings: Settings,
        score: Callable[[nn.Module], Scores] | None,
        folder: Path | str,
        *,
        name: str = "hardened",
        bar: bool = True,
        averaging: Averaging | None = None,
        guard: Guard | None = None,
        memory: checkpoints.Memory | None = None,
        carried: Mapping[str, str] = MappingProxyType({}),
        miner: Miner | None = None,
    ) -> None:
        require_training(accelerator, model, sampler, objectives, settings)
        attacking = objectives.get(Role.ADVERSARIAL)
        if attacking is not None and attacking.keeps_clean and sampler.mixing.policy == "pair":
            raise ValueError(
                "mixing.policy: pair would count the clean loss of attacked rows twice: this objective already holds "
                "it. Set mixing.policy: replace."
            )
        if accelerator.gradient_accumulation_steps != 1:
            raise ValueError(
                f"Accelerator(gradient_accumulation_steps={accelerator.gradient_accumulation_steps}) would divide the "
                "gradient once more. Leave it out and set training.micro_batch_size."
            )
        sampler.check(settings.steps, accelerator.num_processes)
        ratios = (sampler.mixing.ratio(step) for step in range(sampler.mixing.warmup_steps, settings.steps))
        require_adversarial_rows(model, attacking is not None and any(ratio > 0 for ratio in ratios))
        self.accelerator, self.sampler, self.objectives = accelerator, sampler, objectives
        self.settings, self.score, self.folder = settings, score, Path(folder)
        optimizer = adamw(model, settings.learning_rate, settings.weight_decay)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.rate = LearningRate(settings.learning_rate, settings.steps, settings.warmup_ratio, settings.schedule)
        self.progress, self.course = Progress(), Course.of(model, settings)
        self.name, self.bar, self.memory, self.miner = name, bar, memory, miner
        self.average = None if averaging is None else Average(averaging)
        self.watch = None
        if guard is not None:
            self.watch = Watch(guard, self.model, self.optimizer.optimizer, self.average)
        self.kept, self.saved = KeptWeights(accelerator, self.folder / "weights"), 0
        self.resumable = Resumable(
            accelerator,
            self.model,
            self.optimizer.optimizer,
            self.average,
            self.watch,
            memory,
            self.kept,
            self.folder / "checkpoints",
            settings.keep_last,
            carried,
        )

    def run(self, resume: checkpoints.Checkpoint | None = None) -> Trained:
        """Trains, from the start or from a checkpoint, and leaves the model with the selected weights.

        Raises NonFiniteError or DeadAdversaryError; whatever was kept until then stays on disk. Where SIGTERM is heeded
        it ends the run after the step, with a checkpoint, by Interrupted.
        """
        with seeded_scope(self.settings.seed, DROPOUT, self.accelerator.process_index):
            if resume is not None:
                self.progress = self.resumable.restore(resume)
                self.saved = self.progress.step
            tracker = Tracker(
                self.folder,
                self.accelerator,
                name=self.name,
                total=self.settings.steps,
                bar=self.bar,
                start=self.progress.step,
            )
            self.resumable.rewind(tracker, resume)
            gate = LivenessGate(self.settings.liveness_window, self.progress.pulses)
            try:
                if self.watch is not None and not self.progress.probes:
                    self._look(tracker)
                with finishing():
                    while self.progress.step < self.settings.steps and self.progress.ended_with is None:
                        rows = rows_of(self.sampler, self.progress.step, self.settings, self.accelerator)
                        with self.course.explaining(self.model, rows, self.progress):
                            mine(self.miner, self.model, self.progress, tracker)
                            self._step(tracker, gate)
                        self._heed(tracker)
                    rows = rows_of(self.sampler, self.settings.steps - 1, self.settings, self.accelerator)
                    with self.course.explaining(self.model, rows, self.progress):
                        mine(self.miner, self.model, self.progress, tracker)
            finally:
                tracker.close()
        doubt = gate.doubt()
        self.progress.notes += [] if doubt is None else [doubt]
        return self._finish()

    def _heed(self, tracker: Tracker) -> None:
        """Ends the run where a process was told to end and the run can be resumed from here."""
        settings, step = self.settings, self.progress.step
        number = largest_of_all(asked(), self.accelerator)
        if not number or (step % settings.whole_every and step < settings.steps):
            return
        if settings.checkpoint_every is not None and self.saved < step:
            self._checkpoint(tracker)
        raise Interrupted(number, f"after step {step} of {settings.steps} of {self.name}")

    def _step(self, tracker: Tracker, gate: LivenessGate) -> None:
        began = time.perf_counter()
        settings, progress = self.settings, self.progress
        step = progress.step
        logged = step % settings.log_every == 0 or step == settings.steps - 1
        report = self._gradient(step, measure=logged)
        rate = self.rate(step) * SLOWER**progress.rollbacks
        norm = self._update(step, rate)
        self._agree()
        progress.step += 1
        if self.average is not None:
            self.average.take(self.model, progress.step)
        progress.forwards += int(report.forwards)
        progress.backwards += int(report.backwards)
        progress.adversarial_rows += report.adversarial_rows
        progress.seconds += time.perf_counter() - began
        tracker.advance()
        if logged:
            values, pulse = over_processes(report, self.sampler.batch_size)
            tracker.step(progress.step, values | {"norm": norm, "lr": rate})
            if pulse is not None:
                if self.sampler.mixing.radius(step) > 0:
                    gate.check(pulse, progress.step)
                progress.pulses = [list(past) for past in gate.recent]
        weights_of = progress.step
        if self.watch is not None and (progress.step == settings.steps or self.watch.due(progress.step)):
            weights_of = self._look(tracker)
        last = progress.step == settings.steps or progress.ended_with is not None
        if progress.ended_with is not None:
            # What was kept as the last has overfitted since: the run ends with what it was rolled back to.
            progress.best.pop("last", None)
        if last or progress.step % settings.evaluate_every == 0:
            self._evaluate(tracker, weights_of)
        every = settings.checkpoint_every
        if every is not None and (last or progress.step % every == 0):
            self._checkpoint(tracker)

    def _gradient(self, step: int, measure: bool) -> StepReport:
        """Fills every `.grad` for one optimizer step."""
        settings, world = self.settings, self.accelerator.num_processes
        self.model.train()
        self.optimizer.zero_grad()
        positions, groups = self.sampler.step(step, settings.micro_batch_size, world, self.accelerator.process_index)
        return accumulate(
            self.model,
            self.objectives,
            self.sampler.rows,
            positions,
            groups,
            Moment(step, self.sampler.mixing.radius(step), measure, step / settings.steps),
            processes=world,
            device=self.accelerator.device,
            backward=self.accelerator.backward,
        )

    def _update(self, step: int, rate: float) -> float:
        """Clips and steps; the gradient's norm before clipping. Raises NonFiniteError instead of stepping."""
        limit = math.inf if self.settings.clip_norm is None else self.settings.clip_norm
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), limit))
        scaler = self.accelerator.scaler
        if not math.isfinite(norm) and (scaler is None or scaler.get_scale() < LEAST_SCALE):
            # Clipping has spread what is not a number over all gradients.
            self._gradient(step, measure=False)
            first = odd_gradient(self.model)
            named = "" if first is None else f", first in {first}"
            raise NonFiniteError(f"The gradient norm is {norm} at step {step + 1}{named}. {NO_STEP}")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return norm

    def _agree(self) -> None:
        """Gives every process the batch norm statistics of the first one: each has only seen rows of its own."""
        if self.accelerator.num_processes == 1:
            return
        for module in bare(self.model).modules():
            for buffer in module.buffers() if isinstance(module, _BatchNorm) else ():
                distributed.broadcast(buffer, src=0)

    def _look(self, tracker: Tracker) -> int:
        """Lets the guard look; the step whose weights the model then has."""
        assert self.watch is not None
        radius = self.sampler.mixing.radius(max(self.progress.step - 1, 0))
        found = self.watch.look(self.progress, tracker, radius)
        if found != self.progress.step and self.memory is not None:
            self.memory.load({})
        return found

    def _evaluate(self, tracker: Tracker, step: int) -> None:
        """Scores the model, whose weights are those of `step`, and keeps them where they are the best so far."""
        progress = self.progress
        require_finite(self.model, self.progress.step)
        measured, collapsed = dict[str, float](), False
        with self._shown():
            if self.score is not None:
                clean, robust, collapsed, progress.doubt, meaning = self.score(self.model)
                measured = {"clean": clean} if robust is None else {"clean": clean, "robust": robust}
                note = "  averaged" if self.average is not None and self.average.taken else ""
                note += "  collapsed: no better than one constant answer, not eligible" if collapsed else ""
                note += f"  (clean: {meaning})" if meaning else ""
                tracker.evaluation(step, measured, note)
            entry = {"step": float(step), **measured}
            progress.history.append(entry)
            if collapsed:
                progress.notes.append(f"step {step}: the model answered no better than one constant class")
            better = improved(progress.best, entry, collapsed)
            self.kept.save(better, trainable_state(self.model) if better else {})
            progress.best |= dict.fromkeys(better, entry)

    def _shown(self) -> AbstractContextManager[None]:
        """The block in which the model has the weights that are scored and kept."""
        if self.average is None:
            return nullcontext()
        rows = partial(whole_batches, self.sampler, self.settings.micro_batch_size, self.settings.steps)
        return self.average.shown(self.model, rows)

    def _checkpoint(self, tracker: Tracker) -> None:
        require_finite(self.model, self.progress.step)
        take_time()
        self.resumable.save(self.progress, tracker.log())
        self.saved = self.progress.step

    def _finish(self) -> Trained:
        """Loads the selected weights; the last ones, with a note, where no checkpoint was eligible.

        The model is then out of mixed precision again: it computes what its exported copy does.
        """
        progress, hardening = self.progress, Role.ADVERSARIAL in self.objectives
        diverged = self.course.doubt(self.model)
        progress.notes += [] if diverged is None else [diverged]
        kind = selected(progress, self.settings.select, measured=self.score is not None, hardening=hardening)
        self.kept.require(progress.best)
        load_trainable_state(self.model, load_file(self.kept.path(kind)))
        without_autocast(self.model)
        weights = {kind: self.kept.path(kind) for kind in RANKING if kind in progress.best}
        return Trained(progress, kind, int(progress.best[kind]["step"]), weights)
