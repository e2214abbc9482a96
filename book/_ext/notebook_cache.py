"""Run a notebook again when anything its outputs depend on has changed, and say how long each one took.

jupyter-cache compares the source of the cells and nothing else: after a change of the library, of a pin or of the
profile it would answer with old outputs. Here each state of those things has a cache folder of its own, whose name
holds their hash. The environment variable EXECUTE chooses the execution mode (`EXECUTE=off` shows the stored outputs).
"""

import hashlib
import os
import platform
from pathlib import Path

from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.errors import ConfigError
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
ENVIRONMENT_FILE = "constraints.txt"
MODES = ("cache", "force", "off")
FOLDERS = ("ptv2lib", "book/_data")


def fingerprint(root: Path, profile: str, python: str = platform.python_version()) -> str:
    """Hash everything besides its own cells that a notebook's outputs depend on."""
    files = [root / ENVIRONMENT_FILE]
    for folder in FOLDERS:
        files += sorted(p for p in (root / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    digest = hashlib.sha256(f"{profile}\0{python}\0".encode())
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def cache_folder(build: Path, root: Path, profile: str) -> Path:
    """The cache for the present state of library, records, pins, profile and Python."""
    return build / ".jupyter_cache" / f"{profile}-{fingerprint(root, profile)}"


def choose(app, config) -> None:
    """Set mode and cache folder; myst-nb reads them later, on `builder-inited`."""
    profile = os.environ.get("PTV2_PROFILE", "default")
    config.nb_execution_mode = os.environ.get("EXECUTE") or "cache"
    if config.nb_execution_mode not in MODES:
        raise ConfigError(f"EXECUTE is one of {', '.join(MODES)}, not {config.nb_execution_mode!r}.")
    config.nb_execution_cache_path = str(cache_folder(Path(app.outdir).parent, Path(app.srcdir), profile))


def report(app, exception) -> None:
    """List the seconds each executed notebook took when it last ran."""
    if exception is not None:
        return
    rows = {name: NbMetadataCollector.get_exec_data(app.env, name) for name in sorted(app.env.found_docs)}
    rows = {name: data["runtime"] for name, data in rows.items() if data and data["runtime"] is not None}
    for name, seconds in rows.items():
        LOGGER.info(f"{seconds:8.1f} s  {name}")


def setup(app):
    """Connect both to Sphinx."""
    app.connect("config-inited", choose)
    app.connect("build-finished", report)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
