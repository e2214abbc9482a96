"""Trains the masked-LM form of the starter encoder, `minilm-mlm`, and writes what the library ships of it.

    python book/train_masked_lm.py train --text DIR --work WORK --run long --opening top --steps 4000
    python book/train_masked_lm.py export --work WORK --run long --sst2 DIR
    python book/train_masked_lm.py zeroshot --sst2 DIR

`train` reads `wikipedia.txt.gz` and `imdb_unlabelled.jsonl.gz` in `--text`, cuts them into chunks (once, kept in `WORK`) and
trains. Cut off and run again, it goes on from its last checkpoint and ends with the same weights. `export` writes the weights
that were opened, the figures and the card's tables to `ptv2lib/starter/`. A longer run may start from a shipped file:
`train --start ptv2lib/starter/minilm_mlm.safetensors --seed 1 …`. One thread is enough (`OMP_NUM_THREADS=1`). On a processor
that computes in bf16, `--precision bf16` takes a third of the time. With
`MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592` in the environment it takes some 5 % less again.

The file holds only what was trained, in float16, under the names of transformers' `BertForMaskedLM`: the head (`cls.…`) whole,
an encoder weight as its difference to the starter (`delta.<name>`) or as a low-rank pair (`<name>.up`, `<name>.down`). The
decoder is the starter's word embeddings, which stay as they are. `ptv2lib.backbones.with_changes` puts such a file on a starter.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as array_bytes
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from ptv2lib.backbones import STARTER_FILES, Backbone, load_backbone, with_changes
from ptv2lib.errors import BadOption, DataError, PtvError, unknown
from ptv2lib.files import writable_folder, write_json, write_whole

SHIPPED = Path(__file__).parent.parent / "ptv2lib" / "starter" / "minilm_mlm.safetensors"
FORMAT = "ptv2lib masked LM 1"
SOURCES = ("imdb", "wikipedia")
MASK_HELD_OUT = 0.15
SHORTEST = 8  # pieces of a chunk worth training on


# What is opened, and the form in which it is shipped


@dataclass(frozen=True)
class Opening:
    """Which of the encoder's weights are trained beside the head.

    Attributes:
        whole: the layers trained whole, counted from the top.
        rank: of the low-rank pairs at the linear layers of all others; 0 for none.
        small: whether the biases and layer norms of the others, and of the embeddings, are trained.
    """

    whole: int = 0
    rank: int = 0
    small: bool = False


OPENINGS = {
    "head": Opening(),
    "top": Opening(whole=2),
    "top-norms": Opening(whole=2, small=True),
    "top-rank8": Opening(whole=2, rank=8, small=True),
    "rank32": Opening(rank=32, small=True),
    "rank80": Opening(rank=80, small=True),
}


class LowRankLinear(nn.Module):
    """A frozen linear layer plus a trainable low-rank pair: `x (W + up @ down)^T + b`.

    Source: Hu et al. (2021), "LoRA", section 4.1, without its scale: the learning rate does that work.
    """

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / math.sqrt(linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Vectors `[..., in]` to `[..., out]`."""
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.down), self.up)


def starter_state(encoder: nn.Module) -> dict[str, Tensor]:
    """Copies of the starter's weights under the names of `BertForMaskedLM`."""
    return {f"bert.{name}": tensor.detach().clone() for name, tensor in encoder.state_dict().items()}


