"""Data flows one way: a module imports only from modules above it, and importing the package costs nothing."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "ptv2lib"
ORDER = [
    "errors",
    "files",
    "randomness",
    "memory",
    "hub",
    "metrics",
    "attention_overrides",
    "attention",
    "backbones",
    "prefix",
    "prompts",
    "adapters",
    "encoding",
    "templates",
    "heads",
    "formats",
    "sources",
    "tasks",
    "methods",
    "options",
    "model",
    "building",
    "loading",
    "zero_shot",
    "records",
    "folders",
    "training",
    "multitask",
    "predictions",
    "plots",
    "checks",
    "profiles",
    "__main__",
    "__init__",
]


def imported(path: Path) -> set[str]:
    """Names of the package's own modules that a file imports."""
    inside = path.relative_to(PACKAGE).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            within_tasks = len(inside) > 1 and node.level == 1
            if not within_tasks:
                found |= {(node.module or name.name).split(".")[0] for name in node.names}
    return found


def test_modules_import_only_from_above():
    files = {path.relative_to(PACKAGE).parts[0].removesuffix(".py"): [] for path in PACKAGE.rglob("*.py")}
    for path in PACKAGE.rglob("*.py"):
        files[path.relative_to(PACKAGE).parts[0].removesuffix(".py")].append(path)
    assert set(files) <= set(ORDER), set(files) - set(ORDER)
    for module, paths in files.items():
        for path in paths:
            below = {name for name in imported(path) if ORDER.index(name) >= ORDER.index(module)}
            assert not below, f"{path.name} imports {below} from below"


def test_the_page_of_the_library_keeps_the_order():
    page = (PACKAGE.parent / "book" / "api.md").read_text()
    shown = [name for name in re.findall(r"(?m)^## `ptv2lib\.([\w.]+)`", page) if not name.startswith("tasks.")]
    private = {"__main__", "__init__"}
    assert shown == [name for name in ORDER if name not in private]


def test_importing_is_quick_and_loads_nothing_heavy():
    code = "import sys, ptv2lib; print([m for m in ('torch', 'transformers', 'datasets', 'matplotlib') if m in sys.modules])"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]", done.stderr
    assert time.perf_counter() - started < 2  # the process as a whole, on a busy machine
    timed = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import ptv2lib"], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    own = next(line for line in timed.stderr.splitlines() if line.endswith("ptv2lib"))
    assert int(own.split("|")[1]) < 300_000  # microseconds


def test_nothing_is_unpickled_and_no_remote_code_is_run():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for forbidden in ("torch.load", "import pickle", "trust_remote_code=True", "exec(", "eval("):
            assert forbidden not in text.replace(".eval(", "").replace("literal_eval(", ""), f"{path.name}: {forbidden}"


def test_public_names_are_there():
    import ptv2lib

    for name in ptv2lib.__all__:
        assert getattr(ptv2lib, name).__doc__
