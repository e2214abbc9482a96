"""Nothing of prompts is felt without one: fine-tuning equals a plain transformers loop, loss for loss."""

import pytest
import torch
import transformers as tf
from test_tasks import SENTENCES, TAGGED, folder

import ptv2lib as pt
from ptv2lib.backbones import load_backbone

RATE, EPOCHS, SEED = 1e-3, 3, 5


def watched(model):
    """Lists that fill while the model trains: its batches and its losses."""
    batches, losses = [], []
    forward, loss = model.forward, model.head.loss

    def see(**batch):
        if model.training:
            batches.append(batch)
        return forward(**batch)

    def note(logits, labels):
        value = loss(logits, labels)
        batches[-1]["labels"] = labels
        losses.append(value.item())
        return value

    model.forward, model.head.loss = see, note
    return batches, losses


def plain(kind, model, dropout):
    """A model of transformers' own class, with the weights this one starts from."""
    config = tf.BertConfig(
        **(model.backbone.config.to_dict() | {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}),
        num_labels=len(model.family.labels),
    )
    config._attn_implementation = "sdpa"
    one = kind(config)
    one.bert.load_state_dict(model.backbone.state_dict())
    one.classifier.load_state_dict(model.head.linear.state_dict())
    return one.train()


SCHEDULES = {
    "linear": tf.get_linear_schedule_with_warmup,
    "cosine": tf.get_cosine_schedule_with_warmup,
    "constant_with_warmup": lambda optimizer, warmup, _: tf.get_constant_schedule_with_warmup(optimizer, warmup),
}


@pytest.mark.parametrize(
    ("dropout", "schedule", "decay"),
    [(0.0, "linear", 0.0), (0.1, "linear", 0.0), (0.0, "cosine", 0.1), (0.0, "constant_with_warmup", 0.1)],
)
@pytest.mark.parametrize(
    ("name", "rows", "kind"),
    [
        ("sst2", SENTENCES, tf.BertForSequenceClassification),
        ("wikiann", TAGGED * 5, tf.BertForTokenClassification),
    ],
)
def test_fine_tuning_is_a_plain_loop(name, rows, kind, dropout, schedule, decay, tmp_path):
    task = pt.load_task(name, dataset=folder(tmp_path, train=rows, validation=rows[:8], test=rows[:6]))
    pooler = {"pooling": "pooler"} if name == "sst2" else {}
    model = pt.build_model(
        task,
        backbone=load_backbone("tiny", pooler=bool(pooler)),
        method="ft",
        backbone_dropout=dropout,
        head_dropout=dropout,
        **pooler,
    )
    other = plain(kind, model, dropout)
    batches, losses = watched(model)
    config = pt.TrainingConfig(
        learning_rate=RATE,
        epochs=EPOCHS,
        batch_size=8,
        precision="fp32",
        seed=SEED,
        schedule=schedule,
        weight_decay=decay,
    )
    pt.train(model, task, config, progress=False)
    assert len(losses) == len(batches) >= 2 * EPOCHS

    tf.set_seed(SEED)
    optimizer = torch.optim.AdamW(other.parameters(), lr=RATE, weight_decay=decay)
    rates = SCHEDULES[schedule](optimizer, round(0.06 * len(batches)), len(batches))
    for batch, wanted in zip(batches, losses, strict=True):
        loss = other(**batch).loss
        assert loss.item() == pytest.approx(wanted, rel=1e-6)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
