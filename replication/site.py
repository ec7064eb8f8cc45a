"""The static site: README, report, notebooks and notes as HTML, every link checked."""

from __future__ import annotations

import html
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from replication.files import ROOT, ReplicationError

PAGES = (
    "README.md",
    "results/REPORT.md",
    "results/README.md",
    "results/reference/MODEL_CARD.md",
    "results/reference/BENCHMARK.md",
    "notebooks/README.md",
    "notebooks/DEVIATIONS.md",
    "notebooks/*.ipynb",
    "data/README.md",
    "tests/golden/README.md",
)
"""What becomes a page, relative to the repository; files that pages link to are copied."""

_MENU = {
    "Home": "index.html",
    "Report": "results/REPORT.html",
    "Notebooks": "notebooks/README.html",
    "Deviations": "notebooks/DEVIATIONS.html",
    "Model card": "results/reference/MODEL_CARD.html",
    "Benchmarks": "results/reference/BENCHMARK.html",
}

_STYLE = """
body { max-width: 66rem; margin: 0 auto; padding: 0 1rem 4rem; line-height: 1.5; color: #222;
  font-family: system-ui, sans-serif; }
nav { border-bottom: 1px solid #ccc; padding: .8rem 0; } nav a { margin-right: 1.2rem; }
a { color: #0062a3; } img { max-width: 100%; height: auto; }
pre, code { font-family: ui-monospace, monospace; font-size: .88em; }
pre { overflow-x: auto; padding: .6rem .8rem; background: #f6f6f4; line-height: 1.35; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: .88em; margin: 1rem 0; }
th, td { border: 1px solid #ddd; padding: .25rem .6rem; vertical-align: top; }
th { background: #f0f0ee; }
.input .prompt, .output .prompt, .output_wrapper .prompt { display: none; }
.output_area pre { background: none; border-left: 3px solid #0072b2; }
.anchor-link { visibility: hidden; text-decoration: none; } h1:hover .anchor-link,
h2:hover .anchor-link, h3:hover .anchor-link { visibility: visible; }
@media print { nav { display: none; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="replication docs">
<title>{title}</title>
<style>{style}</style>{mathematics}
</head>
<body>
<nav>{menu}</nav>
{body}
</body>
</html>
"""

_GENERATOR = next(line for line in _PAGE.splitlines() if 'name="generator"' in line)
"""By which an earlier site is known."""

_MATHEMATICS = """
<script>MathJax = {tex: {inlineMath: [["$", "$"]]}};</script>
<script async src="https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-chtml.js"></script>"""


def build(output: str | Path, root: str | Path = ROOT) -> list[Path]:
    """Render the site into a folder, which it replaces.

    Parameters
    ----------
    output
        The site's folder; one that is there must be an earlier site (or empty).
    root
        The repository.

    Returns
    -------
    list of Path
        The pages.

    Raises
    ------
    ReplicationError
        If a page links to a file that is not there, or the folder is something else.
    """
    output, root = Path(output), Path(root).resolve()
    if output.exists() and not _replaceable(output):
        raise ReplicationError(f"{output} is not empty and no earlier site; choose another folder.")
    sources = [path for pattern in PAGES for path in sorted(root.glob(pattern))]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".site.", dir=output.parent) as part:
            part = Path(part)
            pages = [_render(path, root, part) for path in sources]
            if broken := list(broken_links(part)):
                page, link = broken[0]
                raise ReplicationError(f"{page} links to {link}, which is not there.")
            shutil.rmtree(output, ignore_errors=True)
            shutil.copytree(part, output)
    except OSError as error:
        raise ReplicationError(f"Cannot write {output}: {error.strerror or error}.") from error
    return [output / page.relative_to(part) for page in pages]


