"""What lints look at: figures that others have measured or computed, of a run of journeyman or of another trainer.

None and empty mean that something is not known; no lint complains about what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from journeyman.models.sizes import Sizes
from journeyman.reasons import Reason
from journeyman.reasons.planning import TrialOutOfMemory


@dataclass(frozen=True)
class Recipe:
    """The settings of training.

    Attributes:
        rows_per_step: the effective batch.
        precision: float32, bfloat16 or float16, as it was chosen; "": not known.
        precision_asked: the user chose it; otherwise the trainer did.
        warmup_asked: the user chose the length of the warm-up, with a preset or a key.
        patience: validations without improvement after which training stops; None: it never does.
        checkpoint_steps: steps between checkpoints; None: none are written within the run.
        checkpoint_s: seconds between checkpoints, if that comes sooner; None: only steps count.
        validation_steps: steps between validations; None: not known.
        best_is_checkpoint: the best model is kept only if it was written as a checkpoint, as Hugging Face's Trainer
            does.
    """

    epochs: int
    rows_per_step: int
    learning_rate: float
    warmup_steps: int
    rank: int
    alpha: float
    targets: Sequence[str]
    precision: str = ""
    precision_asked: bool = False
    warmup_asked: bool = True
    patience: int | None = None
    checkpoint_steps: int | None = None
    checkpoint_s: float | None = None
    validation_steps: int | None = None
    best_is_checkpoint: bool = False


@dataclass(frozen=True)
class AdapterRun:
    """The training of one adapter.

    Attributes:
        validations: that it makes, the one at its end included; None: not known.
        general_rows: that are trained beside its rows.
    """

    rows: int
    steps_per_epoch: int
    steps: int
    validations: int | None = None
    general_rows: int = 0


@dataclass(frozen=True)
class RoleRows:
    """A role's rows.

    Attributes:
        effective_test: how many independent rows the test rows count as.
        too_long: rows that were dropped, or cut, because of curate.max_length.
        prompt_tokens, answer_tokens: of the training rows.
        over_limit: training answers that are longer than evaluate.max_new_tokens.
        longest_answer: of the training rows, in tokens.
    """

    train: int
    val: int = 0
    test: int | None = None
    effective_test: float = 0.0
    too_long: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    over_limit: int = 0
    longest_answer: int = 0


@dataclass(frozen=True)
class NamedModel:
    """A model that a part of the system names.

    Attributes:
        where: a setting, or what it is: "the logs".
        may_differ: it may well be of another family: a teacher, or a model that the tuned one is compared with.
    """

    where: str
    name: str
    may_differ: bool = False


@dataclass(frozen=True)
class WeightFile:
    """A file or folder with weights. `bits`: for each weight."""

    name: str
    bits: float


@dataclass(frozen=True)
class BaseFacts:
    """The base.

    Attributes:
        names: what it is called: by the config, by its file, by its header; the first one is shown.
        chat_template: the one of journeyman's templates that the user chose; "": the base's own, or a file.
        sizes: None: not known.
        file: what is trained on; None: not known.
    """

    names: Sequence[str]
    chat_template: str = ""
    sizes: Sizes | None = None
    file: WeightFile | None = None


@dataclass(frozen=True)
class Limits:
    """Lengths, in tokens.

    Attributes:
        longest_row: of all rows that are kept.
        cuts_rows: rows that are longer than max_length lose their oldest turns instead of being dropped.
    """

    max_length: int
    longest_row: int
    served_context: int
    max_new_tokens: int
    cuts_rows: bool = False


@dataclass(frozen=True)
class Machine:
    """Where training runs.

    Attributes:
        device: for a sentence: "the processor", or the GPU's name.
        fast_bfloat16: the device computes it natively.
        cores: that this process may use.
        threads: setting → threads that it asks for.
        busy: cores that other processes use.
        waiting, stolen, spread: while steps were tried, see reasons.machine.ContendedProcessors; None: not known.
    """

    device: str
    fast_bfloat16: bool
    cores: int
    threads: Mapping[str, int] = field(default_factory=dict)
    busy: float = 0.0
    waiting: float | None = None
    stolen: float | None = None
    spread: float | None = None


@dataclass(frozen=True)
class Disk:
    """What the run will write to a disk. `needs`: what → bytes at most; `free`: bytes."""

    place: str
    needs: Mapping[str, int]
    free: int

    @property
    def needed(self) -> int:
        return sum(self.needs.values())


@dataclass(frozen=True)
class Memory:
    """Whether training and serving fit.

    Attributes:
        misfit: why training does not; None: it does.
        served: the file that needs least of those that may ship.
        serve_gb: of the engine with it; None: not known, or this machine serves nothing.
        settings: "training" or "serving" → the nearest settings that fit, as on the command line.
        limit_gb: what training may use.
        measured_gb: what the steps that were tried needed, and `peak_gb`, what is expected of the whole run by that;
            None: not measured.
        trial: that no step could be tried, because memory ran out.
    """

    misfit: Reason | None
    served: str
    serve_gb: float | None
    serve_limit_gb: float
    context: int
    parallel: int
    settings: Mapping[str, str] = field(default_factory=dict)
    limit_gb: float = 0.0
    measured_gb: float | None = None
    peak_gb: float = 0.0
    trial: TrialOutOfMemory | None = None


@dataclass(frozen=True)
class Judging:
    """The rule for success. `role_confidence`: of each role's interval, `confidence`: of all together."""

    min_success: float
    confidence: float
    role_confidence: float


@dataclass(frozen=True)
class Facts:
    """Everything that lints look at.

    Attributes:
        runs: adapter → its training; "" if all roles share one.
        roles: role → its rows.
        held_out: the rows of validation and test, if only those of all roles together are known.
        other_roles: roles that the config names.
        models: that parts of the system name.
        served: files that may ship.
        train_s: estimated time of training, in seconds; None: not known.
        expected: figure → what the user expects; the names are those of plan.expect.
        figures: the same, computed.
    """

    recipe: Recipe
    runs: Mapping[str, AdapterRun]
    roles: Mapping[str, RoleRows]
    base: BaseFacts
    held_out: RoleRows | None = None
    judging: Judging | None = None
    limits: Limits | None = None
    machine: Machine | None = None
    disk: Disk | None = None
    memory: Memory | None = None
    other_roles: Sequence[str] = ()
    models: Sequence[NamedModel] = ()
    served: Sequence[WeightFile] = ()
    train_s: float | None = None
    expected: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def train_rows(self) -> int:
        return sum(one.train for one in self.roles.values())

    @property
    def val_rows(self) -> int:
        return sum(one.val for one in (self.held_out or RoleRows(0), *self.roles.values()))

    @property
    def effective_test_rows(self) -> float:
        return sum(one.effective_test for one in (self.held_out or RoleRows(0), *self.roles.values()))