def masked_lm(encoder: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build the masked LM of a starter encoder and shipped tensors, frozen; a head that is not among them is random."""
    from transformers import BertForMaskedLM

    model = BertForMaskedLM(encoder.config)
    found = model.load_state_dict(with_changes(starter_state(encoder), tensors), strict=False)
    missing = [name for name in found.missing_keys if not name.startswith("cls.")]
    if missing or found.unexpected_keys:
        raise DataError(f"The weights do not fit the encoder; look at {[*missing, *found.unexpected_keys][0]!r}.")
    model.tie_weights()
    return model.eval().requires_grad_(False)


def open_weights(model: nn.Module, opening: Opening) -> None:
    """Let the head and what `opening` names learn; low-rank pairs start as zero, so the model computes what it did."""
    layers = model.bert.encoder.layer
    first_whole = len(layers) - opening.whole
    if first_whole < 0:
        raise BadOption(f"The opening wants {opening.whole} layers, and the encoder has {len(layers)}.")
    for name, module in model.cls.named_modules():
        if name != "predictions.decoder":  # it is the word embeddings
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)
    layers[first_whole:].requires_grad_(True)
    if opening.small:
        lower = [*model.bert.embeddings.named_parameters(), *layers[:first_whole].named_parameters()]
        for name, parameter in lower:
            parameter.requires_grad_(name.endswith("bias") or "LayerNorm" in name)
    if opening.rank:
        for layer in layers[:first_whole]:
            linears = [name for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
            for name in linears:
                parent, _, child = name.rpartition(".")
                owner = layer.get_submodule(parent)
                setattr(owner, child, LowRankLinear(getattr(owner, child), opening.rank))


def opened(model: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def shipped_name(name: str) -> str:
    """The name in the shipped file of a trained parameter."""
    if name.startswith("cls."):
        return name
    module, _, kind = name.rpartition(".")
    return f"{module}.weight.{kind}" if kind in ("up", "down") else f"delta.{name}"


def shipped_tensors(model: nn.Module, starter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was trained, as it is shipped: float16, an encoder's weight as its difference to the starter."""
    tensors = {}
    for name, parameter in opened(model).items():
        key = shipped_name(name)
        value = parameter.detach() - starter[name] if key.startswith("delta.") else parameter.detach()
        tensors[key] = value.to(torch.float16).contiguous()
    return tensors


def take_shipped(model: nn.Module, starter: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Set what is trained to a shipped file's values.

    Raises:
        BadOption: if the file holds other weights than those opened here.
    """
    parameters = {shipped_name(name): (name, parameter) for name, parameter in opened(model).items()}
    if parameters.keys() != tensors.keys():
        raise BadOption("--start needs a file trained with the same --opening, and this one holds other weights.")
    with torch.no_grad():
        for key, (name, parameter) in parameters.items():
            value = tensors[key].float()
            parameter.copy_(starter[name] + value if key.startswith("delta.") else value)


# The text


def read_reviews(path: Path) -> list[str]:
    """The reviews, a document each, line breaks as blanks."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [re.sub(r"<br\s*/?>", " ", json.loads(line)["text"]) for line in lines if line.strip()]


def read_wikipedia(path: Path) -> list[str]:
    """The prose of each section, a document each: headings, lists and tables are left out."""
    sections: list[list[str]] = [[]]
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in map(str.strip, lines):
            if line.startswith("Section::::") or line == line.upper():
                sections.append([])
            elif line.endswith((".", "!", "?", '."')) and line[0] not in "*!|" and len(line.split()) >= 8:
                sections[-1].append(line)
    return [" ".join(section) for section in sections if section]


READERS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "imdb": ("imdb_unlabelled.jsonl.gz", read_reviews),
    "wikipedia": ("wikipedia.txt.gz", read_wikipedia),
}
SENTENCE_END = re.compile(r"""(?<=[.!?])["')\]]*\s+(?=["'(\[]?[A-Z0-9])""")


def sentences_of(document: str) -> list[str]:
    """Split after a mark that ends a sentence, where a capital or a digit follows."""
    found, start = [], 0
    for end in SENTENCE_END.finditer(document):
        found.append(document[start : end.end()].strip())
        start = end.end()
    return [sentence for sentence in [*found, document[start:].strip()] if sentence]


def chunks_of(sentences: Iterable[list[int]], room: int) -> Iterator[list[int]]:
    """As many whole sentences as fit into `room` pieces; of a longer sentence, its beginning."""
    chunk: list[int] = []
    for sentence in sentences:
        if chunk and len(chunk) + len(sentence) > room:
            yield chunk
            chunk = []
        chunk = chunk + sentence[:room]
    if chunk:
        yield chunk


@dataclass(frozen=True)
class Chunks:
    """All chunks, one after another, each with its [CLS] and [SEP].

    Attributes:
        pieces: `[all pieces]`.
        starts: `[chunks + 1]`, where each chunk begins.
        source: `[chunks]`, its place in `SOURCES`.
        held_out: `[chunks]`, whether it is kept from training.
    """

    pieces: np.ndarray
    starts: np.ndarray
    source: np.ndarray
    held_out: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Pieces of each chunk."""
        return np.diff(self.starts)

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Chunks of one length, as an array `[chunks, pieces]`."""
        length = self.lengths[numbers[0]]
        return self.pieces[self.starts[numbers][:, None] + np.arange(length)]

    def training(self) -> np.ndarray:
        """The numbers of the chunks to train on."""
        return np.flatnonzero(~self.held_out)


@dataclass(frozen=True)
class Cutting:
    """How text becomes chunks.

    Attributes:
        length: pieces of a chunk at most, [CLS] and [SEP] included.
        held_out: chunks of each source kept from training.
        seed: of the choice of what is held out.
    """

    length: int = 64
    held_out: int = 1000
    seed: int = 0


def cut_text(folder: Path, tokenizer: object, cutting: Cutting) -> Chunks:
    """Read both sources and cut them; equally many pieces of each are kept.

    Held-out chunks come from five stretches of each source, each a 250th of it: neighbours speak of one film or article.

    Raises:
        DataError: if a source is missing or too short.
    """
    draw = np.random.default_rng(cutting.seed)
    kept: list[tuple[list[np.ndarray], list[np.ndarray]]] = []
    for source in SOURCES:
        name, read = READERS[source]
        if not (folder / name).is_file():
            raise DataError(f"The folder {folder} has no {name}; --text needs a folder with both sources.")
        documents = read(folder / name)
        stretches = set(draw.choice(250, size=5, replace=False).tolist())
        train: list[np.ndarray] = []
        held: list[np.ndarray] = []
        for start in range(0, len(documents), 1000):
            for number, chunks in enumerate(_cut_documents(documents[start : start + 1000], tokenizer, cutting), start):
                (held if number * 250 // len(documents) in stretches else train).extend(chunks)
        if len(held) < cutting.held_out or not train:
            raise DataError(f"The source {name} gives {len(held)} chunks to hold out; {cutting.held_out} are needed.")
        held = [held[i] for i in draw.choice(len(held), size=cutting.held_out, replace=False)]
        kept.append(([train[i] for i in draw.permutation(len(train))], held))
    budget = min(sum(map(len, train)) for train, _ in kept)
    chunks, sources, held_out = [], [], []
    for source, (train, held) in enumerate(kept):
        fits = int(np.searchsorted(np.cumsum([len(chunk) for chunk in train]), budget, side="right"))
        chunks += train[:fits] + held
        sources += [source] * (fits + len(held))
        held_out += [False] * fits + [True] * len(held)
    return Chunks(
        np.concatenate(chunks),
        np.cumsum([0, *map(len, chunks)]),
        np.array(sources, dtype=np.uint8),
        np.array(held_out),
    )


def _cut_documents(documents: list[str], tokenizer: object, cutting: Cutting) -> Iterator[list[np.ndarray]]:
    """The chunks of each document."""
    sentences = [sentences_of(document) for document in documents]
    flat = [sentence for parts in sentences for sentence in parts]
    pieces = iter(tokenizer(flat, add_special_tokens=False, verbose=False)["input_ids"] if flat else [])
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    for parts in sentences:
        chunks = chunks_of([next(pieces) for _ in parts], cutting.length - 2)
        yield [np.array([first, *chunk, last], dtype=np.int32) for chunk in chunks if len(chunk) + 2 >= SHORTEST]


def load_chunks(work: Path, text: Path, backbone: Backbone, cutting: Cutting) -> Chunks:
    """The chunks kept in `work`; cut anew if there are none, or if they were cut in another way."""
    path = work / "chunks.safetensors"
    made = json.dumps({**asdict(cutting), "fingerprint": backbone.fingerprint})
    if not path.is_file() or metadata_of(path).get("made") != made:
        chunks = cut_text(text, backbone.tokenizer, cutting)
        write_whole(path, array_bytes(dict(vars(chunks)), metadata={"made": made}))
    return Chunks(**load_arrays(path))


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file."""
    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


# Masks and scores


@dataclass(frozen=True)
class MaskedBatch:
    """Pieces `[rows, length]` as the model sees them, the masked places `[rows, k]`, and what stood there `[rows, k]`."""

    pieces: Tensor
    places: Tensor
    targets: Tensor


def mask(rows: np.ndarray, share: float, draw: np.random.Generator, tokenizer: object) -> MaskedBatch:
    """Choose `share` of each row's places: 80 % become [MASK], 10 % any piece, 10 % stay. [CLS] and [SEP] are never chosen.

    Source: Devlin et al. (2019), "BERT", section 3.1.
    """
    count = max(1, round(share * (rows.shape[1] - 2)))
    places = 1 + np.argsort(draw.random((len(rows), rows.shape[1] - 2)), axis=1)[:, :count]
    targets = np.take_along_axis(rows, places, axis=1)
    chance = draw.random(places.shape)
    random_pieces = draw.integers(len(tokenizer), size=places.shape)
    shown = np.where(chance < 0.8, tokenizer.mask_token_id, np.where(chance < 0.9, random_pieces, targets))
    pieces = rows.copy()
    np.put_along_axis(pieces, places, shown.astype(rows.dtype), axis=1)
    return MaskedBatch(*(torch.from_numpy(array.astype(np.int64)) for array in (pieces, places, targets)))


def masked_scores(model: nn.Module, batch: MaskedBatch) -> Tensor:
    """The model's scores `[rows * k, vocabulary]`, computed at the masked places only."""
    # No row is padded, so no attention mask is needed. Nothing is kept for a backward pass below the lowest opened layer.
    vectors = model.bert(input_ids=batch.pieces).last_hidden_state
    rows = torch.arange(len(vectors))[:, None]
    return model.cls(vectors[rows, batch.places].flatten(0, 1))


@torch.no_grad()
def held_out_scores(
    model: nn.Module, chunks: Chunks, tokenizer: object, limit: int | None = None
) -> dict[str, dict[str, float]]:
    """Loss in nats and accuracy at the masked places of the held-out chunks, of all and of each source; masks are fixed.

    Args:
        limit: the number of chunks of each source; None for all.
    """
    sums = {source: np.zeros(3) for source in SOURCES}
    for index, source in enumerate(SOURCES):
        numbers = np.flatnonzero(chunks.held_out & (chunks.source == index))[:limit]
        lengths = chunks.lengths[numbers]
        for length in np.unique(lengths):
            draw = np.random.default_rng([int(length), index])
            batch = mask(chunks.rows(numbers[lengths == length]), MASK_HELD_OUT, draw, tokenizer)
            scores, targets = masked_scores(model, batch), batch.targets.flatten()
            loss = F.cross_entropy(scores, targets, reduction="sum").item()
            sums[source] += loss, (scores.argmax(1) == targets).sum().item(), len(targets)
    sums["all"] = np.sum(list(sums.values()), axis=0)
    return {
        name: {"loss": float(loss / places), "accuracy": float(right / places), "masked_places": int(places)}
        for name, (loss, right, places) in sums.items()
    }


# Training


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        opening: a name of `OPENINGS`.
        rate: the encoder's learning rate at its highest.
        head_rate: the head's.
        steps: after which the rate is zero.
        warmup: the share of the steps in which the rate rises.
        batch: pieces of a step.
        share: of the pieces that are masked.
        seed: of the head's first weights, the order of the chunks and the masks.
        start: sha256 of the shipped file whose weights the run starts from, or None for the starter's.
        precision: of the forward pass, `"fp32"` or `"bf16"`; weights and scores are in float32.
    """

    opening: str
    rate: float = 5e-4
    head_rate: float = 1e-3
    steps: int = 4000
    warmup: float = 0.05
    batch: int = 2048
    share: float = 0.2
    seed: int = 0
    start: str | None = None
    precision: str = "fp32"

    def factor(self, step: int) -> float:
        """The share of the highest rate at a step: up in a line, down in a line."""
        rise = max(1, round(self.warmup * self.steps))
        return min((step + 1) / rise, (self.steps - step) / max(1, self.steps - rise))


def batches_of(chunks: Chunks, plan: Plan, epoch: int) -> list[np.ndarray]:
    """The chunks of each step of one pass: drawn at random, equally long within a step, so that none is padded."""
    draw = np.random.default_rng([plan.seed, epoch])
    order = draw.permutation(chunks.training())
    lengths = chunks.lengths[order]
    batches = []
    for length in np.unique(lengths):
        same, rows = order[lengths == length], max(1, plan.batch // int(length))
        batches += [same[start : start + rows] for start in range(0, len(same), rows)]
    return [batches[number] for number in draw.permutation(len(batches))]


def new_model(backbone: Backbone, plan: Plan, chunks: Chunks, start: Path | None) -> nn.Module:
    """The model at step 0; the output biases start as the logarithms of the pieces' frequencies."""
    torch.manual_seed(plan.seed)
    model = masked_lm(backbone.encoder, {})
    if plan.precision == "bf16":  # the fused attention has a slow backward pass in it
        model.set_attn_implementation("eager")
    open_weights(model, OPENINGS[plan.opening])
    if start is not None:
        take_shipped(model, starter_state(backbone.encoder), load_file(start))
        return model
    counts = np.bincount(chunks.pieces, minlength=model.config.vocab_size) + 1.0
    with torch.no_grad():
        model.cls.predictions.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
    return model


@dataclass
class Progress:
    """How far a run is: steps done, pieces seen, seconds the processor worked (other programs on it do not count)."""

    step: int = 0
    pieces: int = 0
    seconds: float = 0.0


def make_optimizer(model: nn.Module, plan: Plan) -> torch.optim.AdamW:
    """AdamW without decay: one pass over the text cannot be learnt by heart."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in opened(model).items():
        groups.setdefault(plan.head_rate if name.startswith("cls.") else plan.rate, []).append(parameter)
    grouped = [{"params": parameters, "lr": rate, "highest": rate} for rate, parameters in groups.items()]
    return torch.optim.AdamW(grouped, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0)


def write_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.AdamW, plan: Plan, progress: Progress
) -> None:
    """All that is needed to go on, whole or not at all."""
    tensors = {}
    for name, parameter in opened(model).items():
        tensors[f"weight.{name}"] = parameter.detach()
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment]
    about = {"plan": json.dumps(asdict(plan)), "progress": json.dumps(vars(progress))}
    write_whole(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=about))


def read_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.AdamW | None = None) -> tuple[Plan, Progress]:
    """Set model and optimizer to a checkpoint; without an optimizer only the model."""
    about, tensors = metadata_of(path), load_file(path)
    progress = Progress(**json.loads(about["progress"]))
    for name, parameter in opened(model).items():
        with torch.no_grad():
            parameter.copy_(tensors[f"weight.{name}"])
        if optimizer is not None:
            state = {moment: tensors[f"{moment}.{name}"] for moment in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(float(progress.step)), **state}
    return Plan(**json.loads(about["plan"])), progress


def train_step(
    model: nn.Module, optimizer: torch.optim.AdamW, batch: MaskedBatch, factor: float, precision: str
) -> float:
    """One step; returns the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = group["highest"] * factor
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        scores = masked_scores(model, batch)
    loss = F.cross_entropy(scores.float(), batch.targets.flatten())
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def train(
    backbone: Backbone,
    chunks: Chunks,
    plan: Plan,
    folder: Path,
    *,
    start: Path | None = None,
    save_seconds: float = 300,
    log_steps: int = 25,
) -> nn.Module:
    """Train to the plan's last step, from the folder's checkpoint if there is one.

    Writes `checkpoint.safetensors` every `save_seconds` and at the end, and `log.jsonl`.

    Raises:
        BadOption: if the folder's checkpoint is of another plan.
    """
    if plan.opening not in OPENINGS:
        raise unknown("opening", plan.opening, OPENINGS)
    checkpoint, tokenizer = writable_folder(folder) / "checkpoint.safetensors", backbone.tokenizer
    model = new_model(backbone, plan, chunks, start)
    optimizer, progress = make_optimizer(model, plan), Progress()
    if checkpoint.is_file():
        found, progress = read_checkpoint(checkpoint, model, optimizer)
        if found != plan:
            raise BadOption(
                f"The run in {folder} was begun with other settings ({found}); give this one another --run."
            )
    batches, epoch, losses = batches_of(chunks, plan, 0), 0, []
    before, begun, saved = progress.seconds, time.process_time(), time.monotonic()
    noted, noted_pieces = begun, progress.pieces
    while progress.step < plan.steps:
        if progress.step // len(batches) != epoch:  # every pass has as many batches
            epoch = progress.step // len(batches)
            batches = batches_of(chunks, plan, epoch)
        rows = chunks.rows(batches[progress.step % len(batches)])
        draw = np.random.default_rng([plan.seed, 1, progress.step])
        batch = mask(rows, plan.share, draw, tokenizer)
        losses.append(train_step(model, optimizer, batch, plan.factor(progress.step), plan.precision))
        now = time.process_time()
        progress.step, progress.pieces = progress.step + 1, progress.pieces + rows.size
        progress.seconds = before + now - begun
        last = progress.step == plan.steps
        if progress.step % log_steps == 0 or last:
            note = {"step": progress.step, "loss": round(float(np.mean(losses)), 4)}
            note["pieces_a_second"] = round((progress.pieces - noted_pieces) / (now - noted))
            note |= {"seconds": round(progress.seconds), "clock": time.strftime("%H:%M:%S")}
            _log(folder, note)
            losses, noted, noted_pieces = [], now, progress.pieces
        if last or time.monotonic() - saved >= save_seconds:
            write_checkpoint(checkpoint, model, optimizer, plan, progress)
            scores = held_out_scores(model, chunks, tokenizer, limit=100)["all"]
            _log(folder, {"step": progress.step, "held_out_200": {key: round(scores[key], 4) for key in scores}})
            saved, noted, noted_pieces = time.monotonic(), time.process_time(), progress.pieces
    return model


def _log(folder: Path, note: dict) -> None:
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps(note) + "\n")


# Zero-shot


@dataclass(frozen=True)
class Template:
    """A cloze question and the words that stand for the answers; the most probable side wins."""

    text: str
    negative: tuple[str, ...]
    positive: tuple[str, ...]


TEMPLATES = {
    "it-was": Template("{sentence} It was {mask}.", ("terrible", "awful", "bad"), ("great", "wonderful", "good")),
    "film-is": Template(
        "{sentence} This film is {mask}.", ("terrible", "awful", "bad"), ("great", "wonderful", "good")
    ),
    "all-in-all": Template("{sentence} All in all, a {mask} movie.", ("bad", "terrible"), ("good", "great")),
    "before": Template("A {mask} movie. {sentence}", ("bad", "terrible"), ("good", "great")),
    "verb": Template("{sentence} I {mask} this movie.", ("hated", "disliked"), ("loved", "enjoyed", "liked")),
    "recommend": Template("{sentence} I would {mask} recommend it.", ("never", "not"), ("definitely", "highly")),
    "feeling": Template("{sentence} I was {mask}.", ("disappointed", "bored"), ("impressed", "delighted", "moved")),
    "review": Template("This is a {mask} review: {sentence}", ("negative", "bad"), ("positive", "good")),
    "worth": Template("{sentence} Is it worth seeing? {mask}.", ("no",), ("yes",)),
    "time": Template(
        "{sentence} Watching it was a {mask}.", ("waste", "mistake", "pain"), ("pleasure", "joy", "treat")
    ),
}


@torch.no_grad()
def word_scores(
    model: nn.Module, tokenizer: object, template: Template, sentences: list[str], batch: int = 32
) -> Tensor:
    """The log-probabilities `[sentences, words]` of the template's words at its mask, negative words first.

    Raises:
        BadOption: for a word that is not one piece of the vocabulary.
    """
    words = [*template.negative, *template.positive]
    ids = tokenizer.convert_tokens_to_ids(words)
    for word, number in zip(words, ids, strict=True):
        if number == tokenizer.unk_token_id:
            raise BadOption(f"The label word {word!r} is not one piece of the vocabulary; take a more common word.")
    text = template.text.replace("{mask}", tokenizer.mask_token)
    filled = [text.format(sentence=sentence.strip()).strip() for sentence in sentences]
    scores = torch.empty(len(filled), len(words))
    order = sorted(range(len(filled)), key=lambda row: len(filled[row]))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        inputs = tokenizer([filled[row] for row in rows], padding=True, return_tensors="pt")
        vectors = model.bert(**inputs).last_hidden_state[inputs["input_ids"] == tokenizer.mask_token_id]
        scores[rows] = model.cls(vectors).log_softmax(-1)[:, ids]
    return scores


def zero_shot(model: nn.Module, tokenizer: object, sentences: list[str], labels: list[int]) -> list[dict]:
    """The accuracy of every template, no label seen: raw, and with the words' prior removed in two ways.

    The prior is the words' log-probability in the template without a sentence (`empty`), or the mean over the sentences
    themselves, labels unseen (`batch`).
    Source: Zhao et al. (2021), "Calibrate Before Use", section 5; Zhou et al. (2024), "Batch Calibration", section 3.
    """
    gold, rows = torch.tensor(labels), []
    for name, template in TEMPLATES.items():
        scores = word_scores(model, tokenizer, template, sentences)
        priors = {
            "raw": torch.zeros(scores.shape[1]),
            "empty": word_scores(model, tokenizer, template, [""])[0],
            "batch": scores.mean(0),
        }
        split = len(template.negative)
        row = {"name": name, "template": template.text}
        row |= {"negative": " ".join(template.negative), "positive": " ".join(template.positive)}
        for kind, prior in priors.items():
            freed = scores - prior
            # The mean over a side's words: one side may have more of them.
            guess = freed[:, split:].logsumexp(1) - math.log(scores.shape[1] - split)
            guess = guess > freed[:, :split].logsumexp(1) - math.log(split)
            row[kind] = (guess.long() == gold).float().mean().item()
        rows.append(row)
    return rows


def read_sst2(folder: Path) -> tuple[list[str], list[int]]:
    """Sentences and labels of `validation.parquet`.

    Raises:
        DataError: if the folder has no such file.
    """
    import pyarrow.parquet

    path = folder / "validation.parquet"
    if not path.is_file():
        raise DataError(f"The folder {folder} has no validation.parquet; --sst2 needs one with `sentence` and `label`.")
    table = pyarrow.parquet.read_table(path, columns=["sentence", "label"]).to_pydict()
    return table["sentence"], table["label"]


def summary(rows: list[dict], kind: str) -> dict[str, float]:
    """Best, mean and worst accuracy over the templates, and the spread between best and worst."""
    found = [row[kind] for row in rows]
    return {"best": max(found), "mean": sum(found) / len(found), "worst": min(found), "spread": max(found) - min(found)}


# The shipped files


def export(work: Path, run: str, backbone: Backbone, chunks: Chunks, sst2: Path | None, target: Path) -> dict:
    """Write the shipped file, its figures (`.json`) and the card's tables (`README.md`) from a run's checkpoint.

    Every figure is of the shipped file, read back after rounding.
    """
    checkpoint = work / "runs" / run / "checkpoint.safetensors"
    if not checkpoint.is_file():
        raise DataError(f"There is no checkpoint {checkpoint}; train that run first.")
    about = metadata_of(checkpoint)
    plan, progress = Plan(**json.loads(about["plan"])), Progress(**json.loads(about["progress"]))
    earlier = json.loads((work / "runs" / run / "start.json").read_text()) if plan.start else {}
    model = masked_lm(backbone.encoder, {})
    open_weights(model, OPENINGS[plan.opening])
    read_checkpoint(checkpoint, model)
    tensors = shipped_tensors(model, starter_state(backbone.encoder))
    model = masked_lm(backbone.encoder, tensors)
    figures = {
        "format": FORMAT,
        "starter": STARTER_FILES["model.safetensors"],
        "plan": asdict(plan),
        "steps": progress.step + int(earlier.get("steps", 0)),
        "pieces": progress.pieces + int(earlier.get("pieces", 0)),
        "seconds": round(progress.seconds + float(earlier.get("seconds", 0))),
        "trained_weights": sum(tensor.numel() for tensor in tensors.values()),
        "held_out_chunks": int(chunks.held_out.sum()),
        "training_chunks": int((~chunks.held_out).sum()),
        "training_pieces": int(chunks.lengths[chunks.training()].sum()),
        "held_out": held_out_scores(model, chunks, backbone.tokenizer),
        "zero_shot": zero_shot(model, backbone.tokenizer, *read_sst2(sst2)) if sst2 else [],
        "tried": [json.loads(path.read_text()) for path in sorted((work / "runs").glob("*/result.json"))],
    }
    held = figures["held_out"]["all"]
    metadata = {key: str(figures[key]) for key in ("format", "starter", "steps", "pieces", "seconds")}
    metadata |= {"opening": plan.opening, "seed": str(plan.seed)}
    metadata |= {"held_out_loss": f"{held['loss']:.4f}", "held_out_accuracy": f"{held['accuracy']:.4f}"}
    writable_folder(target.parent)
    write_whole(target, save(tensors, metadata=metadata))
    figures |= {"bytes": target.stat().st_size, "sha256": hashlib.sha256(target.read_bytes()).hexdigest()}
    write_json(target.with_suffix(".json"), figures)
    card = target.parent / "README.md"
    if card.is_file():
        write_whole(card, with_tables(card.read_text(), figures))
    return figures


def with_tables(card: str, figures: dict) -> str:
    """The card with its tables written anew, between `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises:
        DataError: if the card lacks such a place.
    """
    for name, table in tables_of(figures).items():
        opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
        if card.count(opening) != 1 or card.count(closing) != 1:
            raise DataError(f"The card needs one {opening} and one {closing}, in which the table of that name belongs.")
        head, tail = card.split(opening)[0], card.split(closing)[1]
        card = f"{head}{opening}\n{table}\n{closing}{tail}"
    return card


def tables_of(figures: dict) -> dict[str, str]:
    """The card's tables, by name, in Markdown."""
    plan, opening = figures["plan"], OPENINGS[figures["plan"]["opening"]]
    last = " (the last run)" if plan["start"] else ""
    of_them = f", {plan['steps']:,} of them in the last run" if plan["start"] else ""
    facts = {
        "opened": f"`{plan['opening']}`: {describe(opening)}",
        "weights trained": f"{figures['trained_weights']:,}",
        "file": f"{figures['bytes']:,} bytes, sha256 `{figures['sha256']}`",
        "starter": f"model.safetensors, sha256 `{figures['starter']}`",
        "steps": f"{figures['steps']:,}{of_them}",
        "pieces seen": f"{figures['pieces']:,}; the text has {figures['training_pieces']:,}",
        "time": f"{figures['seconds'] / 60:.0f} minutes of one processor core",
        "learning rates": f"{plan['rate']:g} encoder, {plan['head_rate']:g} head{last}",
        "pieces a step; masked": f"{plan['batch']:,}; {plan['share']:.0%}",
        "precision": plan["precision"],
        "seed": f"{plan['seed']}{last}",
    }
    held = [[name, f"{row['loss']:.3f}", f"{row['accuracy']:.1%}"] for name, row in figures["held_out"].items()]
    tried = [
        [
            f"{row['run']}",
            describe(OPENINGS[row["plan"]["opening"]]),
            f"{row['plan']['rate']:g} / {row['plan']['head_rate']:g}",
            f"{row['plan']['share']:.0%}",
            row["plan"].get("precision", "fp32"),
            f"{row['plan']['steps']:,}",
            f"{row['pieces'] / 1e6:.2f} M",
            f"{row['seconds'] / 60:.0f}",
            f"{row['held_out']['all']['loss']:.3f}",
            f"{row['held_out']['all']['accuracy']:.1%}",
        ]
        for row in sorted(figures["tried"], key=lambda row: row["held_out"]["all"]["loss"])
    ]
    return {
        "figures": markdown(["", ""], [[key, value] for key, value in facts.items()]),
        "held-out": markdown(["text", "loss", "accuracy"], held),
        "tried": markdown(
            [
                "run",
                "opened",
                "rates encoder / head",
                "masked",
                "precision",
                "steps",
                "pieces",
                "minutes",
                "loss",
                "accuracy",
            ],
            tried,
        ),
        "zero-shot": zero_shot_table(figures["zero_shot"]),
    }


def describe(opening: Opening) -> str:
    """What an opening trains, in words."""
    parts = ["the head"]
    parts += [f"the top {opening.whole} layers whole"] if opening.whole else []
    parts += (
        [f"low rank {opening.rank} at every {'other ' if opening.whole else ''}linear layer"] if opening.rank else []
    )
    parts += [f"{'other ' if opening.whole else ''}biases and layer norms"] if opening.small else []
    return ", ".join(parts)


def zero_shot_table(rows: list[dict]) -> str:
    """One row a template, and the summary."""
    if not rows:
        return "Not measured."
    kinds = ("raw", "empty", "batch")
    body = [
        [f"`{row['template']}`", f"{row['negative']} / {row['positive']}", *(f"{row[kind]:.1%}" for kind in kinds)]
        for row in rows
    ]
    for key in ("best", "mean", "worst", "spread"):
        body.append([key, "", *(f"{summary(rows, kind)[key]:.1%}" for kind in kinds)])
    return markdown(["template", "negative / positive", "raw", "prior of the empty template", "mean prior"], body)


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows)]
    return "\n".join(lines)


