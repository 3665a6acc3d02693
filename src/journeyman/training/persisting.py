"""Trains to the end, also if machines are lost on the way."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from journeyman.errors import WorkerDied
from journeyman.protocols import Reporter
from journeyman.training.backends import Backend
from journeyman.training.checkpoint import TrainingState
from journeyman.training.engine import WorkersLost
from journeyman.training.loop import Trainer, TrainingJob

_LOSSES = 5


def train_to_the_end(backend: Backend, job: TrainingJob, reporter: Reporter) -> tuple[Trainer, TrainingState]:
    """Runs a Trainer. Each time that machines are lost, another one goes on from the last checkpoint.

    Raises (and what Trainer.run raises):
        WorkerDied: machines were lost several times before training got further than it was.
    """
    furthest, losses = -1, 0
    while True:
        step = 0
        try:
            with closing(backend.engine()) as engine:
                tokens = job.group_tokens
                if backend.machines > 1:  # so that each of them gets as many as the plan gives to one
                    tokens = max(job.group_tokens, job.pack_tokens) * backend.machines
                trainer = Trainer(replace(job, group_tokens=tokens), engine, reporter)
                try:
                    return trainer, trainer.run()
                finally:
                    step = trainer.state.step
        except WorkersLost as error:
            losses = 1 if step > furthest else losses + 1
            furthest = max(furthest, step)
            if losses == _LOSSES:
                raise WorkerDied(
                    f"{error.what}, for the {losses}th time before it got beyond step {furthest}", error.remedy
                ) from error
            reporter.say(f"{error.what}, after step {step}: training goes on from the last checkpoint")
