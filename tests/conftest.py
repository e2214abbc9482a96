"""Tiny random encoders of every family, built from their configs: nothing is downloaded. And the built site."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as tf

SIZE = {"vocab_size": 120, "max_position_embeddings": 80, "pad_token_id": 0}
BERT_LIKE = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
DISTIL = {"dim": 24, "n_layers": 3, "n_heads": 4, "hidden_dim": 40}


def build(kind: str, implementation: str = "sdpa") -> torch.nn.Module:
    """A random encoder of one family, in evaluation mode, the same at every call."""
    classes = {
        "bert": (tf.BertConfig, tf.BertModel, BERT_LIKE),
        "roberta": (tf.RobertaConfig, tf.RobertaModel, BERT_LIKE | {"pad_token_id": 1}),
        "xlm-roberta": (tf.XLMRobertaConfig, tf.XLMRobertaModel, BERT_LIKE | {"pad_token_id": 1}),
        "electra": (tf.ElectraConfig, tf.ElectraModel, BERT_LIKE | {"embedding_size": 16}),
        "distilbert": (tf.DistilBertConfig, tf.DistilBertModel, DISTIL),
    }
    config_class, model_class, sizes = classes[kind]
    config = config_class(**(SIZE | sizes), attn_implementation=implementation)
    extra = {"add_pooling_layer": False} if kind in ("bert", "roberta", "xlm-roberta") else {}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return model_class(config, **extra).eval()


def padded(kind: str, lengths: list[int], width: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random ids of the given lengths, padded on the right to `width`."""
    pad = 1 if "roberta" in kind else 0
    draw = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), width), pad)
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, 120, (length,), generator=draw)
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(params=["bert", "roberta", "xlm-roberta", "electra", "distilbert"])
def kind(request):
    return request.param


@pytest.fixture(scope="session")
def tiny():
    """The `tiny` backbone, loaded anew for every use by those who change it."""
    from ptv2lib.backbones import load_backbone

    return lambda: load_backbone("tiny")


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The folder of the site's HTML files, built from the stored outputs; any warning fails the build."""
    root = Path(__file__).parent.parent
    folder = tmp_path_factory.mktemp("site")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", root, "--toc", root / "book/_toc.yml"]
    command += ["--path-output", folder, "-W", "-n", "--keep-going"]
    run = subprocess.run(command, env=os.environ | {"EXECUTE": "off"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-1000:] + run.stderr[-4000:]
    return folder / "_build/html"
