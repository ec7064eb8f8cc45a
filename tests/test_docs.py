"""mkdocs builds the site strictly, and no link of any page leads nowhere."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from replication.files import ROOT

pytest.importorskip("mkdocs_jupyter", reason="the extra `docs` is not installed; make docs installs it")


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value and tag != "link":
                self.links.append(urlsplit(value))
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def test_the_site_has_every_page_and_no_broken_link(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path / "site"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path: Page(path) for path in (tmp_path / "site").rglob("*.html")}
    names = {path.relative_to(tmp_path / "site").as_posix() for path in pages}
    notebooks = {f"notebooks/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")}
    notes = {"notebooks/DEVIATIONS.html", "results/reference/MODEL_CARD.html", "data/index.html"}
    assert notebooks | notes | {"index.html", "results/REPORT.html"} <= names
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if link.scheme or link.netloc or path.name == "404.html":
                continue
            there = (path.parent / unquote(link.path)).resolve() if link.path else path
            anchors = pages[there].anchors if there in pages else {link.fragment}
            if not there.is_file() or (link.fragment and unquote(link.fragment) not in anchors):
                broken.append((path.name, link.geturl()))
    assert not broken
