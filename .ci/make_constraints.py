"""Write constraints.txt: one exact version for every package of the environment.

    make constraints              keep what is pinned, add what is new, drop what nothing needs
    make constraints UPGRADE=1    newest versions of everything but torch

pip resolves without installing. torch is asked for as `===`, so that the index's CUDA build is resolved even where a
CPU wheel is on offer, and its companions are pinned; it is written as `==`, which a CPU wheel of that version satisfies.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "constraints.txt"
OLDEST = (3, 11)  # the oldest Python needs every package that a newer one needs


def pins(text: str) -> dict[str, str]:
    """The `name==version` lines of a constraints file."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", text, flags=re.MULTILINE))


def resolve(torch: str, keep: dict[str, str]) -> dict[str, str]:
    """Ask pip which versions go together on Linux, the ones in `keep` given."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder, "constraints.txt"), Path(folder, "report.json")
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in keep.items()))
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--use-pep517"]
        command += ["--quiet", "--report", str(report), "-c", str(constraints)]
        subprocess.run([*command, f"torch==={torch}", f"{ROOT}[book,test]", "setuptools", "wheel"], check=True)
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {item["name"]: item["version"].partition("+")[0] for item in found if item["name"] != "ptv2lib"}


def main() -> None:
    """Resolve and write."""
    if sys.version_info[:2] != OLDEST:
        sys.exit(f"Run this with Python {OLDEST[0]}.{OLDEST[1]}, not {sys.version.split()[0]}.")
    current = pins(TARGET.read_text()) if TARGET.exists() else {}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default=current.get("torch"), required="torch" not in current)
    parser.add_argument("--upgrade", action="store_true")
    options = parser.parse_args()
    keep = {} if options.upgrade else {**current, "torch": options.torch}
    found = resolve(options.torch, keep)
    lines = [
        f"# Written by .ci/make_constraints.py (make constraints) on {date.today()}, Python {sys.version.split()[0]}.",
        "# torch has no +cpu on purpose: the line matches a CPU wheel where one is offered, else the CUDA build, whose",
        "# companions (cuda-*, nvidia-*, triton) are pinned too.",
        *(f"{name}=={found[name]}" for name in sorted(found, key=str.casefold)),
    ]
    TARGET.write_text("\n".join(lines) + "\n")
    print(f"{TARGET.name}: {len(found)} packages")


if __name__ == "__main__":
    main()
