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
FILES = ("*.md", "*.cff", "data/*.md", "results/*.md", "results/reference/*.md", "tests/golden/*.md",
         "results/reference/figures/*", "results/reference/tables/*.csv",
         "notebooks/*.md", "notebooks/*.ipynb")  # fmt: skip
TABLES = "results/reference/tables"
log = logging.getLogger("mkdocs.hooks")


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files, config):
    """Add the repository's files, and a page that lists the tables: the README links to their folder."""
    for path in (path for pattern in FILES for path in sorted(ROOT.glob(pattern))):
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    listed = [f"* [{path.name}]({path.name})" for path in sorted((ROOT / TABLES).iterdir())]
    files.append(
        File.generated(config, f"{TABLES}/index.md", content="\n".join([f"# {TABLES}", "", *listed]))
    )


def on_page_markdown(markdown, page, config, files):
    """Let links to the folder lead to that page."""
    return re.sub(rf"\]\(({TABLES})/?\)", r"](\1/index.md)", markdown)


def on_page_content(html, page, config, files):
    """Let links of notebooks, which mkdocs does not see, lead to pages; warn of those that do not."""

    def link(found):
        parts = urlsplit(unescape(found[2]))
        path = posixpath.join(posixpath.dirname(page.file.src_uri), unquote(parts.path))
        target = files.get_file_from_path(posixpath.normpath(path))
        if target:
            url = parts._replace(path=target.url_relative_to(page.file)).geturl()
            return f'{found[1]}="{url}"'
        if parts.path and not parts.netloc and not parts.scheme:
            log.warning("%s links to %s, which is no file of the site", page.file.src_uri, found[2])
        return found[0]

    return re.sub(r'\b(href|src)="([^"]+)"', link, html) if "ipynb" in page.file.src_uri else html
