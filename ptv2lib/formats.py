"""Readers of the forms in which the owners of data sets distribute them; each gives rows in the Hub's columns.

Every reader takes a path for its messages and the text or objects of that file, and refuses what it cannot read with the
file and the line.
"""

from __future__ import annotations

import gzip
import json
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import DataError
from .metrics import spans

GZIP = b"\x1f\x8b"
PARTS_OF_A_VERB = ("B-V", "I-V", "B-C-V", "I-C-V")
DOCUMENT = "#begin document"  # the first line of CoNLL-2012's gold_conll
WHOLE_NUMBER = re.compile("-?[0-9]{1,18}")  # `str.isdigit` and `int` disagree on ², and `int` refuses very long numbers


def read_text(path: Path) -> str:
    """A text file, also one packed as `.gz`.

    Raises:
        DataError: if it is empty, not UTF-8, or packed without saying so.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"The file {path} cannot be read: {str(error) or type(error).__name__}") from None
    if content.startswith(GZIP):
        raise DataError(f"The file {path} is packed with gzip; unpack it, or let its name end in .gz.")
    if not content.strip():
        raise DataError(f"The file {path} is empty.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"The file {path}, line {line}, is not UTF-8.") from None


def ending_of(path: Path) -> str:
    """What the name ends in, `.gz` aside: `.jsonl` of `train.jsonl.gz`."""
    return Path(path.name.removesuffix(".gz")).suffix


def files_in(folder: Path) -> list[Path]:
    """All files inside, in order, without the hidden ones that a file manager leaves behind."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def raw_files(paths: Iterable[Path]) -> list[Path]:
    """The files that hold a split in its owner's form: those named, and of a folder all inside.

    Of a folder in the layout of CoNLL-2012 they are its `*gold_conll`, and the English ones where it has several languages.
    """
    found: list[Path] = []
    for path in paths:
        inside = files_in(path) if path.is_dir() else [path]
        documents = [file for file in inside if file.name.removesuffix(".gz").endswith("gold_conll")]
        found += [file for file in documents if "english" in file.parts] or documents or inside
    return found


def lines_of(text: str) -> list[str]:
    """Lines parted by line feeds alone: `str.splitlines` would part them at rarer signs that belong to a sentence."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def json_objects(path: Path, text: str) -> list[dict[str, Any]]:
    """One JSON object a line, or one SQuAD document (`{"data": […]}`, see `squad_rows`)."""
    lines = [(number, line) for number, line in enumerate(lines_of(text), 1) if line.strip()]
    if len(lines) == 1 or text.lstrip().startswith(("{\n", "{\r", "[")):
        whole = _parsed(f"The file {path}", text)
        if not isinstance(whole, dict):
            raise DataError(f"The file {path} must hold one JSON object a line.")
        return squad_rows(path, whole) if isinstance(whole.get("data"), list) else [whole]
    objects = []
    for number, line in lines:
        found = _parsed(f"The file {path}, line {number},", line)
        if not isinstance(found, dict):
            raise DataError(f"The file {path}, line {number}, must hold one JSON object.")
        objects.append(found)
    return objects


def _parsed(where: str, text: str) -> Any:
    """What a JSON text holds; `where` opens the sentence of a refusal."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} cannot be read: {error}") from None
    except RecursionError:
        raise DataError(f"{where} cannot be read: its brackets are nested too deeply.") from None


def squad_rows(path: Path, document: dict[str, Any]) -> list[dict[str, Any]]:
    """SQuAD's own JSON, versions 1.1 and 2.0: articles, paragraphs, questions (rajpurkar.github.io/SQuAD-explorer).

    A question with `is_impossible` has no answer. One that says nothing of answers is unlabelled: its `answers` are None.
    """
    rows = []
    for a, article in enumerate(_objects(document, "data", f"The file {path}")):
        in_article = f"The file {path}, article {a}"
        for p, paragraph in enumerate(_objects(article, "paragraphs", in_article)):
            in_paragraph = f"{in_article}, paragraph {p}"
            for q, question in enumerate(_objects(paragraph, "qas", in_paragraph)):
                where = f"{in_paragraph}, question {q}"
                answers = None
                if question.get("is_impossible"):
                    if question.get("answers"):
                        raise DataError(f"{where}: 'is_impossible' is true, and 'answers' has an answer.")
                    answers = {"text": [], "answer_start": []}
                elif question.get("answers") is not None:
                    given = _objects(question, "answers", where)
                    answers = {part: [_part(one, part, where) for one in given] for part in ("text", "answer_start")}
                rows.append(
                    {
                        "id": str(_part(question, "id", where)),
                        "title": article.get("title"),
                        "context": _part(paragraph, "context", in_paragraph),
                        "question": _part(question, "question", where),
                        "answers": answers,
                    }
                )
    return rows


