"""The site is the repository's text, and no link in it leads nowhere."""

import re

import pytest

from replication import site
from replication.files import ROOT, ReplicationError


@pytest.fixture
def small(tmp_path):
    """A repository with a page, a picture, a folder and a note."""
    root = tmp_path / "repository"
    (root / "results/reference/tables").mkdir(parents=True)
    (root / "results/reference/tables/a.csv").write_text("x\n1\n")
    (root / "results/picture.png").write_bytes(b"png")
    (root / "README.md").write_text(
        "# Kit\n\n[report](results/REPORT.md#d1) [rows](results/reference/tables) "
        "[out](https://example.org/x)\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |\n"
    )
    (root / "results/REPORT.md").write_text(
        '<a id="d1"></a>\n## One $x^2$\n\n![shown](picture.png) [home](../README.md)\n'
    )
    return root


def test_links_lead_to_pages_copies_and_listings(small, tmp_path, monkeypatch):
    monkeypatch.setattr(site, "_MENU", {"Home": "index.html"})
    pages = site.build(tmp_path / "site", small)
    assert [str(page.relative_to(tmp_path / "site")) for page in pages] == [
        "index.html",
        "results/REPORT.html",
    ]
    home, report = (page.read_text() for page in pages)
    assert 'href="results/REPORT.html#d1"' in home
    assert 'href="results/reference/tables/index.html"' in home
    assert 'href="https://example.org/x"' in home
    assert "<td>1</td>" in home
    assert "MathJax" not in home
    assert 'src="picture.png"' in report
    assert 'href="../index.html"' in report
    assert "MathJax" in report
    assert (tmp_path / "site/results/picture.png").read_bytes() == b"png"
    assert (tmp_path / "site/results/reference/tables/a.csv").read_text() == "x\n1\n"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [("results/lost.md", "results/lost.md"), ("results/REPORT.md#d2", "REPORT.html#d2")],
)
def test_a_broken_link_is_told_and_leaves_the_old_site(small, tmp_path, monkeypatch, wrong, told):
    monkeypatch.setattr(site, "_MENU", {"Home": "index.html"})
    site.build(tmp_path / "site", small)
    before = (tmp_path / "site/index.html").read_bytes()
    (small / "README.md").write_text(f"# Kit\n\n[here]({wrong})\n")
    with pytest.raises(ReplicationError, match=re.escape(told)):
        site.build(tmp_path / "site", small)
    assert (tmp_path / "site/index.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repository", "site"]


def test_another_folder_is_not_replaced(small, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.txt").write_text("mine")
    for _ in range(2):  # with another site's first page, too
        with pytest.raises(ReplicationError, match="no earlier site"):
            site.build(tmp_path / "precious", small)
        assert (tmp_path / "precious/thesis.txt").read_text() == "mine"
        (tmp_path / "precious/index.html").write_text("<html><title>my home page</title></html>")


def test_the_kits_own_site_has_every_notebook_and_no_broken_link(tmp_path):
    pages = {str(p.relative_to(tmp_path / "site")) for p in site.build(tmp_path / "site")}
    notebooks = {f"notebooks/{p.stem}.html" for p in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks | {"index.html", "results/REPORT.html"} <= pages
    report = (tmp_path / "site/results/REPORT.html").read_text()
    for picture in re.findall(r'<img src="([^"]+)"', report):
        assert (tmp_path / "site/results" / picture).stat().st_size > 1000
