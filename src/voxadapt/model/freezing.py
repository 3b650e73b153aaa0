"""Which parts of the model are trained, by module prefix."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from voxadapt.core.errors import raise_problems
from voxadapt.core.problems import problem, user_error

#: Parts of the model that reports list one by one.
MODULES = (
    "talker.model.text_embedding", "talker.model.codec_embedding", "talker.model.layers",
    "talker.model.norm", "talker.text_projection", "talker.codec_head", "talker.code_predictor",
    "speaker_encoder",
)  # fmt: skip


@dataclass(frozen=True)
class ModuleCount:
    """Parameters of one part of the model."""

    module: str
    num_params: int
    num_trainable: int


def module_of(name: str) -> str:
    """Return the part of the model that a parameter belongs to."""
    for module in MODULES:
        if name == module or name.startswith(module + "."):
            return module
    return "other"


def freeze(model: nn.Module, prefixes: Iterable[str]) -> tuple[ModuleCount, ...]:
    """Freeze the parameters under the given prefixes and make all others trainable.

    Prefixes are dotted, such as `speaker_encoder`. Counts are returned for each part of the model
    that has parameters, in the order of `MODULES`.

    Raises:
        UserError: For each prefix that names nothing, or when nothing is left to train.
    """
    prefixes = tuple(prefixes)
    names = [name for name, _ in model.named_parameters()]
    problems = [
        problem("model.no_module", "train.frozen", known=", ".join(MODULES), prefix=prefix)
        for prefix in prefixes
        if not any(under(name, prefix) for name in names)
    ]
    raise_problems(problems, "The model cannot be frozen as asked.")
    sizes, trained = {}, {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(under(name, prefix) for prefix in prefixes))
        sizes[name] = parameter.numel()
        if parameter.requires_grad:
            trained[name] = parameter.numel()
    if not trained:
        raise user_error("model.all_frozen", "train.frozen")
    return module_counts(sizes, trained)


def module_counts(sizes: Mapping[str, int], trained: Mapping[str, int]) -> tuple[ModuleCount, ...]:
    """Sum parameters of the Base, and trained ones, part by part, in the order of `MODULES`.

    Trained parameters that the Base does not have count as well.
    """
    totals: dict[str, list[int]] = {}
    for column, named in enumerate((sizes, trained)):
        for name, size in named.items():
            totals.setdefault(module_of(name), [0, 0])[column] += size
    return tuple(ModuleCount(m, *totals[m]) for m in (*MODULES, "other") if m in totals)


def under(name: str, prefix: str) -> bool:
    """Tell whether a name is a prefix of modules, or below it."""
    return name == prefix or name.startswith(prefix + ".")