def _part(holder: dict[str, Any], key: str, where: str) -> Any:
    """What an object of SQuAD's JSON has under a key."""
    if key not in holder:
        raise DataError(f"{where}: {key!r} is missing from SQuAD's JSON.")
    return holder[key]


def _objects(holder: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """The list of objects that an object of SQuAD's JSON has under a key."""
    value = _part(holder, key, where)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise DataError(f"{where}: {key!r} must be a list of JSON objects, not {value!r:.60}.")
    return value


def superglue_rows(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An object of SuperGLUE's JSON lines (version 2 of super.gluebenchmark.com) in the Hub's columns; others as they are.

    MultiRC's and ReCoRD's nested questions become one row each answer or query; WSC's `target` is laid open; a missing
    label becomes -1. ReCoRD's spans end inclusively in the files and exclusively here.

    Raises:
        KeyError, TypeError: if something of the form is missing.
        ValueError: for an entity outside its passage, or an answer that is not at its place there.
    """
    passage = row.get("passage")
    if isinstance(row.get("target"), dict):  # WSC
        yield {k: v for k, v in row.items() if k != "target"} | row["target"] | {"label": row.get("label", -1)}
    elif isinstance(passage, dict) and "questions" in passage:  # MultiRC
        for question in passage["questions"]:
            for answer in question["answers"]:
                yield {
                    "paragraph": passage["text"],
                    "question": question["question"],
                    "answer": answer["text"],
                    "idx": {"paragraph": row["idx"], "question": question["idx"], "answer": answer["idx"]},
                    "label": answer.get("label", -1),
                }
    elif isinstance(passage, dict) and "qas" in row:  # ReCoRD
        text = passage["text"]
        places = sorted({(span["start"], span["end"] + 1) for span in passage["entities"]})
        for start, end in places:
            if not 0 <= start < end <= len(text):
                raise ValueError(
                    f"the entity from {start} to {end - 1} lies outside its passage of {len(text)} characters"
                )
        for query in row["qas"]:
            for answer in query.get("answers", []):
                _check_place(answer, text)
            yield {
                "passage": text,
                "query": query["query"],
                "entities": sorted({text[start:end] for start, end in places}),
                "entity_spans": {
                    "text": [text[start:end] for start, end in places],
                    "start": [start for start, _ in places],
                    "end": [end for _, end in places],
                },
                "answers": sorted({answer["text"] for answer in query.get("answers", [])}),
                "idx": {"passage": row["idx"], "query": query["idx"]},
            }
    else:
        yield row


def _check_place(answer: Mapping[str, Any], passage: str) -> None:
    """Refuse an answer of ReCoRD that does not stand in its passage from `start` to `end`, inclusively."""
    start, end = answer["start"], answer["end"] + 1
    found = passage[max(start, 0) : max(end, 0)]
    if start < 0 or not found or found != answer["text"]:
        raise ValueError(f"'answers' puts {answer['text'][:40]!r} at {start}, where the passage says {found[:40]!r}")


def glue_rows(path: Path, text: str, columns: Mapping[str, int | str]) -> list[dict[str, Any]]:
    """GLUE's TSV (gluebenchmark.com): tab-separated, quotes are text, one header line.

    The label stands in the last column, headed `label` or `gold_label`; test files have none.

    Args:
        path: for messages.
        text: the file's content.
        columns: where each text column stands: its place from 0, or its header where the files differ in order.

    Raises:
        DataError: for columns that are not the task's, or a line with more or fewer of them than the header.
    """
    header, *lines = [line.split("\t") for line in lines_of(text.rstrip("\r\n"))]
    try:
        places = {column: header.index(at) if isinstance(at, str) else at for column, at in columns.items()}
        _ = [header[place] for place in places.values()]
    except (ValueError, IndexError):
        raise DataError(f"The file {path} has the columns {', '.join(header)}, and not those of this task.") from None
    labelled = header[-1] in ("label", "gold_label")
    rows = []
    for number, line in enumerate(lines):
        if len(line) != len(header):
            raise DataError(
                f"The file {path}, line {number + 2}: {len(line)} columns, and the header has {len(header)}."
            )
        label = line[-1] if labelled else "-1"
        value = {"label": int(label) if WHOLE_NUMBER.fullmatch(label) else label, "line": number + 2}
        rows.append({column: line[place] for column, place in places.items()} | value)
    return rows


def sentences(path: Path, text: str, tabs: bool = False) -> Iterator[tuple[int, list[list[str]]]]:
    """Blocks of lines parted by empty lines, as lists of white-space columns, each with the number of its first line.

    `-DOCSTART-` lines part blocks too, and in CoNLL-2012's `gold_conll` those that begin and end a document, and every document
    must end; elsewhere a line that starts so is a word.

    Args:
        path: for messages.
        text: the file's content.
        tabs: a line that has a tab is parted at tabs alone, so that a word may hold a blank.
    """
    ontonotes = text.lstrip().startswith(DOCUMENT)
    block: list[list[str]] = []
    opened: int | None = None
    first = 1
    for number, line in enumerate([*lines_of(text), ""], 1):
        line = line.rstrip(" \t")
        cells = [cell.strip(" ") for cell in line.split("\t")] if tabs and "\t" in line else _columns(line)
        outside = not any(cells) or line.startswith("-DOCSTART-")
        begins, ends = (ontonotes and line.startswith(sign) for sign in (DOCUMENT, "#end document"))
        if begins and opened:
            raise DataError(f"The file {path}, line {number}: the document of line {opened} has not ended.")
        opened = number if begins else None if ends else opened
        if outside or begins or ends:
            if block:
                widths = {len(row) for row in block}
                if len(widths) > 1:
                    raise DataError(
                        f"The file {path}, line {first}: the lines of one sentence have {min(widths)} to {max(widths)} columns."
                    )
                yield first, block
            block, first = [], number + 1
        else:
            block.append(cells)
    if opened:
        raise DataError(f"The file {path} ends inside the document that begins in line {opened}.")


def _columns(line: str) -> list[str]:
    """A line parted at blanks and tabs alone: `str.split` would part it at wider blanks that belong to a word."""
    return re.findall("[^ \t]+", line)


def tagged_rows(path: Path, text: str) -> list[dict[str, Any]]:
    """CoNLL-2003's column files: the word first, its tag last, one a line (Tjong Kim Sang and De Meulder, 2003).

    The archive of the official P-tuning v2 code uses the same, also as CoNLL-X with the word in the second column (a number
    stands in the first). CoNLL-2012's `gold_conll` is known by its first line; its names stand in brackets in column 10.
    Its documents of the Bible (`pt/…`) are left out, since nobody marked names in them: the standard division has 59,924
    training sentences without them, and 75,187 with them.
    """
    ontonotes = text.lstrip().startswith(DOCUMENT)
    rows = []
    for first, block in sentences(path, text, tabs=not ontonotes):
        where = f"The file {path}, line {first}"
        if ontonotes:
            cells = _ontonotes(where, block)
            if not block[0][0].startswith("pt/"):
                rows.append({"tokens": cells[3], "ner_tags": bracket_tags(cells[10], where), "line": first})
            continue
        if len(block[0]) < 2:
            raise DataError(f"{where}: a word and its tag must stand on one line.")
        word = 1 if len(block[0]) > 4 and [row[0] for row in block] == [str(i) for i in range(1, len(block) + 1)] else 0
        rows.append({"tokens": [row[word] for row in block], "ner_tags": [row[-1] for row in block], "line": first})
    return rows


def role_rows(path: Path, text: str) -> list[dict[str, Any]]:
    """Semantic roles, one row a predicate, from whichever of three text forms the file has.

    - `INDEX words ||| tags`, one predicate a line (the archive of the official P-tuning v2 code; luheng/deep_srl);
    - CoNLL-2012 `gold_conll` (conll.cemantix.org/2012): a `#begin document` line comes first; a predicate is a word with a
      frame-set number in column 7, its roles stand from column 11 on, in the same order;
    - CoNLL-2005 columns (lsi.upc.edu/~srlconll): words, then a column of target lemmas, then one column a target.

    The last two name a verb's `lemma`, and its `target` where the lemma stands at another word than the one at which the
    verb begins. They have sentences without a predicate, too: such a row is `silent` and has `tokens` alone. The owner's
    scorer wants every sentence back, so each row also names its `sentence`.
    """
    if "|||" in text.split("\n", 1)[0]:
        return _lined_roles(path, text)
    ontonotes = text.lstrip().startswith(DOCUMENT)
    rows = []
    for first, block in sentences(path, text):
        where = f"The file {path}, line {first}"
        words, lemmas, targets, columns = _frames(where, block) if ontonotes else _props(where, block)
        shared = {"tokens": words, "sentence": f"{path} {first}", "line": first}
        shared |= {"document_id": block[0][0]} if ontonotes else {}
        said = verbs([bracket_tags(column, where) for column in columns], targets, lemmas, where)
        rows += [shared | verb for verb in said] or [shared | {"silent": True}]
    return rows


def verbs(
    columns: Sequence[list[str]], targets: Sequence[int], lemmas: Sequence[str | None], where: str
) -> list[dict[str, Any]]:
    """What a sentence's columns of roles say, one row a verb: `predicate`, `tags`, `lemma`, and `target` if it is elsewhere.

    A column says itself where its verb begins. CoNLL-2012 has one column without a verb, which no scorer can use: it is left
    out, with a warning.

    Args:
        columns: IOB2 tags.
        targets: the words that the owner names as verbs, in the order of all columns or of those with a verb. Where they are
            neither, or the column has no part of its verb there, the place where the verb begins stands for it.
        lemmas: one a word.
        where: what to call the sentence in the warning.
    """
    whole = len(targets) == len(columns)
    said = [(number, tags) for number, tags in enumerate(columns) if "B-V" in tags]
    if len(said) < len(columns):
        without = len(columns) - len(said)
        warnings.warn(f"{where}: {without} of {len(columns)} columns of roles without a verb left out.", stacklevel=2)
    rows = []
    for order, (number, tags) in enumerate(said):
        place = tags.index("B-V")
        at = number if whole else order
        target = targets[at] if whole or len(targets) == len(said) else place
        target = target if tags[target] in PARTS_OF_A_VERB else place
        row = {"predicate": place, "tags": tags, "lemma": lemmas[target]}
        rows.append(row | ({"target": target} if target != place else {}))
    return rows


def _ontonotes(where: str, block: list[list[str]]) -> list[list[str]]:
    """The columns of a sentence of gold_conll."""
    if len(block[0]) < 12:
        raise DataError(f"{where}: {len(block[0])} columns, and gold_conll has at least 12.")
    return [list(column) for column in zip(*block, strict=True)]


Roles = tuple[list[str], list[str], list[int], list[list[str]]]  # words, lemmas, targets, columns of brackets


def _frames(where: str, block: list[list[str]]) -> Roles:
    """A sentence of gold_conll: a target is a word with a frame set."""
    cells = _ontonotes(where, block)
    columns, targets = cells[11:-1], [place for place, cell in enumerate(cells[7]) if cell != "-"]
    # One sentence of the set has a column without a verb, which may or may not have a frame set of its own.
    with_verb = sum(any(cell.startswith("(V*") for cell in column) for column in columns)
    if len(targets) not in (len(columns), with_verb):
        raise DataError(f"{where}: {len(targets)} predicates, but {len(columns)} columns of roles.")
    return cells[3], cells[6], targets, columns


def pasted_roles(words: Path, props: Path) -> list[dict[str, Any]]:
    """CoNLL-2005's release, where words and roles lie in two files, line by line."""
    left, right = (lines_of(read_text(path).rstrip(" \t\r\n")) for path in (words, props))
    if len(left) != len(right):
        raise DataError(f"The files {words} and {props} have {len(left)} and {len(right)} lines.")
    return role_rows(
        props, "\n".join(f"{one.strip()} {other.strip()}".strip() for one, other in zip(left, right, strict=True))
    )


def _lined_roles(path: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        left, sign, right = line.partition("|||")
        index, *words = left.split() or [""]
        if not sign or not WHOLE_NUMBER.fullmatch(index):
            raise DataError(f"The file {path}, line {number}: expected 'INDEX words ||| tags'.")
        rows.append({"tokens": words, "predicate": int(index), "tags": right.split(), "line": number})
    return rows


def _props(where: str, block: list[list[str]]) -> Roles:
    """A sentence of CoNLL-2005: the lemmas are where as many columns follow as it names targets.

    Raises:
        DataError: where no column is so, or a column of roles breaks the form, or its verb is not at its target.
    """
    width = len(block[0])
    columns = [list(column) for column in zip(*block, strict=True)]
    for number in range(1, width):
        lemmas, roles = columns[number], columns[number + 1 :]
        targets = [place for place, cell in enumerate(lemmas) if cell != "-"]
        bracketed = all("*" in cell for column in roles for cell in column)
        with_verb = all(any(cell.startswith("(V*") for cell in column) for column in roles)
        if len(targets) == len(roles) and bracketed and with_verb:
            for column, target in zip(roles, targets, strict=True):
                _check_verb(column, target, where)
            return columns[0], lemmas, targets, roles
    raise DataError(f"{where}: no column of target verbs fits the columns of roles behind it.")


def _check_verb(column: Sequence[str], target: int, where: str) -> None:
    """A verb of several words, in one piece or more, may have its target at any of them.

    Raises:
        DataError: for a cell that is not start-end notation, two verbs, or a verb that is not at its target.
    """
    tags = bracket_tags(column, where)
    for place, (cell, tag) in enumerate(zip(column, tags, strict=True)):
        form = re.fullmatch(r"(?:\([^()*]+)?\*(?:([^()*]*)\))?", cell)
        # CoNLL-2004 wrote the role at the closing bracket, too, and srl-eval.pl still reads that.
        if form is None or (form[1] is not None and (tag == "O" or form[1] not in ("", tag[2:]))):
            raise DataError(f"{where}, word {place}: {cell} is neither a start, an inside nor an end of an argument.")
    if tags.count("B-V") > 1:
        raise DataError(f"{where}: the column of the target at word {target} has {tags.count('B-V')} verbs.")
    if tags[target] not in PARTS_OF_A_VERB:
        raise DataError(f"{where}: the target is word {target}, but its column has (V*) at word {tags.index('B-V')}.")


def bracket_tags(column: Sequence[str], where: str) -> list[str]:
    """Start-end notation (`(A0*`, `*`, `*)`) as IOB2 tags.

    Raises:
        DataError: for brackets that do not close or open inside one another.
    """
    tags, opened = [], None
    for place, cell in enumerate(column):
        if "(" in cell:
            if opened is not None:
                raise DataError(f"{where}, word {place}: {cell} opens inside {opened}.")
            opened = cell[cell.index("(") + 1 :].split("*")[0].rstrip(")")
            tags.append(f"B-{opened}")
        else:
            tags.append("O" if opened is None else f"I-{opened}")
        if ")" in cell:
            opened = None
    if opened is not None:
        raise DataError(f"{where}: the bracket of {opened} does not close.")
    return tags


def brackets(tags: Sequence[str]) -> list[str]:
    """Tags in start-end notation: what `bracket_tags` reads."""
    cells = ["*"] * len(tags)
    for kind, start, end in spans(tags):
        cells[start] = f"({kind}*"
        cells[end - 1] += ")"
    return cells