# The command line


def _train(arguments: argparse.Namespace) -> None:
    backbone = load_backbone(arguments.backbone)
    cutting = Cutting(length=arguments.length, held_out=arguments.held_out)
    chunks = load_chunks(writable_folder(arguments.work), arguments.text, backbone, cutting)
    folder = writable_folder(arguments.work / "runs" / arguments.run)
    start = arguments.start
    plan = Plan(
        arguments.opening,
        rate=arguments.rate,
        head_rate=arguments.head_rate,
        steps=arguments.steps,
        batch=arguments.batch,
        share=arguments.share,
        seed=arguments.seed,
        start=hashlib.sha256(start.read_bytes()).hexdigest() if start else None,
        precision=arguments.precision,
    )
    if start:
        write_json(folder / "start.json", metadata_of(start))
    model = train(backbone, chunks, plan, folder, start=start, save_seconds=arguments.save_seconds)
    _, progress = read_checkpoint(folder / "checkpoint.safetensors", model)
    rounded = masked_lm(backbone.encoder, shipped_tensors(model, starter_state(backbone.encoder)))
    scores = held_out_scores(rounded, chunks, backbone.tokenizer)
    result = {"run": arguments.run, "plan": asdict(plan), "pieces": progress.pieces, "seconds": round(progress.seconds)}
    write_json(folder / "result.json", result | {"held_out": scores})
    print(json.dumps({"run": arguments.run, "held_out": scores}))


