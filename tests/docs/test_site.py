"""The makers of the site: kernels that say what they do, and a check that finds what a browser would stumble over."""

import ast
import importlib.util
import shutil

import pytest

from tests.docs.pages import ROOT


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "generator" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sources, check_site, commands = loaded("sources"), loaded("check_site"), loaded("commands")
STUBS = sorted((ROOT / "kernels").glob("*.pyi"))


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.stem)
def test_a_kernel_has_its_stubs_signatures_and_its_sources_docstrings(stub):
    def told(node):
        return {each.name: each for each in node.body if isinstance(each, ast.FunctionDef | ast.ClassDef)}

    shown, signed = told(ast.parse(sources.kernel(stub))), told(ast.parse(stub.read_text("utf-8")))
    assert shown.keys() == signed.keys()
    for name, node in shown.items():
        assert ast.get_docstring(node), f"{stub.stem}.{name} says nothing"
        if isinstance(node, ast.FunctionDef):
            assert ast.unparse(node.args) == ast.unparse(signed[name].args)
    assert ast.get_docstring(ast.parse(sources.kernel(stub)))


def test_a_docstring_goes_to_the_function_that_it_is_of():
    source = 'def a(int x):\n    """Of a."""\n\ncdef class B:\n    """Of B."""\n    def c(self):\n        """Of c."""\n'
    assert sources.docstrings(source) == {"a": "Of a.", "B": "Of B.", "B.c": "Of c."}


def test_the_tree_has_all_four_folders_as_they_install(tmp_path):
    tree = sources.lay(tmp_path / "tree") / "kbdfl"
    for path in ("coordinator.py", "kernels/train.py", "server/app.py", "device_sim/typing/sources.py"):
        assert (tree / path).is_file()
    assert not list(tree.rglob("node_modules"))


def test_a_command_page_says_what_help_says():
    page = commands.page("data")
    assert "## kbdfl data import" in page
    assert "`--me TEXT`" in page
    assert "Who you are in it" in page
    assert all(f"kbdfl {name}" in commands.list_page() for name in commands.names())
    assert "\n## Differential privacy\n" in commands.page("simulate")


def test_a_worker_answers_on_a_page_that_was_opened_from_a_folder(tmp_path):
    """As the search asks it: nothing is served, and browsers start no worker from a file."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if (chromium := next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)) is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    shim = ROOT / "docs" / "javascripts" / "iframe-worker.js"
    (tmp_path / "worker.js").write_text('addEventListener("message", ({ data }) => postMessage(data + 1));')
    (tmp_path / "index.html").write_text(f'<body><script src="{shim.as_uri()}"></script>')
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((tmp_path / "index.html").as_uri())
        answer = page.evaluate(
            """() => new Promise((said) => {
              const worker = new Worker("worker.js");
              worker.addEventListener("message", ({ data }) => said(data));
              worker.postMessage(41);
            })"""
        )
        browser.close()
    assert answer == 42


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ('<a href="there.html#a">x</a><img src="p.png"><a href="https://example.org/">out</a>', None),
        ('<a href="nowhere.html">x</a>', "nowhere.html, which is not there"),
        ('<a href="there.html#b">x</a>', "no such place"),
        ('<img src="lost.png">', "lost.png, which is not there"),
        ('<script src="https://cdn.example.org/x.js"></script>', "loads https://cdn.example.org/x.js"),
        ('<link rel="stylesheet" href="//fonts.example.org/x.css">', "loads //fonts.example.org/x.css"),
        ('<p style="background: url(https://example.org/x.png)">', "loads https://example.org/x.png"),
        ('<pre class="mermaid">graph</pre>', "mermaid"),
    ],
)
def test_what_is_wrong_with_a_site_is_found(page, fault, tmp_path):
    (tmp_path / "index.html").write_text(page)
    (tmp_path / "there.html").write_text('<h2 id="a">x</h2>')
    (tmp_path / "p.png").touch()
    found = list(check_site.faults(tmp_path))
    assert len(found) == (fault is not None)
    assert all(fault in line for line in found)


def test_style_sheets_from_elsewhere_are_found(tmp_path):
    (tmp_path / "a.css").write_text('@import "https://example.org/a.css"; p { background: url("local.png") }')
    assert list(check_site.faults(tmp_path)) == ["a.css loads https://example.org/a.css"]
