"""The page of ``audiodd label --serve``: who gets in, and a person at the keyboard."""

import contextlib
import http.client
import json
import threading
import time
from urllib.parse import parse_qs, urlsplit

import labelling
import pytest
from browser import OPTIONS, assert_accessible, needs_axe, needs_browser

from audiodd_jax.active_learning.session import Session

pytest.importorskip("bottle")
pytest.importorskip("waitress")

from audiodd_jax.commands import label_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return labelling.sounds(tmp_path_factory.mktemp("pool") / "sounds")


@contextlib.contextmanager
def served(folder, workdir, is_review=False, **changes):
    """Yields the session and the address of its page."""
    with (
        labelling.session(folder, workdir, **changes) as session,
        label_page.served(session, 0, is_review) as (address, server, labels),
    ):

        def run():
            with contextlib.suppress(OSError):  # its socket is closed below
                server.run()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield session, address
        assert labels.stop(10.0)
        server.close()
        thread.join(10)


@pytest.fixture
def page(folder, tmp_path, monkeypatch):
    labelling.instant(monkeypatch)
    with served(folder, tmp_path / "s", classes=("low", "high")) as both:
        wait_for(lambda: both[0].waiting)
        yield both


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def request(address, path, body=None, token=None, **headers):
    """Returns the status and the content of a reply."""
    parts = urlsplit(address)
    own = parse_qs(parts.query)["token"][0]
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    mark = "&" if "?" in path else "?"
    where = f"/{path}{mark}token={own if token is None else token}"
    text = None if body is None else json.dumps(body)
    connection.request("POST" if text else "GET", where, text, headers)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    is_json = reply.getheader("Content-Type", "").startswith("application/json")
    return reply.status, json.loads(content) if is_json else content


@pytest.mark.parametrize("path", ["", "state", "sound?clip=low0.wav", "opinion"])
def test_nobody_gets_in_without_the_token_or_from_another_host(page, path):
    address = page[1]
    port = urlsplit(address).port
    for token in ("", "wrong", "ä"):
        assert request(address, path, token=token.encode().hex())[0] == 403
    for host in ("example.com", f"example.com:{port}", "127.0.0.1", "127.0.0.1:1"):
        assert request(address, path, Host=host)[0] == 403
    origin = {"Origin": "http://example.com"}
    assert request(address, path, **origin)[0] == 403
    assert request(address, "state", Host=f"localhost:{port}")[0] == 200


def test_answers_are_kept_and_late_windows_are_refused(page):
    session, address = page
    first = request(address, "state")[1]
    question = {"clip": first["clip"], "version": first["version"]}
    status, after = request(address, "answer", {**question, "labels": ["low"]})
    assert status == 200
    assert session.journal.labelled == {first["clip"]: ("low",)}
    assert after["clip"] != first["clip"]
    # A second window still shows the first recording.
    status, reply = request(address, "answer", {**question, "labels": ["high"]})
    assert status == 409
    assert "another window" in reply["error"]
    assert session.journal.labelled == {first["clip"]: ("low",)}
    assert request(address, "undo", {"latest": None})[0] == 409
    assert request(address, "undo", {"latest": first["clip"]})[0] == 200
    assert session.journal.labelled == {}
    question["version"] += 2
    assert request(address, "answer", {**question, "labels": []})[0] == 400
    for bad in ({}, {"clip": "x.wav", "version": 0, "labels": ["a"]}, [1]):
        assert request(address, "answer", bad)[0] in (400, 409)


def test_a_full_disk_is_reported_and_the_question_stays(page, monkeypatch):
    session, address = page
    first = request(address, "state")[1]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(session.journal), "append", full)
    question = {"clip": first["clip"], "version": first["version"], "labels": ["low"]}
    status, reply = request(address, "answer", question)
    assert status == 507
    assert "not saved: No space left" in reply["error"]
    assert request(address, "state")[1]["clip"] == first["clip"]


def test_sounds_and_pictures(page):
    address = page[1]
    status, content = request(address, "sound?clip=low0.wav")
    assert (status, content[:4], content[8:12]) == (200, b"RIFF", b"WAVE")
    status, content = request(address, "picture?clip=low0.wav")
    assert (status, content[1:4]) == (200, b"PNG")
    for path in ("sound", "picture?clip=../x", "opinion?clip=nothing"):
        assert request(address, path)[0] == 404


def test_the_network_trains_while_the_person_continues(folder, tmp_path, monkeypatch):
    """One batch is always ahead, and an error is shown instead of lost."""
    labelling.instant(monkeypatch)
    train, is_free, began = Session._train, threading.Event(), threading.Event()

    def slow(self, *given):
        began.set()
        is_free.wait(10)
        return train(self, *given)

    monkeypatch.setattr(Session, "_train", slow)
    with served(folder, tmp_path / "s") as (session, address):
        wait_for(lambda: len(session.waiting) == 8)
        for _ in range(4):
            answer(address)
        assert began.wait(10)
        state = answer(address)
        assert state["busy"]
        assert state["clip"]
        is_free.set()
        wait_for(lambda: len(session.waiting) == 7)
        monkeypatch.setattr(Session, "_train", lambda *_: 1 / 0)
        while (state := answer(address))["clip"] and not state["error"]:
            time.sleep(0.05)
        assert state["error"] == "division by zero"


def answer(address):
    state = request(address, "state")[1]
    question = {"clip": state["clip"], "version": state["version"]}
    labels = [labelling.truth(state["clip"])]
    return request(address, "answer", {**question, "labels": labels})[1]


