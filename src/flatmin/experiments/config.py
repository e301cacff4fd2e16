"""What one training run is, and how ``--set field=value`` changes it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flatmin.experiments.errors import BadInput, shown, unknown
from flatmin.experiments.tasks import check_task

Record = TypeVar("Record", bound=BaseModel)

#: Largest number and most digits of a setting; more is a mistake and may overflow.
_LARGEST, _DIGITS = 1e30, 18

#: Runs of each arm, at most.
MOST_SEEDS = 10_000

#: Deepest nesting of lists and objects in a setting.
_DEEPEST = 8
_NESTED = f"lists and objects are at most {_DEEPEST} deep"

#: Augmentations in the order in which they are applied, which is that of the SAM code.
AUGMENTATIONS = (
    "random_resized_crop",
    "auto_augment",
    "rand_augment",
    "flip",
    "crop",
    "cutout",
)

Augmentation = Literal[
    "random_resized_crop", "auto_augment", "rand_augment", "flip", "crop", "cutout"
]

#: Methods that choose among the examples of a pass, and so have to see all at once.
_CHOOSING = ("k_sam", "esam")

#: Methods that call backward themselves, which excludes Fabric's mixed precision.
_DIFFERENTIATING = (*_CHOOSING, "second_order_sam")

#: Methods that no experiment can use, and what they need.
_ELSEWHERE = {
    "part_sam": "a loss of two parts",
    "flat_lora": "a network with LoRA layers",
}

#: The paper's "Basic", "Cutout" and "AA".
BASIC: tuple[Augmentation, ...] = ("flip", "crop")
CUTOUT: tuple[Augmentation, ...] = (*BASIC, "cutout")
AUTO_AUGMENT: tuple[Augmentation, ...] = ("auto_augment", *BASIC, "cutout")


class Experiment(BaseModel):
    """Everything that decides the numbers of one training run.

    Attributes:
        data: name of a data set (``flatmin.experiments.datasets.SETS``), or the path
            of an image folder.
        horizon: steps of a series that are forecast; None to classify images.
        lookback: steps before these that the network sees.
        tokens: word pieces of a sentence that the network reads, at most; None to
            classify images.
        image_size: side to which images are resized, in pixels; None for the data
            set's own, or the one with which timm trained a pretrained network.
        train_examples: how many of the training images are used, drawn with a fixed
            seed; None for all.
        validation: share of the training images that is held out and takes the place
            of the test set, as in the search for rho; 0 for none. A series, and an
            image folder with validation images, use their own part instead.
        noisy_validation: whether these images get ``noise`` too; each seed then holds
            out other images.
        noise: share of the training labels that are drawn anew.
        true_class: whether such a label can be the right one.
        bootstrap: train twice, the second time on the labels that the network of the
            first time predicts.
        augment: changes of the training images, applied in the SAM code's order.
        mixup: alpha of mixup; None for none.
        model: name of a network, see ``flatmin.experiments.models.build``.
        model_options: for the function that builds it.
        weights: initial weights: ``"none"`` to start from scratch, or a
            ``.safetensors`` or ``.pth`` file; None takes timm's pretrained weights, and
            starts other networks from scratch.
        channels_last: whether to store convolutions with the channels last, which
            makes most networks of images faster.
        freeze_norm: whether BatchNorm keeps the statistics it came with.
        method: ``"sgd"`` for the base optimizer alone, or one of ``flatmin methods``.
        method_options: for the function that makes the method; rho is a field.
        rho: radius of the perturbation. 0.05 is the paper's advice.
        m: examples that share one perturbation, and the statistics of BatchNorm; None
            for the whole batch of a process. The paper's 256 examples on 8 accelerators
            are ``m=32``.
        optimizer: the base optimizer.
        lr: learning rate at the start of the cosine schedule.
        momentum: of SGD.
        nesterov: whether SGD looks ahead.
        weight_decay: of the base optimizer; no part of the perturbation.
        warmup: epochs in which the learning rate rises linearly from 0.
        clip: largest norm of the descent gradient; None for any.
        label_smoothing: of the training loss.
        ema: decay of an average of the weights, which is tested in their place; None
            for none.
        batch_size: examples per step, of all processes together.
        accumulate: parts in which a process takes its ``m`` examples, to save memory.
            Without BatchNorm nothing else changes.
        epochs: passes over the training set.
        length: multiplies ``epochs``; the paper gives SGD twice the epochs of SAM.
        steps: how long training lasts, in place of ``epochs``; ``length`` multiplies
            it too.
        seed: of the initial weights, the order, the augmentation and the noise.
        precision: of the passes, as Lightning Fabric calls it.
        device: where to train.
        strategy: how several processes share the work; started by torchrun.
        evaluate_every: epochs between two tests.
        spectrum_at: epochs after which the Hessian's largest eigenvalues are measured.
        flatness_rho: radius at which sharpness is measured after training; None for
            no measurement.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    data: str = "cifar10"
    horizon: int | None = Field(default=None, ge=1, le=100_000)
    lookback: int = Field(default=512, ge=1, le=100_000)
    tokens: int | None = Field(default=None, ge=2, le=512)
    image_size: int | None = Field(default=None, ge=8, le=1024)
    train_examples: int | None = Field(default=None, ge=1, le=1_000_000_000)
    validation: float = Field(default=0.0, ge=0, lt=1)
    noisy_validation: bool = False
    noise: float = Field(default=0.0, ge=0, lt=1)
    true_class: bool = False
    bootstrap: bool = False
    augment: tuple[Augmentation, ...] = BASIC
    mixup: float | None = Field(default=None, gt=0, le=_LARGEST)
    model: str = "wrn-28-10"
    model_options: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    channels_last: bool = False
    freeze_norm: bool = False
    method: str = "sam"
    method_options: dict[str, Any] = Field(default_factory=dict)
    rho: float = Field(default=0.05, ge=0, le=_LARGEST)
    m: int | None = Field(default=None, ge=1, le=1_000_000)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0, le=_LARGEST)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=5e-4, ge=0, le=_LARGEST)
    warmup: float = Field(default=0.0, ge=0, le=_LARGEST)
    clip: float | None = Field(default=None, gt=0, le=_LARGEST)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    ema: float | None = Field(default=None, gt=0, lt=1)
    batch_size: int = Field(default=256, ge=1, le=1_000_000)
    accumulate: int = Field(default=1, ge=1, le=1_000_000)
    epochs: int = Field(default=200, ge=1, le=1_000_000)
    length: int = Field(default=1, ge=1, le=1_000)
    steps: int | None = Field(default=None, ge=1, le=1_000_000_000)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true"] = (
        "32-true"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    evaluate_every: int = Field(default=1, ge=1, le=1_000_000)
    spectrum_at: tuple[int, ...] = ()
    flatness_rho: float | None = Field(default=0.05, gt=0, le=_LARGEST)

    def model_post_init(self, context: Any, /) -> None:
        """Refuse what cannot be trained.

        Raises:
            ValueError: there is no such method, it or the task excludes another
                setting, an augmentation comes twice, groups do not fill the batch, or a
                spectrum is asked for after the last epoch.
        """
        del context
        from flatmin.methods import METHODS, RENAMED

        if self.method not in ("sgd", *METHODS, *RENAMED):
            raise ValueError(unknown("method", self.method, ("sgd", *METHODS)))
        if self.method in _ELSEWHERE:
            raise ValueError(
                f"method {self.method} needs {_ELSEWHERE[self.method]}, which no "
                "experiment has; write the loop yourself"
            )
        if self.method in _CHOOSING and self.accumulate > 1:
            raise ValueError(
                f"method {self.method} chooses among the examples of a pass, which "
                f"accumulate={self.accumulate} would cut"
            )
        if self.method in _DIFFERENTIATING and self.precision.endswith("-mixed"):
            raise ValueError(
                f"method {self.method} differentiates by itself, which precision "
                f"{self.precision} excludes"
            )
        if self.optimizer == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0; use nesterov=false")
        if self.channels_last and self.strategy == "fsdp":
            raise ValueError(
                "strategy fsdp shards weights that are contiguous; use "
                "channels_last=false"
            )
        check_task(self)
        if len(set(self.augment)) < len(self.augment):
            raise ValueError(f"augment names one twice: {', '.join(self.augment)}")
        if self.m is not None and self.batch_size % self.m:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of m {self.m}"
            )
        last = self.epochs * self.length
        if self.steps is None and any(not 1 <= at <= last for at in self.spectrum_at):
            raise ValueError(
                f"spectrum_at {self.spectrum_at} is not within the {last} epochs"
            )

    def steps_in_all(self, steps_per_epoch: int) -> int:
        """Steps of the whole run."""
        if self.steps is not None:
            return self.steps * self.length
        return self.epochs * self.length * steps_per_epoch


