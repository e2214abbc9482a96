"""What of the encoder itself is trained: nothing, everything, its biases (BitFit), or low-rank matrices beside it (LoRA)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .attention import family_of
from .errors import BadOption
from .memory import check_fits
from .randomness import seeded


@contextmanager
def low_rank(encoder: nn.Module, rank: int, seed: int) -> Iterator[None]:
    """Put LoRA's matrices beside every linear layer inside the attention modules, in place (Hu et al., 2022).

    PEFT does it. The second matrix starts at zero, so at first nothing changes; scaling is 2, PEFT's alpha twice the rank.
    If what follows fails, the encoder is as it was.

    Args:
        encoder: the encoder; its own weights stay.
        rank: of the matrices.
        seed: of the first matrix.

    Raises:
        BadOption: without PEFT, with one that cannot do it, on an encoder that has such matrices already, or for a rank
            that does not fit into memory.
    """
    if any(".lora_" in name for name, _ in encoder.named_parameters()):
        raise BadOption("This encoder has LoRA's matrices already; load the backbone anew.")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise BadOption("The method 'lora' needs PEFT 0.20 or newer: pip install 'ptv2lib[compare]'.") from None
    kind = family_of(encoder).attention
    found = {
        f"{name}.{inner}": part
        for name, module in encoder.named_modules()
        if type(module).__name__ == kind
        for inner, part in module.named_modules()
        if isinstance(part, nn.Linear)
    }
    noted = hasattr(encoder, "peft_config")
    check_fits(rank * sum(sum(part.weight.shape) for part in found.values()), f"lora_rank={rank}")
    try:
        with seeded(seed):
            inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=[*found]), encoder)
        yield
    except BaseException:
        for name, part in found.items():
            encoder.set_submodule(name, part)
        if not noted and hasattr(encoder, "peft_config"):  # PEFT's note that the encoder has adapters
            del encoder.peft_config
        raise


def is_open(name: str, trains: str) -> bool:
    """Whether a method that trains this much of the encoder trains its weight of this name (`methods.Method.trains`)."""
    return (
        trains == "everything"
        or (trains == "biases" and name.endswith("bias"))
        or (trains == "adapters" and ".lora_" in name)
    )


def open_weights(encoder: nn.Module, trains: str) -> None:
    """Let the gradient reach those of the encoder's weights that a method trains (`methods.Method.trains`).

    Raises:
        BadOption: if there are none, as in an encoder without biases.
    """
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(is_open(name, trains))
    if trains != "nothing" and not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise BadOption(f"{family_of(encoder).name} has no {trains} to train.")
