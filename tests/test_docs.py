"""mkdocs builds the site strictly, and no link of any page leads nowhere."""

import os
import re
import subprocess
import sys
from html import unescape
from urllib.parse import unquote

import pytest

from replication.files import ROOT

pytest.importorskip("mkdocs_jupyter", reason="make docs installs the extra `docs`")


def test_the_site_has_every_page_and_no_broken_link(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    notebooks = {f"notebooks/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")}
    notes = {"notebooks/DEVIATIONS.html", "results/reference/MODEL_CARD.html", "data/index.html"}
    assert notebooks | notes | {"index.html", "results/REPORT.html"} <= names
    for page in (tmp_path / name for name in names - {"404.html"}):
        links = re.findall(r'\b(?:href|src)="([^"#:]+)(?:#[^"]*)?"', page.read_text("utf-8"))
        paths = {page.parent / unquote(unescape(link)) for link in links if "//" not in link}
        assert not [str(path) for path in paths if not path.is_file()], page
