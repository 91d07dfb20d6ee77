"""The pictures of docs/images, taken from the running pages.

    python docs/make_screenshots.py                 # of a quick demo, which takes a minute
    python docs/make_screenshots.py runs/NAME       # of a demo's run folder, which stays as it is

Needs Chromium and playwright. The text in the pictures is written below; none of it is anybody's.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

IMAGES = Path(__file__).with_name("images")
KBDFL = [sys.executable, "-m", "kbdfl"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MOST_BYTES = 200_000
START_S = 120.0

CHAT = ["how are you", "see you tomorrow"]
# A place of one's own, that no public word list has.
LEARNED = ["band practice at zenos", "late for band practice at zenos", "see you at band practice at zenos"]


def main() -> None:
    """Serve a run, look at its pages, keep what is seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="folder of a demo; without it a quick one is made")
    run = parser.parse_args().run
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "server"
        shutil.copytree((run or quick_demo(Path(scratch))) / "server", folder)
        shutil.rmtree(folder / "model", ignore_errors=True)  # exported anew, at every precision
        with served(folder) as url, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            IMAGES.mkdir(exist_ok=True)
            phone(browser, url)
            desktop(browser, url)
            dashboard(browser, url)
            browser.close()
    for path in sorted(IMAGES.glob("*.png")):
        size = path.stat().st_size
        sys.stdout.write(f"{path.name}  {size:,} bytes\n")
        if size > MOST_BYTES:
            raise SystemExit(f"{path.name} must have at most {MOST_BYTES} bytes, got {size}")


def quick_demo(scratch: Path) -> Path:
    """The folder of a quick demo on generated personas."""
    command = [*KBDFL, "demo", "--quick", "--no-serve", "--json", "--runs", str(scratch / "runs")]
    return Path(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["run"])


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A server of `folder` on a free port; its address, once it has a model to give."""
    port = folder / "port"
    port.unlink(missing_ok=True)
    (folder / "server.lock").unlink(missing_ok=True)
    command = [*KBDFL, "serve", "--folder", folder, "--no-evaluate", "--port", "0", "--port-file", port]
    server = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while not (port.exists() and (folder / "model" / "manifest.json").exists()):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"kbdfl serve must come up within {START_S:.0f} s")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port.read_text().strip()}"
    finally:
        server.terminate()
        server.wait()


def opened(
    browser: Browser, url: str, *, width: int, height: int, scale: float = 1.0, dark: bool = False
) -> Page:
    """A page of that size in CSS pixels, `scale` of the screen's to each."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        device_scale_factor=scale,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(url)
    return page


def keyboard(page: Page) -> None:
    """Wait for the model in the page."""
    expect(page.locator("#where")).to_have_attribute("data-where", "browser", timeout=30_000)
    expect(page.locator("#strip .best")).not_to_be_empty()


def tap(page: Page, *keys: str) -> None:
    """Press keys of the screen."""
    for key in keys:
        page.locator(f'[data-key="{key}"]').click()


def write(page: Page, text: str) -> None:
    """Type `text` as one does on a phone: letter by letter until the strip has the word, then a tap."""
    for word in text.split():
        for letter in word:
            tap(page, letter)
            page.wait_for_timeout(30)
            slot = page.locator(f'#strip [data-word="{word}"]:not([data-kind="typed"])')
            if slot.count():
                slot.click()
                break
        else:
            tap(page, "space")


def send(page: Page, text: str) -> None:
    """Write a message and send it."""
    sent = page.locator(".message").count()
    write(page, text)
    tap(page, "enter")
    expect(page.locator(".message")).to_have_count(sent + 1)


def phone(browser: Browser, url: str) -> None:
    """The keyboard filling a phone, in the middle of a word."""
    page = opened(browser, f"{url}/keyboard", width=390, height=780, scale=2)
    keyboard(page)
    for text in CHAT:
        send(page, text)
    tap(page, *"what", "space", *"ti")
    expect(page.locator("#strip .best")).to_have_text("time")
    page.locator('[data-key="m"]').hover()
    page.mouse.down()
    expect(page.locator('[data-key="m"]')).to_have_class("key pressed")
    page.screenshot(path=IMAGES / "keyboard-phone.png")


def desktop(browser: Browser, url: str) -> None:
    """The keyboard beside its panel, after this phone has learned a phrase of its own."""
    page = opened(browser, f"{url}/keyboard", width=1090, height=905, scale=1.2)
    keyboard(page)
    for text in LEARNED * 2:
        send(page, text)
    write(page, "band practice at")
    page.mouse.move(0, 0)
    expect(page.locator("#strip .best")).to_have_text("zenos")
    page.screenshot(path=IMAGES / "keyboard-desktop.png")


def dashboard(browser: Browser, url: str) -> None:
    """The run that made the model."""
    page = opened(browser, url, width=1160, height=892, scale=1.25)
    expect(page.locator("#chart-recall .scatterlayer path.js-line")).to_have_count(2, timeout=30_000)
    expect(page.locator("#chart-reports .scatterlayer path.js-line")).to_have_count(2)
    expect(page.locator("#bundle")).to_contain_text("model.onnx")
    page.screenshot(path=IMAGES / "dashboard.png")


if __name__ == "__main__":
    main()
