"""A low-rank adapter on the linear layers of decoder blocks, by `peft`."""

from collections.abc import Collection, Mapping
from importlib import import_module

from torch import Tensor, nn

from voxadapt.core.problems import user_error


def add(
    blocks: nn.Module, rank: int, alpha: float, asked_by: str, without: Collection[str] = ()
) -> float:
    """Put the adapter in, in float32, as all that is trained of the blocks; return its scale.

    The change is `alpha / rank * B A` of the linear layers within the blocks, but for those named
    in `without`; `asked_by` is the parameter that asks for it, for the message.

    Raises:
        UserError: When `peft` is not installed.
    """
    import_module("torch.distributed.tensor")  # peft takes it for imported

    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
    except ImportError:
        raise user_error("training.no_peft", asked_by) from None
    targets = [name for name, part in blocks.named_modules()
               if isinstance(part, nn.Linear) and name not in without]  # fmt: skip
    if not targets:
        return alpha / rank
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0  # type: ignore[arg-type]
    )  # fmt: skip
    inject_adapter_in_model(config, blocks)
    for part in blocks.modules():
        if isinstance(part, LoraLayer):
            part.cast_input_dtype_enabled = False  # autocast does it, without a float32 copy
    for name, parameter in blocks.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return alpha / rank


def changed(
    trained: Mapping[str, Tensor], name: str, weight: Tensor, scale: float
) -> Tensor | None:
    """Return what an adapter makes of a tensor of the Base, float32; None where it has no part."""
    stem = name.removesuffix(".weight")
    a, b = (trained.get(f"{stem}.lora_{factor}.default.weight") for factor in "AB")
    if a is None or b is None:
        return None
    return weight.float() + scale * (b.detach().cpu() @ a.detach().cpu())


def factors(trained: Mapping[str, nn.Parameter]) -> dict[str, tuple[Tensor, Tensor]]:
    """Pair the factors `[r, in]` and `[out, r]` of an adapter by the tensor that they change."""
    found = {}
    for name, parameter in trained.items():
        if ".lora_A." in name:
            other = trained[name.replace(".lora_A.", ".lora_B.")]
            target = name.split(".lora_A.")[0] + ".weight"
            found[target] = (parameter.detach().cpu(), other.detach().cpu())
    return found
