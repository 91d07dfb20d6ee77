"""The pages of several tasks in a real headless Chromium: each says which task it is about, and leads to the others."""

import pytest

from kbdfl.server.app import create_app
from kbdfl.server.credentials import Credentials
from kbdfl.server.serving import running

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = pytest.mark.browser
PASSWORD = "correct horse battery"
LONG = "a-name-as-long-as-the-names-of-tasks-are"
SIZES = pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desktop", "phone"])


@pytest.fixture
def served(make_tasks, background, new_phone):
    """Two tasks, the second after two rounds and with a bundle; an administrator has a password."""
    one = {"cohort": 1, "over_selection": 1.0, "rounds": 9}
    tasks = make_tasks(background=background[0], **{"en": one | {"begins": "paused"}, LONG: one})
    Credentials(tasks.folder).set_password(PASSWORD)
    phone = new_phone(create_app(tasks).test_client())
    phone.check_in(LONG)
    assert phone.report(0, b"rubbish").status_code == 400
    for seed in range(2):
        phone.take_part(tasks.find(LONG).service, seed=seed, population=LONG)
    for task in tasks:
        assert task.service.wait_settled(20.0)
    return tasks


@pytest.fixture
def page_of(browser):
    """A new page of some size; at the end none may have written an error to its console."""
    contexts, complaints = [], []

    def make(size):
        context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


def fits(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@SIZES
def test_a_page_stays_with_its_task_and_leads_to_the_others(served, page_of, size):
    page = page_of(size)
    with running(create_app(served), traffic=served.traffic) as server:
        page.goto(server.url)
        expect(page.locator("h1")).to_have_text("en")
        expect(page.locator("#phase")).to_have_text("paused")
        page.get_by_role("navigation", name="Tasks").get_by_role("link", name=LONG).click()
        expect(page).to_have_url(f"{server.url}/tasks/{LONG}/")
        expect(page.locator("h1")).to_have_text(LONG)
        expect(page.locator("#latest tr")).to_have_count(2)
        expect(page.locator("#latest")).to_contain_text("committed")
        assert fits(page)
        page.get_by_role("navigation", name="Pages").get_by_role("link", name="Keyboard").click()
        expect(page).to_have_url(f"{server.url}/tasks/{LONG}/keyboard")
        expect(page.locator("#model-rounds")).to_have_text("2 rounds", timeout=20_000)
        expect(page.locator("#strip .best")).not_to_be_empty()
        current = page.get_by_role("navigation", name="Tasks").locator("[aria-current]")
        expect(current).to_have_text(LONG)
        expect(current).to_be_in_viewport()
        if size[0] < 480:
            expect(page.locator("#keys")).to_be_in_viewport(ratio=1)
        assert fits(page)
        kept = page.evaluate(
            "import('/static/memory.js').then(({ keep }) => (keep('x', 1), Object.keys(localStorage)))"
        )
        assert f"kbdfl@{LONG}.x" in kept
        assert not any(name.startswith("kbdfl.") for name in kept)


@SIZES
def test_an_administrator_starts_one_task_and_stops_another(served, page_of, size):
    page = page_of(size)
    with running(create_app(served)) as server:
        page.goto(f"{server.url}/admin")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("h1")).to_have_text("2 tasks")
        assert fits(page)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("button", name="Start")).to_have_count(0)
        assert served.find("en").state == "open"
        expect(page).to_have_url(f"{server.url}/admin/tasks/en")
        page.get_by_role("link", name="All tasks").click()
        page.get_by_role("link", name=LONG).click()
        expect(page).to_have_url(f"{server.url}/admin/tasks/{LONG}")
        expect(page.locator(".rounds")).to_contain_text("1 not readable")
        assert fits(page)
        page.get_by_label("Tell all phones that it is over").check()
        page.get_by_role("button", name="Stop").click()
        expect(page).to_have_url(f"{server.url}/admin/tasks/{LONG}")
        expect(page.locator(".lead .pill")).to_have_text("stopped")
        assert [task.state for task in served] == ["open", "stopped"]
        page.goto(f"{server.url}/admin/tasks/en")
        expect(page.locator(".rounds")).to_contain_text("No round has been closed yet")
        page.get_by_role("link", name="All tasks").click()
        expect(page).to_have_url(f"{server.url}/admin")
        page.get_by_label("New tokens").fill("2")
        page.get_by_role("button", name="Make").click()
        assert len(page.locator(".tokens").inner_text().split()) == 2
        page.wait_for_load_state("networkidle")


def test_a_page_of_no_task_says_so_to_whoever_is_logged_in(served, page_of):
    page = page_of((1280, 800))
    client = create_app(served).test_client()
    assert client.get("/admin/tasks/nowhere").status_code == 404
    assert "Log in" in client.get("/admin/tasks/nowhere").text
    with running(create_app(served)) as server:
        page.goto(f"{server.url}/admin/tasks/en")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(f"{server.url}/admin/tasks/en")
        answer = page.request.get(f"{server.url}/admin/tasks/nowhere")
        assert answer.status == 404
        assert "no task &#39;nowhere&#39; is served" in answer.text()
