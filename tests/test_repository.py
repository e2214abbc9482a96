"""What stands in more than one place is the same in all of them."""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
ADDRESS, BRANCH = CONFIG["repository"]["url"], CONFIG["repository"]["branch"]
COLAB = f"{CONFIG['launch_buttons']['colab_url']}/github/{ADDRESS.removeprefix('https://github.com/')}/blob/{BRANCH}/"
NOTEBOOKS = sorted(path.relative_to(ROOT) for path in (ROOT / "notebooks").glob("*.ipynb"))
LEFT_OUT = {"_build", "build", "dist", "runs", "__pycache__"}


def pins(name: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), flags=re.MULTILINE)
    return {normal(package): version for package, version in found}


def normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def texts() -> dict[str, str]:
    """Every text file that is or would be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.splitlines()]
    else:
        paths = [path for path in ROOT.rglob("*") if not hidden(path.relative_to(ROOT))]
    found = {}
    for path in paths:
        if path.is_file():
            try:
                found[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
    return found


def hidden(path: Path) -> bool:
    folders = [part for part in path.parts if part != ".ci"]
    return any(part.startswith(".") or part in LEFT_OUT or part.endswith(".egg-info") for part in folders)


TEXTS = texts()


def test_the_address_stands_where_it_must():
    assert PROJECT["urls"]["Repository"] == ADDRESS
    assert yaml.safe_load(TEXTS["CITATION.cff"])["repository-code"] == ADDRESS
    assert f"git+{ADDRESS}" in TEXTS["README.md"]


def test_no_file_has_another_address():
    owner, name = ADDRESS.split("/")[-2:]
    others = [(path, found) for path, text in TEXTS.items() for found in re.findall(rf"([\w.-]+)/{name}\b", text)]
    assert [(path, found) for path, found in others if found != owner] == []
    badges = [found for text in TEXTS.values() for found in re.findall(r"https://colab[\w.]+/github/[^)\s\"\\]+", text)]
    assert [badge for badge in badges if not badge.startswith(COLAB)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_a_notebook_has_its_badge(path):
    assert COLAB + str(path) in TEXTS[str(path)]
    assert COLAB + str(path) in TEXTS["README.md"]


def test_no_badge_without_a_notebook():
    named = re.findall(re.escape(COLAB) + r"([^)\s]+)", TEXTS["README.md"])
    assert not NOTEBOOKS or sorted(named) == sorted(map(str, NOTEBOOKS))


def test_versions_agree():
    assert yaml.safe_load(TEXTS["CITATION.cff"])["version"] == PROJECT["version"]


def test_conda_takes_the_same_pins():
    listed = yaml.safe_load(TEXTS["environment.yml"])["dependencies"]
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    python = next(entry.partition("=")[2] for entry in listed if isinstance(entry, str) and entry.startswith("python="))
    assert "-c constraints.txt" in pip and "-e .[book,test]" in pip
    assert python in Requirement(f"python{PROJECT['requires-python']}").specifier
    own = [entry for entry in pip if not entry.startswith("-")] + [e for e in listed if isinstance(e, str)]
    assert {entry.split("=")[0] for entry in own} == {"python", "pip"}, "a version belongs into constraints.txt"


def test_pins_are_exact_and_general():
    lines = [line for line in TEXTS["constraints.txt"].splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    found = pins("constraints.txt")
    assert found["torch"] and not {"pip", "ptv2lib"} & set(found)
    wanted = [
        *PROJECT["dependencies"],
        *(entry for extra in PROJECT["optional-dependencies"].values() for entry in extra),
    ]
    for requirement in map(Requirement, [*wanted, "setuptools", "wheel"]):
        assert found[normal(requirement.name)] in requirement.specifier, requirement


def test_installing_on_colab_replaces_nothing():
    colab = pins("tests/constraints-colab.txt")
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert all(part.operator == ">=" for part in requirement.specifier), f"{requirement}: lower bounds only"
        assert colab.get(normal(requirement.name), "999") in requirement.specifier, requirement
        assert Version(pins("constraints.txt")[normal(requirement.name)]) in requirement.specifier


def test_no_path_of_this_machine():
    own = {str(ROOT), str(Path.home()), str(Path(sys.prefix).resolve()), tempfile.gettempdir() + "/ipykernel"}
    rule = "|".join(re.escape(path) + r"(?![\w-])" for path in own if path.count("/") > 1 or path == str(Path.home()))
    rule += r"|(?<![\w.])/(?:home|Users)/[\w.-]+"
    assert [(path, match[0]) for path, text in TEXTS.items() for match in [re.search(rule, text)] if match] == []
