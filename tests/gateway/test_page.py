"""The page as a browser shows it, on `adjoin serve` as a process with the fake engine.

The screenshots are written to the folder that PAGE_SCREENSHOTS names, or to the test's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from serving import Process
from texts import ASK, ENDLESS, text

from adjoin.runtime.database import open_file
from adjoin.runtime.gateway.keys import SCOPES, KeyStore

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1100,900", "--lang=en"),
)
WAIT_S = 30
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
MARKUP = ENDLESS.replace("endless", "markup").replace(
    "{words: 100000, interval_s: 0.01}", json.dumps({"answer": HOSTILE})
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a service with workflows and a collection, and a key for it."""
    home = tmp_path_factory.mktemp("page-home")
    keys = KeyStore(open_file(home / "gateway" / "state.db"))
    key = keys.create("default", SCOPES[:-1])[1]
    options = ("--set", 'allowed_modules=["gateway_flows"]', "--set", 'allowed_models=["fake:"]')
    with Process(home, *options) as process:
        headers = {"Authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=process.url, headers=headers, timeout=60) as client:
            client.put("/api/v1/collections/animals", json={"embedding": "fake:"})
            documents = [
                {"text": "The cat of the house is called Minka.", "source": "cats.md", "id": "1"},
                {"text": "Dogs bark. " * 80, "source": "dogs.md", "metadata": {"page": 3}},
            ]
            client.post("/api/v1/collections/animals/documents", json={"documents": documents})
            for name, content in (
                ("ask", ASK),
                ("breaks", text("breaks", "fail")),
                ("endless", ENDLESS),
                ("markup", MARKUP),
            ):
                answer = client.put(f"/api/v1/workflows/{name}", content=content)
                assert answer.status_code == 201, answer.text
        yield process.url, key


class Page:
    """The page in a browser."""

    def __init__(self, driver: Chrome, url: str, shots: Path) -> None:
        self.driver = driver
        self.url = url
        self._shots = shots

    def open(self, path: str = "") -> None:
        self.driver.get("about:blank")  # else another fragment alone would load nothing
        self.driver.get(f"{self.url}/{path}")

    def find(self, selector: str) -> WebElement:
        """The first visible element; it may take a while to come."""
        found: WebElement = self.until(lambda: self._visible(selector), selector)
        return found

    def press(self, label: str) -> None:
        self.until(
            lambda: next(
                (
                    each
                    for each in self.driver.find_elements("tag name", "button")
                    if each.text == label and each.is_displayed() and each.is_enabled()
                ),
                None,
            )
        ).click()

    def fill(self, selector: str, value: str) -> None:
        field = self.find(selector)
        field.clear()
        field.send_keys(value)

    def has(self, selector: str, words: str) -> str:
        """Wait until an element's text has these words; the whole text."""

        def shown() -> str:
            found = self._visible(selector)
            return found.text if found is not None and words in found.text else ""

        return str(self.until(shown, f"{words!r} in {selector}"))

    def until(self, condition: Any, said: str = "") -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(
            self.driver, WAIT_S, 0.02, ignored_exceptions=[StaleElementReferenceException]
        )
        return waiting.until(lambda _: condition(), said)

    def shoot(self, name: str) -> None:
        """The whole page, however long."""
        script = "return document.documentElement.scrollHeight"
        width = self.driver.get_window_size()["width"]
        self.driver.set_window_size(width, int(self.driver.execute_script(script)) + 120)
        self.driver.execute_script("window.scrollTo(0, 0)")
        self.driver.save_screenshot(str(self._shots / f"{name}.png"))
        self.driver.set_window_size(width, 900)

    def said(self) -> list[str]:
        """The browser's own complaints since this was asked for last."""
        log: Any = self.driver.get_log
        return [each["message"] for each in log("browser") if each["level"] == "SEVERE"]

    def sign_in(self, key: str) -> None:
        self.fill("#key-text", key)
        self.press("Use this key")

    def _visible(self, selector: str) -> WebElement | None:
        found = self.driver.find_elements("css selector", selector)
        return next((each for each in found if each.is_displayed()), None)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    selenium = pytest.importorskip("selenium.webdriver")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options, selenium.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def page(driver: Chrome, service: tuple[str, str], tmp_path: Path) -> Iterator[Page]:
    shots = Path(os.environ.get("PAGE_SCREENSHOTS") or tmp_path)
    shots.mkdir(parents=True, exist_ok=True)
    page = Page(driver, service[0], shots)
    page.open()
    driver.execute_script("sessionStorage.clear()")
    page.said()
    yield page
    # A policy that is broken, a script that throws: the browser says so here.
    assert [each for each in page.said() if "the server responded with a status" not in each] == []


@pytest.fixture
def signed_in(page: Page, service: tuple[str, str]) -> Page:
    page.driver.execute_script("sessionStorage.setItem('adjoin.key', arguments[0])", service[1])
    return page


def test_it_asks_for_a_key_and_keeps_it_out_of_the_address(
    page: Page, service: tuple[str, str]
) -> None:
    page.open()
    page.has("#key", "This service asks for one.")
    assert page.driver.switch_to.active_element.get_attribute("id") == "key-text"
    page.sign_in("adj_wrong")
    page.has("#key-why[data-wrong]", "this key is not valid")
    page.shoot("wrong-key")
    page.sign_in(service[1])
    assert page.has("nav", "ask").split() == ["ask", "breaks", "endless", "markup"]
    page.has("h2", "ask")
    assert service[1] not in page.driver.current_url
    assert service[1] not in page.driver.page_source
    page.press("Forget the key")
    page.has("#key", "This service asks for one.")


def test_a_form_with_defaults_a_streamed_answer_and_its_sources(signed_in: Page) -> None:
    page = signed_in
    page.open("#ask")
    page.press("Run")  # a question is missing
    assert page.driver.switch_to.active_element.get_attribute("id") == "input-question"
    assert page.find("#input-k").get_attribute("value") == "2"
    assert page.find("#input-notes").get_attribute("value") == '[\n  "one"\n]'
    page.fill("#input-question", "What does the cat do?")
    page.find("#input-tone").send_keys("formal")
    page.find("#input-loud").click()
    page.driver.execute_script(
        """window.seen = [];
        new MutationObserver(() => {
            const said = document.querySelector(".said")?.textContent;
            if (said) window.seen.push(said);
        }).observe(document.querySelector("#view"),
                   {subtree: true, childList: true, characterData: true});
        """
    )
    page.press("Run")
    page.has(".status", "Done")
    seen = page.driver.execute_script("return window.seen")
    growing = [len(each) for each in seen]
    assert len(set(growing)) > 3, "the tokens were shown as they came"
    assert growing == sorted(growing)
    answer = page.find(".answer").text
    assert "The cat of the house sleeps all day long." in answer
    assert "cats.md" in answer and "called Minka" in answer and "page 3" in answer
    assert '"formal"' not in answer and "formal" in answer and "true" in answer
    stages = page.find(".stages").text
    assert stages.index("vector") < stages.index("passages") < stages.index("answer")
    assert stages.count("done") == 3 and " s" in stages
    page.shoot("answer")


def test_the_code_that_it_shows_makes_the_same_request(
    signed_in: Page, service: tuple[str, str]
) -> None:
    page = signed_in
    page.open("#ask")
    question = "Who's \"there\"?\nünï $HOME `x` \\ 'n"
    page.find("#input-question")
    page.driver.execute_script(
        """const field = document.querySelector("#input-question"); field.value = arguments[0];
        field.dispatchEvent(new Event("input", {bubbles: true}));""",
        question,
    )
    page.find("details.request > summary").click()
    curl, python = (each.text for each in page.driver.find_elements("css selector", ".request pre"))
    assert service[1] not in curl + python
    environment = os.environ | {"ADJOIN_API_KEY": service[1]}
    for command in (["bash", "-c", curl], [sys.executable, "-c", python]):
        if shutil.which(command[0]) is None or (command[0] == "bash" and not shutil.which("curl")):
            continue
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
        assert "RunCompleted" in ended.stdout and "sleeps" in ended.stdout
    page.shoot("code")


def test_a_stage_that_fails_is_named_with_what_it_says(signed_in: Page) -> None:
    signed_in.open("#breaks")
    signed_in.fill("#input-text", "this")
    signed_in.press("Run")
    said = signed_in.has(".problem", "Stage “only” failed")
    assert "cannot take this" in said
    signed_in.has(".status", "Failed")
    assert "failed" in signed_in.find(".stages [data-state=failed]").text
    signed_in.shoot("failed-stage")


def test_a_workflow_is_shown_as_picture_and_text(signed_in: Page) -> None:
    page = signed_in
    page.open("#ask")
    page.find("h2")
    for fold in page.driver.find_elements("css selector", "#view > details > summary")[1:]:
        fold.click()
    picture = page.find("img.graph")
    drawn = "return arguments[0].complete && arguments[0].naturalWidth"
    assert page.until(lambda: page.driver.execute_script(drawn, picture)) > 50
    assert "uses: retrieve" in page.find("details[open] pre").text
    page.shoot("picture")


def test_a_refusal_is_shown_as_the_service_says_it(signed_in: Page) -> None:
    signed_in.open("#ask")
    signed_in.fill("#input-question", "What?")
    signed_in.fill("#input-notes", "[1]")
    signed_in.press("Run")
    assert "notes" in signed_in.has(".problem", "Bad Request")


def test_a_run_can_be_cancelled(signed_in: Page) -> None:
    page = signed_in
    page.open("#endless")
    page.fill("#input-question", "go on")
    page.press("Run")
    page.has(".said", "go on go")
    page.shoot("running")
    page.press("Cancel")
    page.has(".status", "Cancelled")
    assert page.driver.switch_to.active_element.text == "Run"
    with httpx2.Client(base_url=page.url, timeout=30) as client:
        key = page.driver.execute_script("return sessionStorage.getItem('adjoin.key')")
        runs = client.get("/api/v1/runs", headers={"Authorization": f"Bearer {key}"}).json()["runs"]
    assert {run["workflow"]: run["state"] for run in reversed(runs)}["endless"] == "cancelled"


def test_markup_in_an_answer_stays_text(signed_in: Page) -> None:
    page = signed_in
    page.open("#markup")
    page.fill("#input-question", HOSTILE)
    page.press("Run")
    page.has(".status", "Done")
    assert HOSTILE in page.find(".answer").text
    assert page.driver.find_elements("css selector", "#view script, .answer img") == []
    assert page.driver.title == "markup - adjoin"


def test_the_reference_is_shown_without_a_request_to_anyone_else(page: Page) -> None:
    page.open("docs")
    assert "adjoin" in page.find("#reference .title").text
    page.find("#operations-usage-usage_api_v1_usage_get .opblock-summary").click()
    assert "Tokens, seconds and money" in page.find(".opblock.is-open").text
    asked = "return performance.getEntriesByType('resource').map(each => each.name)"
    names = page.driver.execute_script(asked)
    assert f"{page.url}/openapi.json" in names
    assert f"{page.url}/docs/swagger-ui-bundle.js" in names
    assert [each for each in names if not each.startswith((page.url, "data:"))] == []
    page.shoot("reference")


def test_on_a_service_without_keys_it_asks_for_none(driver: Chrome, tmp_path: Path) -> None:
    (tmp_path / "markup.yaml").write_text(MARKUP)
    with Process(tmp_path / "home", "--dev", str(tmp_path / "markup.yaml")) as process:
        page = Page(driver, process.url, tmp_path)
        page.open()
        page.fill("#input-question", "What?")
        page.press("Run")
        page.has(".status", "Done")
        page.find("details.request > summary").click()
        assert "Authorization" not in page.find(".request").text


def test_a_service_that_has_gone_is_said(driver: Chrome, tmp_path: Path) -> None:
    (tmp_path / "endless.yaml").write_text(ENDLESS)
    with Process(tmp_path / "home", "--dev", str(tmp_path / "endless.yaml")) as process:
        page = Page(driver, process.url, tmp_path)
        page.open()
        page.fill("#input-question", "go on")
        page.press("Run")
        page.has(".said", "go on go")
        process.process.kill()
        assert "the run has ended with it" in page.has(".problem", "No connection")
        page.press("Run")
        page.has(".problem", "does not answer")


def stages_after(page: Page, *news: tuple[float, str, dict[str, Any]]) -> str:
    """What the list of stages shows after these events of a run of the stages a and b."""
    begun = (0.0, "", {"type": "RunStarted", "workflow": "w", "version": "v"})
    events = [
        {"at": at, "stage": stage, "attempt": 1, "body": body} for at, stage, body in (begun, *news)
    ]
    page.open()
    page.find("#key")
    shown: str = page.driver.execute_async_script(
        """const [events, done] = arguments;
        Promise.all([import("/page/progress.js"), import("/page/stages.js")]).then(([p, s]) => {
            const [progress, list] = [new p.Progress(["a", "b"]), new s.StageList(new Set(["b"]))];
            for (const event of events) { progress.apply(event, event.at * 1000);
                                          list.update(progress, event.at * 1000); }
            document.querySelector("#view").replaceChildren(list.element);
            for (const fold of list.element.querySelectorAll("details")) fold.open = true;
            done(list.element.innerText);
        });""",
        events,
    )
    return " ".join(shown.split())


STARTED = {"type": "StageStarted", "worker": "w0"}
DONE = {"type": "StageCompleted", "worker": "w0", "usage": {}}


def said(text: str) -> dict[str, Any]:
    return {"type": "Tokens", "tokens": [{"text": text, "choice": 0, "reasoning": False}]}


def test_stages_of_fan_outs_and_loops_are_below_their_own(page: Page) -> None:
    inside = [(1.0, f"a[{i}]", STARTED) for i in range(103)]
    shown = stages_after(page, (0.5, "a", STARTED), *inside, (1.5, "a[0]", DONE), (4.5, "a", DONE))
    assert shown.startswith("● a done 4.00 s ● [0] done 0.50 s ◐ [1] running")
    assert shown.endswith("[29] running 3.50 s and 73 more ○ b waiting")
    nested = [(1.0, f"a#{i}/{name}", STARTED) for name in ("x", "y[0]") for i in (1, 2)]
    shown = stages_after(page, *nested, (2.0, "a#1/x", DONE))
    assert shown == (
        "○ a waiting #1 ● x done 1.00 s y ◐ [0] running 1.00 s "
        "#2 ◐ x running 1.00 s y ◐ [0] running 1.00 s ○ b waiting"
    )
    page.shoot("nested")


def test_another_attempt_begins_its_text_anew(page: Page) -> None:
    failed = {"type": "StageFailed", "error": {"message": "it crashed"}, "retry": True}
    first = ((1.0, "a", STARTED), (1.5, "a", said("one two three")), (2.0, "a", failed))
    assert "↻ a retrying 1.00 s it crashed" in stages_after(page, *first)
    shown = stages_after(page, *first, (3.0, "a", STARTED), (3.5, "a", said("four")))
    assert "◐ a running 0.50 s" in shown and "four" in shown
    assert "one two" not in shown and "crashed" not in shown


def test_what_a_run_that_ended_did_not_do_is_said(page: Page) -> None:
    lost = (2.0, "", {"type": "WorkerLost", "worker": "w0", "stages": ["a"]})
    assert "○ a waiting w0 was lost" in stages_after(page, (1.0, "a", STARTED), lost)
    warning = {
        "type": "StageWarning",
        "what": "it blocks",
        "where": "f.py:1",
        "why": "x",
        "hint": "y",
    }
    assert "it blocks: x (f.py:1); y" in stages_after(
        page, (1.0, "a", STARTED), (2.0, "a", warning)
    )
    loading = (1.5, "a", {"type": "ModelLoading", "model": "m", "phase": "fork"})
    shown = stages_after(page, (1.0, "a", STARTED), loading)
    assert "m is loading (fork)" in shown
    ended = (3.0, "", {"type": "RunCancelled", "reason": ""})
    shown = stages_after(page, (1.0, "a", STARTED), loading, ended)
    assert shown == "■ a stopped 2.00 s ○ b not run"


def test_events_are_whole_however_their_bytes_come(page: Page) -> None:
    page.open()
    page.find("#key")
    stream = ': still here\n\nid: 0\nevent: A\ndata: {"a": "é"}\n\ndata: {"a": 2}\n\n'
    for size in (1, 2, 3, 7, 1000):
        found = page.driver.execute_async_script(
            """const [text, size, done] = arguments;
            import("/page/api.js").then(async ({events}) => {
                const bytes = new TextEncoder().encode(text);
                const body = new ReadableStream({start(controller) {
                    for (let i = 0; i < bytes.length; i += size)
                        controller.enqueue(bytes.slice(i, i + size));
                    controller.close();
                }});
                const found = [];
                for await (const event of events(new Response(body))) found.push(event);
                done(found);
            });""",
            stream,
            size,
        )
        assert found == [{"a": "é"}, {"a": 2}]


def test_the_keyboard_is_enough(signed_in: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page = signed_in
    page.open("#ask")
    page.find("#input-question").send_keys("What?", Keys.CONTROL, Keys.ENTER)
    page.has(".status", "Done")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_window(signed_in: Page, scheme: str) -> None:
    page = signed_in
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 375, "height": 1900, "deviceScaleFactor": 2, "mobile": True},
    )
    try:
        page.open("#ask")
        page.driver.refresh()
        page.fill("#input-question", "What does the cat do?")
        page.press("Run")
        page.has(".status", "Done")
        page.find("details.request > summary").click()
        width = page.driver.execute_script("return document.documentElement.scrollWidth")
        page.driver.save_screenshot(str(page._shots / f"narrow-{scheme}.png"))
        assert width <= 375
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
