"""The site's pages are files of the repository in their places, so that every relative link stays valid."""

import logging
import posixpath
import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    *("README.md", "CITATION.cff", "data/README.md", "tests/golden/README.md", "results/*.md"),
    *("notebooks/*.ipynb", "notebooks/*.md", "results/reference/*.md"),
    *("results/reference/figures/*", "results/reference/tables/*.csv"),
)
FOLDERS = ("results/reference/tables",)
"""Folders that a page links to; each gets a page that lists its files."""

log = logging.getLogger("mkdocs.hooks")


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files, config):
    """Add the repository's files and the lists of folders."""
    for path in (path for pattern in FILES for path in sorted(ROOT.glob(pattern))):
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    for folder in FOLDERS:
        names = sorted(path.name for path in (ROOT / folder).iterdir())
        text = f"# {folder}\n\n" + "\n".join(f"* [{name}]({name})" for name in names)
        files.append(File.generated(config, f"{folder}/index.md", content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Let links to folders lead to their lists."""
    here = (ROOT / page.file.src_uri).parent

    def link(found):
        return f"]({found[1].rstrip('/')}/index.md)" if (here / found[1]).is_dir() else found[0]

    return re.sub(r"\]\(([^)#:\s]+)\)", link, markdown)


def on_page_content(html, page, config, files):
    """Let links of notebooks, which mkdocs does not see, lead to pages; warn of those that do not."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def link(found):
        parts = urlsplit(unescape(found[2]))
        if parts.scheme or parts.netloc or not parts.path:
            return found[0]
        path = posixpath.join(posixpath.dirname(page.file.src_uri), unquote(parts.path))
        target = files.get_file_from_path(posixpath.normpath(path))
        if target is None:
            log.warning("%s links to %s, which is no file of the site", page.file.src_uri, found[2])
            return found[0]
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        return f'{found[1]}="{target.url_relative_to(page.file)}{fragment}"'

    return re.sub(r'\b(href|src)="([^"]+)"', link, html)