def _replaceable(folder: Path) -> bool:
    """Whether nothing is lost with a folder: it is empty, or an earlier site."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    index = folder / "index.html"
    return index.is_file() and _GENERATOR in index.read_text(encoding="utf-8", errors="replace")


def _target(source: Path, root: Path) -> Path:
    """Page of a source, relative to the site."""
    name = source.relative_to(root)
    return Path("index.html") if name == Path("README.md") else name.with_suffix(".html")


def _render(source: Path, root: Path, site: Path) -> Path:
    page = site / _target(source, root)
    body = _notebook(source) if source.suffix == ".ipynb" else _markdown(source)
    body = re.sub(
        r'(?<=\s)(href|src)="([^"]*)"',
        lambda found: f'{found[1]}="{_link(found[2], source, root, site)}"',
        body,
    )
    menu = "".join(
        f'<a href="{os.path.relpath(site / there, page.parent)}">{name}</a>'
        for name, there in _MENU.items()
    )
    title = re.search(r"<h1[^>]*>(.*?)(<a|</h1>)", body, re.DOTALL)
    style = _STYLE
    if source.suffix == ".ipynb":
        from pygments.formatters import HtmlFormatter

        style += HtmlFormatter(style="default").get_style_defs(".highlight")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(
        _PAGE.format(
            title=re.sub(r"<[^>]+>", "", title[1]).strip() if title else html.escape(source.stem),
            style=style,
            mathematics=_MATHEMATICS if "$" in body else "",
            menu=menu,
            body=body,
        ),
        encoding="utf-8",
    )
    return page


def _markdown(source: Path) -> str:
    import mistune

    render = mistune.create_markdown(escape=False, plugins=["table"])
    return render(source.read_text(encoding="utf-8"))


def _notebook(source: Path) -> str:
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter(template_name="basic").from_filename(str(source))
    return body


def _link(link: str, source: Path, root: Path, site: Path) -> str:
    """Where a link of a source leads in the site; what is no page itself is copied there."""
    parts = urlsplit(html.unescape(link))
    if parts.scheme or parts.netloc or not parts.path:
        return link
    there = (source.parent / unquote(parts.path)).resolve()
    if not there.is_relative_to(root) or not there.exists():
        return link  # broken_links will tell
    if any(there.match(str(root / pattern)) for pattern in PAGES):
        goal = site / _target(there, root)
    else:
        goal = site / there.relative_to(root)
        if there.is_dir():
            goal = _listing(there, goal)
        else:
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there, goal)
    here = (site / _target(source, root)).parent
    return os.path.relpath(goal, here) + (f"#{parts.fragment}" if parts.fragment else "")


def _listing(folder: Path, goal: Path) -> Path:
    """A page that lists the files of a folder, which are copied beside it."""
    goal.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for name in names:
        shutil.copyfile(folder / name, goal / name)
    lines = "".join(f'<li><a href="{name}">{name}</a></li>' for name in names)
    page = goal / "index.html"
    title = html.escape(folder.name)
    body = f"<h1>{title}</h1><ul>{lines}</ul>"
    page.write_text(_PAGE.format(title=title, style=_STYLE, mathematics="", menu="", body=body))
    return page


class _Links(HTMLParser):
    """Collects the links and the anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Keep ``href``, ``src``, ``id`` and ``name``."""
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors |= {value, unquote(value)}


def _read(page: Path) -> _Links:
    links = _Links()
    links.feed(page.read_text(encoding="utf-8"))
    return links


def broken_links(site: str | Path) -> Iterator[tuple[Path, str]]:
    """Links of a site's pages into itself that lead nowhere, file or anchor.

    Parameters
    ----------
    site
        Folder of the site.

    Yields
    ------
    page : Path
        Relative to the site.
    link : str
        As it stands in the page.
    """
    site = Path(site)
    pages = {page: _read(page) for page in sorted(site.rglob("*.html"))}
    for page, content in pages.items():
        for link in content.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = page
            if parts.path:
                there = Path(os.path.normpath(page.parent / unquote(parts.path)))
            missing = not there.is_file()
            if not missing and parts.fragment and there in pages:
                missing = unquote(parts.fragment) not in pages[there].anchors
            if missing:
                yield page.relative_to(site), link
