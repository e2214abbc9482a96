"""What reading and tokenizing cost, and a training step: beside PEFT's prefix tuning, and in bf16 with either attention."""

import contextlib
import json
import statistics
import time

import pytest
import torch

from ptv2lib.attention import attach, eager_where_faster
from ptv2lib.backbones import load_backbone, set_dropout
from ptv2lib.encoding import Layout
from ptv2lib.prefix import PrefixEncoder
from ptv2lib.tasks import load_task
from ptv2lib.training import choose_precision

LENGTH, ROWS, TEXT = 64, 16, 40


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count", "least"), [("sst2", 20_000, 15_000), ("squad", 4_000, 1_500)])
@pytest.mark.filterwarnings("ignore:.*has other numbers of rows")
def test_rows_read_and_tokenized_in_a_second(name, count, least, tmp_path):
    """Of the suite's sentences, and of its contexts joined to SQuAD's mean length of some 120 words; two cores."""
    rows = load_task(name, source="miniature").rows["train"]
    if name == "squad":
        longer = []
        for i, row in enumerate(rows):
            context = row["context"]
            while len(context.split()) < 120:
                i += 1
                context += " " + rows[i % len(rows)]["context"]
            longer.append(row | {"context": context})
        rows = longer
    folder = tmp_path / name
    folder.mkdir()
    for split in ("train", "validation"):
        lines = (rows[i % len(rows)] for i in range(count // 2))
        numbered = (row | {name: str(i) for name in ("id", "idx") if name in row} for i, row in enumerate(lines))
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbered))
    tokenizer = load_backbone("minilm").tokenizer
    started = time.perf_counter()
    task = load_task(name, dataset=folder)
    inputs = [task.family.encode(split, tokenizer, Layout(task.family.max_length)) for split in task.rows.values()]
    rate = count / (time.perf_counter() - started)
    assert sum(map(len, inputs)) == count
    print(f"{name}: {rate:,.0f} rows a second")
    assert rate >= least


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


@pytest.mark.slow
@pytest.mark.skipif(choose_precision() != "bf16" or torch.cuda.is_available(), reason="no CPU that computes in bf16")
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_single_steps_are_faster_than_the_fused_attention_in_bf16(dropout):
    encoder = load_backbone("minilm").encoder.requires_grad_(False).train()
    set_dropout(encoder, dropout)
    prefix = PrefixEncoder(attach(encoder), LENGTH, tuple(range(6)))
    ids = torch.randint(1000, 30000, (ROWS, TEXT))
    mask = torch.ones(ROWS, TEXT, dtype=torch.long)
    ways = {"fused": contextlib.nullcontext, "single steps": lambda: eager_where_faster([encoder], "bf16")}
    seconds = {way: [] for way in ways}
    for _ in range(20):
        for way in ways:
            started = time.perf_counter()
            with ways[way](), torch.autocast("cpu", torch.bfloat16):
                loss = prefix.encode(encoder, input_ids=ids, attention_mask=mask).float().square().mean()
            loss.backward()
            seconds[way].append(time.perf_counter() - started)
    fused, single = (statistics.median(times[5:]) for times in seconds.values())
    print(f"a step in bf16, dropout {dropout}: fused {fused:.4f} s, single steps {single:.4f} s, {single / fused:.2f}")
    assert single < fused
