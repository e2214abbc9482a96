"""The site, built strictly from the stored outputs."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parent.parent
TOC = yaml.safe_load((ROOT / "book/_toc.yml").read_text())
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
pytestmark = pytest.mark.site


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, BeautifulSoup]:
    """Every HTML page, parsed."""
    return {path: BeautifulSoup(path.read_text(), "html.parser") for path in sorted(site.rglob("*.html"))}


def test_every_notebook_and_page_is_in_the_table_of_contents():
    written = [path for folder in ("book", "notebooks") for path in (ROOT / folder).glob("*.*")]
    written = [path.relative_to(ROOT).with_suffix("") for path in written if path.suffix in (".md", ".ipynb")]
    assert sorted(map(str, written)) == sorted(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_there_and_not_empty(site, pages, name):
    text = pages[site / f"{name}.html"].find("article").get_text(" ", strip=True)
    assert len(text) > 200


def test_no_page_shows_an_unresolved_role(pages):
    assert [str(path) for path, page in pages.items() if page.select(".problematic, .system-message")] == []


def test_formulas_need_no_script_and_no_network(site, pages):
    assert len(pages[site / "book/notation.html"].select("article math")) > 10
    scripts = [script["src"] for page in pages.values() for script in page.select("script[src]")]
    assert [source for source in scripts if "mathjax" in source.lower()] == []
    texts = {
        path: " ".join(paragraph.get_text() for paragraph in page.select("article p")) for path, page in pages.items()
    }
    assert [str(path) for path, text in texts.items() if r"\(" in text] == []


def test_every_image_has_an_alternative_text(pages):
    def bad(image) -> bool:
        alt, name = (image.get("alt") or "").strip(), Path(urlsplit(image.get("src", "")).path).name
        return not alt or name in alt or alt.startswith("_images") or "/_images/" in alt

    assert [(path.name, str(image)[:200]) for path, page in pages.items() for image in page("img") if bad(image)] == []


def test_internal_links_resolve(site, pages):
    names = {path: {tag["id"] for tag in page.select("[id]")} for path, page in pages.items()}
    broken = []
    for path, page in pages.items():
        for link in page.select("a[href]"):
            url = urlsplit(link["href"])
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            missing = url.fragment and target in names and unquote(url.fragment) not in names[target]
            if not target.exists() or missing:
                broken.append((str(path.relative_to(site)), link["href"]))
    assert broken == []
