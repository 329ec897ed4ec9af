"""Makes every Markdown file of the repository a page of the site, under its own path.

MkDocs takes pages from one folder and knows no file outside of it. With this hook the README is the
first page, and a relative link is the same in the repository and on the site. A link to a folder is
plain text on the site, which has no page for it.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = (
    "*.md",
    "docs/**/*.md",
    "docs/*.css",
    "benchmarks/*.md",
    "benchmarks/results/**/*.md",
    "examples/*.md",
    "fsad_edge/training/*.md",
    "pretraining/*.md",
)

_LINK = re.compile(r"\]\(([^)#:\s]+)")
_FOLDER_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:\s]+/)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace what MkDocs found by the repository's pages and the files that they link to."""
    root = Path(config.config_file_path).parent
    pages = [path for pattern in PAGES for path in sorted(root.glob(pattern))]
    linked = {
        target
        for page in pages
        if page.suffix == ".md"
        for link in _LINK.findall(page.read_text())
        if (target := (page.parent / link).resolve()).is_file() and target.is_relative_to(root)
    }
    theme = [file for file in files if file.src_dir != config.docs_dir]
    ours = sorted({*pages, *linked})
    return Files([*theme, *(_file(path.relative_to(root), root, config) for path in ours)])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave the text of a link to a folder of the repository."""
    folder = (Path(config.config_file_path).parent / page.file.src_uri).parent

    def text_of(link: re.Match[str]) -> str:
        return link[1] if (folder / link[2]).is_dir() else link[0]

    return _FOLDER_LINK.sub(text_of, markdown)


def _file(path: Path, root: Path, config: MkDocsConfig) -> File:
    return File(path.as_posix(), str(root), config.site_dir, config.use_directory_urls)
