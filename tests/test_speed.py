"""A training step with deep prompts costs no more than with PEFT's prefix tuning."""

import statistics
import time

import pytest
import torch

from ptv2lib.attention import attach
from ptv2lib.backbones import load_backbone, set_dropout
from ptv2lib.prefix import PrefixEncoder

LENGTH, ROWS, TEXT = 64, 16, 40


def frozen():
    encoder = load_backbone("minilm").encoder.requires_grad_(False)
    set_dropout(encoder, 0.1)
    return encoder.train()


@pytest.mark.slow
def test_a_step_takes_at_most_1_02_of_pefts():
    from peft import PrefixTuningConfig, get_peft_model

    own = frozen()
    prefix = PrefixEncoder(attach(own), LENGTH, tuple(range(6)), position_offset="shift")
    peft = get_peft_model(
        frozen(),
        PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=LENGTH, prefix_projection=False),
    ).train()
    batch = {
        "input_ids": torch.randint(1000, 30000, (ROWS, TEXT)),
        "attention_mask": torch.ones(ROWS, TEXT, dtype=torch.long),
    }
    runs = {
        "own": (lambda: prefix.encode(own, **batch), list(prefix.parameters())),
        "peft": (lambda: peft(**batch)[0], [p for p in peft.parameters() if p.requires_grad]),
    }
    assert sum(p.numel() for p in runs["own"][1]) == sum(p.numel() for p in runs["peft"][1])
    optimizers = {name: torch.optim.AdamW(weights, lr=1e-2) for name, (_, weights) in runs.items()}
    seconds = {name: [] for name in runs}
    for step in range(45):
        for name, (forward, _) in runs.items():
            started = time.perf_counter()
            forward().square().mean().backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            if step >= 5:
                seconds[name].append(time.perf_counter() - started)
    ratio = statistics.median(seconds["own"]) / statistics.median(seconds["peft"])
    print(
        f"a step: own {statistics.median(seconds['own']):.4f} s, PEFT {statistics.median(seconds['peft']):.4f} s, {ratio:.3f}"
    )
    assert ratio <= 1.02