def _export(arguments: argparse.Namespace) -> None:
    backbone = load_backbone(arguments.backbone)
    chunks = Chunks(**load_arrays(arguments.work / "chunks.safetensors"))
    figures = export(arguments.work, arguments.run, backbone, chunks, arguments.sst2, arguments.to)
    tables = tables_of(figures)
    print(tables["held-out"], tables["zero-shot"], sep="\n\n")


def _zeroshot(arguments: argparse.Namespace) -> None:
    backbone = load_backbone(arguments.backbone)
    model = masked_lm(backbone.encoder, load_file(arguments.file))
    print(zero_shot_table(zero_shot(model, backbone.tokenizer, *read_sst2(arguments.sst2))))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = whole.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train, or go on with a run that was cut off")
    training.set_defaults(do=_train)
    training.add_argument("--text", type=Path, required=True, help="the folder with both sources")
    training.add_argument("--length", type=int, default=Cutting.length, help="pieces of a chunk at most")
    training.add_argument("--held-out", type=int, default=Cutting.held_out, help="chunks of each source held out")
    training.add_argument("--opening", default="top", choices=OPENINGS)
    training.add_argument("--rate", type=float, default=Plan.rate, help="the encoder's highest learning rate")
    training.add_argument("--head-rate", type=float, default=Plan.head_rate, help="the head's")
    training.add_argument("--steps", type=int, default=Plan.steps)
    training.add_argument("--batch", type=int, default=Plan.batch, help="pieces a step")
    training.add_argument("--share", type=float, default=Plan.share, help="of the pieces that are masked")
    training.add_argument("--seed", type=int, default=Plan.seed)
    training.add_argument("--start", type=Path, help="a shipped file to start from; take another --seed")
    training.add_argument("--precision", default=Plan.precision, choices=("fp32", "bf16"), help="of the forward pass")
    training.add_argument("--save-seconds", type=float, default=300, help="between checkpoints")
    exporting = commands.add_parser("export", help="write the shipped file, its figures and the card's tables")
    exporting.set_defaults(do=_export)
    exporting.add_argument("--to", type=Path, default=SHIPPED, help="the shipped file")
    exporting.add_argument("--sst2", type=Path, help="a folder with SST-2's validation.parquet")
    scoring = commands.add_parser("zeroshot", help="accuracy of the templates on SST-2, no label seen")
    scoring.set_defaults(do=_zeroshot)
    scoring.add_argument("--sst2", type=Path, required=True, help="a folder with SST-2's validation.parquet")
    scoring.add_argument("--file", type=Path, default=SHIPPED, help="the shipped file")
    for command in (training, exporting):
        command.add_argument("--work", type=Path, required=True, help="the folder of chunks and runs")
        command.add_argument("--run", required=True, help="the run's name")
    for command in (training, exporting, scoring):
        command.add_argument("--backbone", default="minilm", help="the starter, or `tiny` for tests")
    return whole


def main(words: list[str] | None = None) -> int:
    """Run a command; 1 with one sentence if something is wrong."""
    arguments = parser().parse_args(words)
    try:
        arguments.do(arguments)
    except PtvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
