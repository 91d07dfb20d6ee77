"""What `make docs` does besides turning pages into HTML: the reference, and links that lead out of docs/.

mkdocs calls these functions by their names (`hooks:` in mkdocs.yml).
"""

import re
from pathlib import Path

import commands
import reference
import sources
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_OUTWARD = re.compile(r"\]\(\.\./([\w./-]+)((?:#[\w-]*)?)\)")
_tree = sources.ROOT / "build" / "docs"
_tree.mkdir(parents=True, exist_ok=True)  # docstrings are looked for only where something is at the start


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lay the tree that the reference is read from, and put its pages into the navigation."""
    sources.lay(_tree)
    of_commands = [{"All commands": "commands/all.md"}]
    of_commands += [{f"kbdfl {name}": f"commands/{name}.md"} for name in commands.names()]
    modules = [{name: f"reference/{name}.md"} for name in reference.packages(_tree)]
    config.nav += [{"Commands": of_commands}, {"Reference": modules}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and those files outside docs/ that a page links to."""
    pages = {
        f"reference/{name}.md": reference.package_page(_tree, name) for name in reference.packages(_tree)
    }
    pages |= {f"commands/{name}.md": commands.page(name) for name in commands.names()}
    pages["commands/all.md"] = commands.list_page()
    for address, text in pages.items():
        files.append(File.generated(config, address, content=text))
    for address in sorted(_linked(files)):
        files.append(
            File.generated(config, f"source/{address}.txt", abs_src_path=str(sources.ROOT / address))
        )
    return files


def _linked(files: Files) -> set[str]:
    """Files of the repository that pages link to with `../`."""
    texts = [
        Path(file.abs_src_path).read_text("utf-8")
        for file in files.documentation_pages()
        if file.abs_src_path
    ]
    return {found[1] for text in texts for found in _OUTWARD.finditer(text)}


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let links out of docs/ lead to the copies."""
    return _OUTWARD.sub(lambda found: f"](source/{found[1]}.txt)", markdown)