#: The names that ``--set`` knows: the fields of an experiment, and ``seeds``.
FIELDS = (*Experiment.model_fields, "seeds")

#: Those that can be set; a recipe sets the seed and the length of its runs itself.
SETTABLE = tuple(name for name in FIELDS if name not in ("seed", "length"))


def parsed(settings: Iterable[str], fields: Collection[str]) -> dict[str, Any]:
    """Return the values of ``field=value`` settings: JSON, or else plain text.

    Raises:
        BadInput: a setting has no ``=`` or no value, its field is none of ``fields`` or
            was set before, or its value is no number that can be used.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise BadInput(f"--set needs FIELD=VALUE, got {shown(setting)}.")
        if name not in fields:
            raise BadInput(unknown("field", name, fields))
        if name in values:
            raise BadInput(f"{name} is set twice. Use --set {name}=VALUE once.")
        if not text.strip():
            raise BadInput(f"{name} has no value. Use --set {name}=VALUE.")
        try:
            values[name] = _value(text)
        except (BadInput, RecursionError) as refused:
            reason = str(refused) if isinstance(refused, BadInput) else _NESTED
            raise BadInput(f"{name}: {reason}, got {shown(text)}.") from None
    return values


def validated(kind: type[Record], values: dict[str, Any]) -> Record:
    """Build a record of these values.

    Raises:
        BadInput: a value is refused; the message names the field.
    """
    try:
        built = kind.model_validate(values)
    except ValidationError as refused:
        error = refused.errors()[0]
        field = ".".join(str(part) for part in error["loc"]) or "configuration"
        message = error["msg"].removeprefix("Value error, ")
        given = f", got {shown(error['input'])}" if error["loc"] else ""
        raise BadInput(f"{field}: {message}{given}.") from None
    for name, value in values.items():
        # pydantic takes true for 1.
        if _has_truth(value) and not _has_truth(getattr(built, name)):
            raise BadInput(f"{name}: Input should be a number, got {shown(value)}.")
    return built


def _has_truth(value: Any) -> bool:
    """Whether this is, or lists, true or false."""
    if isinstance(value, list | tuple):
        return any(map(_has_truth, value))
    return isinstance(value, bool)


def _value(text: str) -> Any:
    try:
        value = json.loads(
            text, parse_int=_whole, parse_float=_real, parse_constant=_constant
        )
    except json.JSONDecodeError:
        return text
    if _depth(value) > _DEEPEST:
        raise BadInput(_NESTED)
    return value


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise BadInput(f"a whole number has at most {_DIGITS} digits")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits) + 0.0  # -0.0 + 0.0 is 0.0
    if math.isinf(number):
        raise BadInput("a number is finite")
    return number


def _constant(name: str) -> float:
    if name == "NaN":
        raise BadInput("a number is finite")
    return float(name)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0