@contextlib.contextmanager
def browser(address, count=1):
    """Opens windows on the page; they must not log errors or leave this host."""
    from playwright.sync_api import sync_playwright

    told, hosts = [], set()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(**OPTIONS)
        pages = []
        for _ in range(count):
            window = opened.new_page(viewport={"width": 900, "height": 1100})
            window.on("pageerror", lambda error: told.append(str(error)))
            window.on("request", lambda r: hosts.add(urlsplit(r.url).netloc))
            window.goto(address)
            window.wait_for_selector("#question:not([hidden])")
            pages.append(window)
        yield pages
        opened.close()
    assert told == []
    assert hosts <= {urlsplit(address).netloc, ""}


def shown(window):
    return window.locator("#name").inner_text()


def press(window, *keys):
    """Presses keys, and waits for the next recording."""
    before = window.locator("#message").inner_text(), shown(window)
    for key in keys:
        window.keyboard.press(key)
    # The page's own policy forbids what Playwright's waiting evaluates.
    wait_for(lambda: (window.locator("#message").inner_text(), shown(window)) != before)


@needs_browser
def test_a_person_labels_by_keyboard_alone(page):
    session, address = page
    labels = session.journal.labelled
    with browser(address) as [window]:
        loaded = "document.getElementById('picture').naturalWidth > 0"
        wait_for(lambda: window.evaluate(loaded))
        ready = "document.getElementById('player').readyState > 0"
        wait_for(lambda: window.evaluate(ready))
        name = shown(window)
        press(window, "2")
        assert session.journal.labelled == {name: ("high",)}
        # Type-ahead finds a class; another name makes a new one.
        second = shown(window)
        press(window, *"lo", "Enter")
        third = shown(window)
        press(window, *"noise", "Enter")
        assert session.class_names == ["low", "high", "noise"]
        # The opinion is hidden until it is wanted.
        assert window.locator("#opinion").is_hidden()
        window.keyboard.press(".")
        window.wait_for_selector("#opinion:not([hidden])")
        fourth = shown(window)
        press(window, "Shift+?")
        assert session.journal.answer(fourth).is_unsure
        assert window.locator("#opinion").is_hidden()
        fifth = shown(window)
        press(window, "ArrowRight")
        assert session.journal.answer(fifth).labels is None
        press(window, "Backspace")
        assert shown(window) == fifth
        press(window, "3")
        labels = session.journal.labelled
        assert labels == {
            name: ("high",),
            second: ("low",),
            third: ("noise",),
            fifth: ("noise",),
        }
        # Tab reaches the buttons, too.
        for _ in range(40):
            window.keyboard.press("Tab")
            if window.evaluate("document.activeElement.id") == "skip":
                break
        sixth = shown(window)
        press(window, "Enter")
        assert session.journal.answer(sixth).labels is None


@pytest.mark.slow
@needs_browser
def test_tags_take_several_keys(folder, tmp_path, monkeypatch):
    labelling.instant(monkeypatch)
    with (
        served(folder, tmp_path / "s", tags=True, classes=("a", "b")) as (session, url),
        browser(url) as [window],
    ):
        first = shown(window)
        for key in ("1", "2", *"loud", "Enter", "1"):
            window.keyboard.press(key)
        assert window.locator("[aria-pressed=true]").count() == 2
        press(window, "Enter")
        wait_for(lambda: session.journal.labelled)
        assert session.journal.labelled == {first: ("b", "loud")}
        second = shown(window)
        press(window, "Enter")  # asks whether there is none
        assert second not in session.journal.labelled
        press(window, "Enter")
        wait_for(lambda: second in session.journal.labelled)
        assert session.journal.labelled[second] == ()


@pytest.mark.slow
@needs_browser
def test_two_windows_do_not_overwrite_each_other(page):
    session, address = page
    with browser(address, 2) as [one, two]:
        name = shown(one)
        press(one, "1")
        press(two, "2")
        assert "another window" in two.locator("#message").inner_text()
        assert session.journal.labelled == {name: ("low",)}
        assert shown(two) == shown(one) != name


@pytest.mark.slow
@needs_browser
@needs_axe
def test_the_page_is_accessible(page):
    with browser(page[1]) as [window]:
        for scheme in ("light", "dark"):
            window.emulate_media(color_scheme=scheme)
            window.keyboard.type("lo")
            assert_accessible(window)
            window.keyboard.press("Escape")
            assert_accessible(window)


@pytest.mark.slow
@needs_browser
def test_contested_answers_are_kept_or_changed(folder, tmp_path, monkeypatch):
    labelling.instant(monkeypatch)
    with labelling.session(folder, tmp_path / "s") as session:
        for name in ("low0.wav", "low1.wav", "high0.wav"):
            session.answer(name, [labelling.truth(name)])
    wrong = [("low0.wav", "high"), ("low1.wav", "high")]
    monkeypatch.setattr(Session, "contested", lambda self: wrong)
    with (
        served(folder, tmp_path / "s", True) as (session, url),
        browser(url) as [window],
    ):
        assert shown(window) == "low0.wav"
        assert "You answered low" in window.locator("#contested").inner_text()
        press(window, "Enter")
        assert shown(window) == "low1.wav"
        press(window, "2")
        window.wait_for_selector("#idle:not([hidden])")
        assert session.journal.labelled["low0.wav"] == ("low",)
        assert session.journal.labelled["low1.wav"] == ("high",)
        assert session.journal.kept == {"low0.wav", "low1.wav"}
