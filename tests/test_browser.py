"""The site in a headless Chromium: nothing sticks out, every picture is there, dark mode stays readable."""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import yaml

TOC = yaml.safe_load((Path(__file__).parent.parent / "book/_toc.yml").read_text())
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]

# Loads each page in a frame of a given width, so that its media queries see that width, and writes down what it finds.
HARNESS = """<!doctype html><title>harness</title><body><script>
const luminance = colour => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = node => {
  for (; node; node = node.parentElement) {
    const colour = node.ownerDocument.defaultView.getComputedStyle(node).backgroundColor;
    if (!/rgba\\(.*, 0\\)|transparent/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
const contrast = node => {
  const style = node.ownerDocument.defaultView.getComputedStyle(node);
  const [a, b] = [luminance(style.color), luminance(background(node))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
};
const look = (url, width, theme) => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:900px;border:0`;
  frame.onload = () => setTimeout(() => {
    const page = frame.contentDocument, root = page.documentElement;
    root.dataset.theme = theme;
    const texts = [...page.querySelectorAll("article p, article td, article pre, article h2")];
    done({url, width, theme, wide: root.scrollWidth - width,
      broken: [...page.images].filter(i => i.loading !== "lazy" && !i.naturalWidth).map(i => i.src),
      contrast: Math.min(21, ...texts.filter(t => t.innerText.trim()).map(contrast))});
    frame.remove();
  }, 400);
  frame.src = url;
  document.body.append(frame);
});
(async () => {
  const found = [];
  for (const url of PAGES) for (const [width, theme] of [[1280, "light"], [390, "light"], [390, "dark"]])
    found.push(await look(url, width, theme));
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
})();
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def looks(site, tmp_path_factory) -> list[dict]:
    """What Chromium sees of each page, wide, narrow and dark."""
    urls = [f"/{name}.html" for name in PAGES]
    (site / "harness.html").write_text(HARNESS.replace("PAGES", json.dumps(urls)))
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        profile = tmp_path_factory.mktemp("chromium")
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += [
            f"--user-data-dir={profile}",
            "--window-size=1400,1000",
            "--virtual-time-budget=600000",
            "--dump-dom",
        ]
        command += [f"http://127.0.0.1:{server.server_port}/harness.html"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ)
        server.shutdown()
    found = re.search(r'<pre id="found">(.*?)</pre>', run.stdout, re.DOTALL)
    assert found, run.stderr[-2000:]
    return json.loads(found[1])


def test_every_page_was_looked_at(looks):
    assert len(looks) == 3 * len(PAGES)


def test_no_page_is_wider_than_its_window(looks):
    assert [(look["url"], look["width"], look["wide"]) for look in looks if look["wide"] > 0] == []


def test_every_picture_loads(looks):
    assert [(look["url"], look["broken"]) for look in looks if look["broken"]] == []


def test_text_stands_out_from_its_ground(looks):
    """At least the 4.5 to 1 that WCAG asks for, in light and in dark."""
    assert [(look["url"], look["theme"], look["contrast"]) for look in looks if look["contrast"] < 4.5] == []
