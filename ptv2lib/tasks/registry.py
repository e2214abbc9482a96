"""The data sets of the paper and their neighbours, by the name `--task` takes.

Hub ids, commits, label orders and row counts are those that public code and dataset cards show; where no full commit was
seen there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from ..errors import PromptMismatch
from ..sources import PARQUET_BRANCH, SHIFTS, HubPart, HubSet
from .answer_sets import MultiRC, ReCoRD
from .classification import Classification, Coreference, WordInContext
from .common import NO_HUB, TaskFamily
from .multiple_choice import MultipleChoice
from .question_answering import QuestionAnswering
from .semantic_roles import SemanticRoles
from .tagging import Tagging

_GLUE = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
_SUPERGLUE = "3de24cf8022e94f4ee4b9d55a6f539891524d646"
_SQUAD = HubPart("rajpurkar/squad", None, "train", "7b6d24c440a36b6815f21b70d25016731768db1f")
_ONTONOTES = "ontonotes/conll2012_ontonotesv5"
_LDC = "The text is licensed by the LDC"

_TYPES18 = "CARDINAL DATE EVENT FAC GPE LANGUAGE LAW LOC MONEY NORP ORDINAL ORG PERCENT PERSON PRODUCT QUANTITY TIME WORK_OF_ART"
# The order of tner/ontonotes5, whose files hold bare numbers.
_TNER_ORDER = (
    "O B-CARDINAL B-DATE I-DATE B-PERSON I-PERSON B-NORP B-GPE I-GPE B-LAW I-LAW B-ORG I-ORG B-PERCENT I-PERCENT B-ORDINAL "
    "B-MONEY I-MONEY B-WORK_OF_ART I-WORK_OF_ART B-FAC B-TIME I-CARDINAL B-LOC B-QUANTITY I-QUANTITY I-NORP I-LOC B-PRODUCT "
    "I-TIME B-EVENT I-EVENT I-FAC B-LANGUAGE I-PRODUCT I-ORDINAL I-LANGUAGE"
)
# And of tner/conll2003, which is not that of the `ner_tags` of our Hub set.
_TNER_CONLL03 = "O B-ORG B-MISC B-PER I-PER B-LOC I-ORG I-MISC I-LOC"
_CONLL05_ROLES = (
    "A0 A1 A2 A3 A4 A5 AA AM AM-ADV AM-CAU AM-DIR AM-DIS AM-EXT AM-LOC AM-MNR AM-MOD AM-NEG AM-PNC AM-PRD AM-REC AM-TM "
    "AM-TMP C-A0 C-A1 C-A2 C-A3 C-A4 C-A5 C-AM-ADV C-AM-CAU C-AM-DIR C-AM-DIS C-AM-EXT C-AM-LOC C-AM-MNR C-AM-NEG C-AM-PNC "
    "C-AM-TMP C-V R-A0 R-A1 R-A2 R-A3 R-A4 R-AA R-AM-ADV R-AM-CAU R-AM-DIR R-AM-EXT R-AM-LOC R-AM-MNR R-AM-PNC R-AM-TMP V"
)
_CONLL12_ROLES = (
    "ARG0 ARG1 ARG2 ARG3 ARG4 ARG5 ARGA ARGM-ADJ ARGM-ADV ARGM-CAU ARGM-COM ARGM-DIR ARGM-DIS ARGM-DSP ARGM-EXT ARGM-GOL "
    "ARGM-LOC ARGM-LVB ARGM-MNR ARGM-MOD ARGM-NEG ARGM-PNC ARGM-PRD ARGM-PRP ARGM-PRR ARGM-PRX ARGM-REC ARGM-TMP C-ARG0 "
    "C-ARG1 C-ARG2 C-ARG3 C-ARG4 C-ARGM-ADV C-ARGM-CAU C-ARGM-DSP C-ARGM-EXT C-ARGM-LOC C-ARGM-MNR C-ARGM-MOD C-ARGM-PRP "
    "C-ARGM-TMP C-V R-ARG0 R-ARG1 R-ARG2 R-ARG3 R-ARG4 R-ARG5 R-ARGM-ADV R-ARGM-CAU R-ARGM-COM R-ARGM-DIR R-ARGM-EXT "
    "R-ARGM-GOL R-ARGM-LOC R-ARGM-MNR R-ARGM-PRD R-ARGM-PRP R-ARGM-TMP V"
)


def _sizes(train: int, validation: int, test: int) -> dict[str, int]:
    return {"train": train, "validation": validation, "test": test}


def _glue(config: str, sizes: dict[str, int], **more) -> HubSet:
    return HubSet("nyu-mll/glue", config, _GLUE, "none stated; cite", sizes, **more)


def _superglue(config: str, licence: str, sizes: dict[str, int]) -> HubSet:
    return HubSet("aps/super_glue", config, _SUPERGLUE, licence, sizes)


def _shift(name: str) -> HubPart:
    return HubPart("ludwigschmidt/squadshifts", None, "test", PARQUET_BRANCH, data_dir=name)


_MNLI_PARTS = {
    ours: HubPart("nyu-mll/glue", "mnli", theirs, _GLUE)
    for ours, theirs in (
        ("validation", "validation_matched"),
        ("validation_mismatched", "validation_mismatched"),
        ("test", "test_matched"),
        ("test_mismatched", "test_mismatched"),
    )
}
_MNLI_SIZES = {
    "train": 392702,
    "validation": 9815,
    "validation_mismatched": 9832,
    "test": 9796,
    "test_mismatched": 9847,
}

# Gaps and the words for them. The paper compares verbalizers in its Table 5 with "true", "false" and "neutral"; the patterns
# of pairs follow P-tuning v1's idea of a question and an answer.
_FILM = {
    "templates": (
        "{sentence} It was {mask}.",
        "{sentence} All in all, it was {mask}.",
        "A {mask} film: {sentence}",
        "{sentence} In short, a {mask} movie.",
        "{mask}! {sentence}",
    ),
    "soft_template": "{soft:3} {sentence} {soft:3} It was {mask}.",
    "words": {"negative": ("terrible", "bad"), "positive": ("great", "good")},
}
_CLAIM = {
    "templates": (
        "{premise} Question: {hypothesis} True or false? Answer: {mask}.",
        "{premise} So it is {mask} that {hypothesis}",
    ),
    "soft_template": "{premise} {soft:3} Question: {hypothesis}? {soft:3} Answer: {mask}.",
}

TASKS: dict[str, TaskFamily] = {
    family.name: family
    for family in (
        Classification(
            "sst2",
            ("sentence",),
            ("negative", "positive"),
            _glue("sst2", _sizes(67349, 872, 1821)),
            columns={"sentence": "sentence"},
            **_FILM,
        ),
        Classification(
            "mnli",
            ("premise", "hypothesis"),
            ("entailment", "neutral", "contradiction"),
            _glue("mnli", _MNLI_SIZES, parts=_MNLI_PARTS),
            columns={"premise": 8, "hypothesis": 9},
            **_CLAIM,
            words={"entailment": ("true",), "neutral": ("neutral",), "contradiction": ("false",)},
            grouped="premise",
        ),
        Classification(
            "rte",
            ("premise", "hypothesis"),
            ("entailment", "not_entailment"),
            _superglue("rte", "research use", _sizes(2490, 277, 3000)),
            columns={"premise": 1, "hypothesis": 2},
            synonyms={"sentence1": "premise", "sentence2": "hypothesis"},
            **_CLAIM,
            words={"entailment": ("true",), "not_entailment": ("false",)},
        ),
        Classification(
            "boolq",
            ("question", "passage"),
            ("False", "True"),
            _superglue("boolq", "CC BY-SA 3.0", _sizes(9427, 3270, 3245)),
            max_length=512,
            cut="only_second",
            templates=("{passage} Question: {question}? Answer: {mask}.", "{question}? {mask}. {passage}"),
            soft_template="{passage} {soft:3} Question: {question}? {soft:3} Answer: {mask}.",
            words={"False": ("false", "no"), "True": ("true", "yes")},
        ),
        Classification(
            "cb",
            ("premise", "hypothesis"),
            ("entailment", "contradiction", "neutral"),
            _superglue("cb", "research use", _sizes(250, 56, 250)),
            cut="only_first",
            macro=True,
            **_CLAIM,
            words={"entailment": ("true",), "contradiction": ("false",), "neutral": ("neutral",)},
        ),
        MultipleChoice(
            "copa",
            "premise",
            ("choice1", "choice2"),
            "question",
            {"cause": "because", "effect": "so"},
            _superglue("copa", "BSD 2-clause", _sizes(400, 100, 500)),
        ),
        MultiRC("multirc", _superglue("multirc", "research use", _sizes(27243, 4848, 9693))),
        ReCoRD("record", _superglue("record", "see its owner", _sizes(100730, 10000, 10000))),
        WordInContext(
            "wic",
            ("sentence1", "sentence2"),
            ("False", "True"),
            _superglue("wic", "see its owner", _sizes(5428, 638, 1400)),
            templates=("{sentence1} {sentence2} Same meaning of {word}? Answer: {mask}.",),
            soft_template="{sentence1} {sentence2} {soft:3} Same meaning of {word}? {soft:3} Answer: {mask}.",
            words={"False": ("false", "no"), "True": ("true", "yes")},
        ),
        Coreference(
            "wsc",
            ("text",),
            ("False", "True"),
            _superglue("wsc", "CC BY 4.0", _sizes(554, 104, 146)),
            templates=("{text} Question: does {span2_text} mean {span1_text}? Answer: {mask}.",),
            soft_template="{text} {soft:3} Question: does {span2_text} mean {span1_text}? {soft:3} Answer: {mask}.",
            words={"False": ("false", "no"), "True": ("true", "yes")},
            grouped="text",
        ),
        Tagging(
            "conll03",
            ("PER", "ORG", "LOC", "MISC"),
            hub=HubSet(
                "lhoestq/conll2003",
                None,
                "19edcb426bfd625c275c17b9a99b2239243f4377",
                "other; the texts are Reuters'",
                _sizes(14041, 3250, 3453),
                "The annotation's licence does not cover the texts; NIST gives out RCV1.",
            ),
            tner_order=tuple(_TNER_CONLL03.split()),
        ),
        Tagging(
            "ontonotes5",
            tuple(_TYPES18.split()),
            "tags",
            HubSet(
                "tner/ontonotes5",
                None,
                None,
                "other",
                _sizes(59924, 8528, 8262),
                f"{_LDC} (LDC2013T19).",
                branch=PARQUET_BRANCH,
            ),
            order=tuple(_TNER_ORDER.split()),
        ),
        Tagging(
            "conll04",
            ("Loc", "Org", "Other", "Peop"),
            "entities",
            HubSet("DFKI-SLT/conll04", None, None, "none stated", _sizes(922, 231, 288)),
        ),
        Tagging(
            "wikiann",
            ("PER", "ORG", "LOC"),
            hub=HubSet(
                "unimelb-nlp/wikiann",
                "en",
                None,
                "none stated; text from Wikipedia, CC BY-SA",
                _sizes(20000, 10000, 10000),
            ),
        ),
        QuestionAnswering(
            "squad",
            hub=HubSet("rajpurkar/squad", None, _SQUAD.revision, "CC BY-SA 4.0", {"train": 87599, "validation": 10570}),
        ),
        QuestionAnswering(
            "squad_v2",
            True,
            HubSet(
                "rajpurkar/squad_v2",
                None,
                "3ffb306f725f7d2ce8394bc1873b24868140c412",
                "CC BY-SA 4.0",
                {"train": 130319, "validation": 11873},
            ),
        ),
        QuestionAnswering(
            "squadshifts",
            hub=HubSet(
                "ludwigschmidt/squadshifts",
                None,
                None,
                "CC BY 4.0",
                {"test": 7938, "test_nyt": 10065, "test_reddit": 9803, "test_amazon": 9885},
                branch=PARQUET_BRANCH,
                parts={split: _shift(name) for name, split in SHIFTS.items()},
            ),
            trained_on="squad",
        ),
        SemanticRoles(
            "conll05",
            tuple(_CONLL05_ROLES.split()),
            HubSet(
                None,
                None,
                None,
                "LDC Treebank-3",
                {},
                f"{_LDC} (Treebank-3); the shared task's roles are free. Give your own files with dataset=.",
            ),
        ),
        SemanticRoles(
            "conll12",
            tuple(_CONLL12_ROLES.split()),
            HubSet(
                _ONTONOTES,
                None,
                None,
                "CC BY-NC-ND 4.0",
                _sizes(253070, 35297, 24462),
                f"{_LDC} (LDC2013T19).",
                branch=PARQUET_BRANCH,
                parts={
                    split: HubPart(_ONTONOTES, None, split, PARQUET_BRANCH, "english_v12")
                    for split in ("train", "validation")
                }
                | {
                    # The standard test is those documents of version 12's test that version 4's test has.
                    "test": HubPart(
                        _ONTONOTES,
                        None,
                        "test",
                        PARQUET_BRANCH,
                        "english_v12",
                        HubPart(_ONTONOTES, None, "test", PARQUET_BRANCH, "english_v4"),
                    )
                },
            ),
        ),
        SemanticRoles(
            "ewt_srl",
            hub=HubSet(
                None,
                None,
                None,
                "CC BY-SA 4.0",
                {"train": 40423, "validation": 4960, "test": 4795},
                "Join the words of UD_English-EWT with the roles of propbank-release, and give the folder with dataset=.",
            ),
        ),
    )
}
"""Every task, by name."""


def task_table() -> list[dict[str, str]]:
    """What each data set is, a row each, in words; all of it read from `TASKS`."""
    return [
        {
            "data set": name,
            "kind": type(family).__name__,
            "head": family.head,
            "answers": _answers(family),
            "score": family.metric,
            "cut": str(family.max_length),
            "layouts": ", ".join(family.layouts) or "one",
            "Hub": _place(family.hub),
            "revision": _revision(family.hub),
            "rows": " / ".join(f"{count:,}" for count in family.hub.rows.values()) or "unknown",
            "licence": family.hub.licence,
            "trains on": getattr(family, "trained_on", None) or "",
            "to obtain it": family.hub.obtain,
        }
        for name, family in TASKS.items()
    ]


def _place(hub: HubSet) -> str:
    """Repository and configuration, or the folders that stand for configurations on the parquet branch."""
    if hub.hub_id is None:
        return "not on the Hub"
    folders = dict.fromkeys(part.data_dir for part in hub.parts.values() if part.data_dir)
    inside = hub.config or ", ".join(folders)
    return f"{hub.hub_id} ({inside})" if inside else hub.hub_id


def _revision(hub: HubSet) -> str:
    """The commit, or what is loaded where none is known."""
    if hub.hub_id is None:
        return ""
    return hub.revision or f"{hub.branch or 'main'} (not pinned)"


def _answers(family: TaskFamily) -> str:
    """What may be answered: by name, or how many where they are many."""
    if family.head == "span":
        return "a span, or none" if family.unanswerable else "a span"
    roles = family.head == "token" and hasattr(family, "roles")
    named = family.roles if roles else getattr(family, "types", family.labels)
    if roles and not named:
        return "the roles in the data"
    return ", ".join(named) if len(named) < 5 else f"{len(named)} {'roles' if roles else 'types'}"


_KINDS: dict[str, type[TaskFamily]] = {
    kind.__name__: kind
    for kind in (
        Classification,
        WordInContext,
        Coreference,
        MultipleChoice,
        MultiRC,
        ReCoRD,
        Tagging,
        QuestionAnswering,
        SemanticRoles,
    )
}


def family_to(family: TaskFamily) -> dict[str, Any]:
    """A family as plain values, so that a saved prompt knows its task by itself."""
    values = {key: value for key, value in asdict(family).items() if key != "hub"}
    return {"family": type(family).__name__, "hub_id": family.hub.hub_id, **values}


def family_from(values: Mapping[str, Any]) -> TaskFamily:
    """The family that `family_to` wrote; its place on the Hub comes from the task of that name, if it has the same.

    Raises:
        PromptMismatch: for a kind that does not exist.
        TypeError: for fields that do not fit.
    """
    if values["family"] not in _KINDS:
        raise PromptMismatch(
            f"The task of this prompt is a {values['family']!r}, a class of one's own, which this library cannot make again."
        )
    kind = _KINDS[values["family"]]
    known = {field.name for field in fields(kind)}
    chosen = {key: _without_lists(value) for key, value in values.items() if key in known}
    hub = TASKS[chosen["name"]].hub if chosen["name"] in TASKS else NO_HUB
    if values.get("hub_id", hub.hub_id) != hub.hub_id:  # older prompts have no id and count as the registry's task
        hub = NO_HUB
    return kind(**chosen, hub=hub)


def _without_lists(value: Any) -> Any:
    """JSON has no tuples, and a family holds nothing else."""
    if isinstance(value, dict):
        return {key: _without_lists(inner) for key, inner in value.items()}
    return tuple(map(_without_lists, value)) if isinstance(value, list) else value
