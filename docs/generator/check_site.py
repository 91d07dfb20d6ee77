"""What `make docs` asks of the site that it built: nothing is loaded from elsewhere, and every link leads somewhere.

    python docs/generator/check_site.py build/site

mkdocs itself warns of links between pages; this reads what browsers get, raw HTML, the theme and style sheets included.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself, as opposed to what a reader may click on.
LOADED = {
    ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("audio", "src"),
    ("link", "href"), ("object", "data"), ("embed", "src"), ("use", "href"),
}  # fmt: skip
IN_STYLE = re.compile(r"""url\(\s*["']?(?P<url>[^"')]+)|@import\s+["'](?P<imported>[^"']+)""")


class Page(HTMLParser):
    """A page's links, what it loads, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {""}
        self.drawn = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")
            elif (tag, name) in LOADED and dict(attributes).get("rel") != "canonical":
                self.loaded.append(value or "")
            elif tag == "a" and name == "href":
                self.links.append(value or "")
            elif name == "style":
                self.loaded += in_style(value or "")
            elif name == "class" and "mermaid" in (value or "").split():
                self.drawn = True


def in_style(text: str) -> list[str]:
    """What a style sheet loads."""
    return [found["url"] or found["imported"] for found in IN_STYLE.finditer(text)]


def elsewhere(url: str) -> bool:
    """Whether a browser would ask another host."""
    return bool(urlsplit(url).netloc)


def faults(site: Path) -> Iterator[str]:
    """A line for each thing that is wrong."""
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        for url in page.loaded:
            if elsewhere(url):
                yield f"{name} loads {url}"
        if path.name == "404.html":  # it may stand at any address, so its links begin at the root
            continue
        for url in page.links + page.loaded:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{name} has a link to {url}, which is not there"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{name} has a link to {url}, and there is no such place on that page"
        if page.drawn:
            yield f"{name} has a mermaid diagram, whose program the theme would load from another host"
    for path in sorted(site.rglob("*.css")):
        for url in in_style(path.read_text("utf-8")):
            if elsewhere(url):
                yield f"{path.relative_to(site)} loads {url}"


def main() -> None:
    """Exit code 1 and a line a fault."""
    site = Path(sys.argv[1]).resolve()
    found = list(faults(site))
    if found:
        raise SystemExit("\n".join(found))
    count = len(list(site.rglob("*.html")))
    sys.stdout.write(
        f"{count} pages in {sys.argv[1]}: every link leads somewhere, nothing is loaded from elsewhere\n"
    )


if __name__ == "__main__":
    main()
