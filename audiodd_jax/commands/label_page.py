"""The page of ``audiodd label --serve``: one recording at a time, in a browser.

It is served on 127.0.0.1 alone, and only to requests with the token in the printed
address and with this host's name, so that neither other users of the machine nor other
sites reach it. Networks are trained in a thread while the person continues: one batch
is always ahead.
"""

import contextlib
import hmac
import json
import logging
import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from audiodd_jax.active_learning.session import Session
from audiodd_jax.config.user_paths import with_urls
from audiodd_jax.coreset import audio_folder
from audiodd_jax.data import audio
from audiodd_jax.errors import UserError
from audiodd_jax.report import gallery
from audiodd_jax.runtime import lease

_log = logging.getLogger(__name__)

_PAGE = Path(__file__).with_name("label_page.html")
# The page loads nothing from elsewhere.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src 'self' data:; media-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def libraries() -> tuple[ModuleType, ModuleType]:
    """Returns bottle and waitress, which are an extra.

    Raises:
      UserError: they are not installed.
    """
    try:
        import bottle
        import waitress
    except ImportError as error:
        raise UserError(
            "audiodd label --serve needs an extra: pip install 'audiodd_jax[label]'"
        ) from error
    return bottle, waitress


class Labelling:
    """A session behind a page: questions, answers, and training in the background.

    Attributes:
      review: contested answers that are still to be reviewed, with what the networks
        predict.
    """

    def __init__(self, session: Session, is_review: bool = False):
        self.session = session
        self.review: dict[str, str] = {}
        self._is_review, self._is_ready = is_review, not is_review
        self._error = ""
        self._wake, self._stop = threading.Event(), threading.Event()
        self._is_busy = True
        self._trained = -1  # answers that the last networks know
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Starts the thread that trains and asks."""
        self._wake.set()
        self._thread.start()

    def stop(self, seconds: float | None = None) -> bool:
        """Stops the thread after its current training; returns whether it has ended."""
        self._stop.set()
        self._wake.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stop.is_set():
                return
            self._is_busy = True
            try:
                if not self._is_ready:
                    self.review = dict(self.session.contested())
                    self._is_ready = True
                while self._is_due() and not self._stop.is_set():
                    self._trained = self.session.answered
                    self.session.next_batch()
                self._error = ""
            except Exception as error:  # shown on the page; answers are safe
                _log.exception("the network was not trained")
                self._error = str(error) or type(error).__name__
            self._is_busy = False

    def _is_due(self) -> bool:
        """Returns whether to train: no whole batch is ahead, or all is answered."""
        session = self.session
        if self._is_review:
            return False
        waiting = len(session.waiting)
        if session.can_ask:
            return waiting <= session.config.session.batch
        return not waiting and self._trained < session.answered

    def state(self) -> dict[str, Any]:
        """Returns all that the page shows; ``clip`` is the recording to label."""
        session = self.session
        with session.journal.lock:
            reviewed = session.journal.kept
            queue = [name for name in self.review if name not in reviewed]
            queue = queue if self._is_review else session.waiting
            clip = queue[0] if queue else None
            answers = session.journal.labelled
            return {
                "clip": clip,
                "version": session.journal.version(clip) if clip else 0,
                "latest": session.journal.latest,
                "classes": session.class_names,
                "tags": session.config.session.tags,
                "answered": session.answered,
                "budget": session.budget,
                "review": clip in self.review
                and {"answer": answers.get(clip, ()), "networks": self.review[clip]},
                "busy": self._is_busy,
                "error": self._error,
                "rounds": [row for row in session.rounds if row.get("validated")],
                "advice": session.advice() if session.rounds else "",
            }

    def answer(self, given: dict[str, Any]) -> None:
        """Keeps an answer from a window that has seen all events of the recording.

        Raises:
          LookupError: another window has answered since.
          UserError: an impossible answer.
        """
        session, clip = self.session, str(given["clip"])
        with session.journal.lock:
            if session.journal.version(clip) != given["version"]:
                raise LookupError(f"another window has answered {clip}")
            if given.get("skip"):
                session.skip(clip)
            elif given.get("unsure"):
                session.unsure(clip)
            elif not given.get("keep"):
                session.answer(clip, [str(label) for label in given["labels"]])
            if self._is_review:
                session.keep(clip)
        self._wake.set()

    def undo(self, given: dict[str, Any]) -> None:
        """Takes the last answer back, if it is the one that the window has seen.

        Raises:
          LookupError: another window has answered since.
        """
        with self.session.journal.lock:
            if self.session.journal.latest != given["latest"]:
                raise LookupError("another window has answered since")
            self.session.undo()
        self._wake.set()


def make_app(labelling: Labelling, token: str, hosts: set[str]) -> Any:
    """Makes the application; ``hosts`` are the allowed values of the header Host."""
    bottle, _ = libraries()
    app, session = bottle.Bottle(), labelling.session

    def refuse(status: int, sentence: str) -> Exception:
        body = json.dumps({"error": sentence})
        headers = {**_HEADERS, "Content-Type": "application/json"}
        return bottle.HTTPResponse(body, status, headers)

    @app.hook("before_request")
    def check() -> None:
        request = bottle.request
        origin = request.get_header("Origin")
        if request.get_header("Host") not in hosts or (
            origin and origin.removeprefix("http://") not in hosts
        ):
            raise refuse(403, "this page is for the browser on its own machine")
        given = request.query.get("token") or ""
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise refuse(403, "open the whole address that audiodd label printed")

    @app.hook("after_request")
    def protect() -> None:
        for name, value in _HEADERS.items():
            bottle.response.set_header(name, value)

    @app.get("/")
    def page() -> str:
        return _PAGE.read_text(encoding="utf-8")

    @app.get("/state")
    def state() -> dict[str, Any]:
        return labelling.state()

    def of_clip(make: Callable[[str], Any]) -> Any:
        name = bottle.request.query.getunicode("clip")
        if name not in session.clips:
            raise refuse(404, f"there is no recording {name}")
        return make(name)

    @app.get("/sound")
    def sound() -> Any:
        bottle.response.content_type = "audio/wav"
        return of_clip(lambda name: _sound(session, name))

    @app.get("/picture")
    def picture() -> Any:
        bottle.response.content_type = "image/png"
        return of_clip(lambda name: _picture(session, name))

    @app.get("/opinion")
    def opinion() -> Any:
        return {"opinion": of_clip(session.opinion)}

    def change(work: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        try:
            work(json.loads(bottle.request.body.read()))
        except LookupError as error:
            raise refuse(409, str(error)) from error
        except (UserError, ValueError, TypeError) as error:
            raise refuse(400, str(error)) from error
        except OSError as error:
            raise refuse(507, f"the answer is not saved: {error.strerror}") from error
        return labelling.state()

    @app.post("/answer")
    def answer() -> dict[str, Any]:
        return change(labelling.answer)

    @app.post("/undo")
    def undo() -> dict[str, Any]:
        return change(labelling.undo)

    return app


def _sound(session: Session, name: str) -> bytes:
    """The recording as WAV, whatever its format."""
    clip = session.clips[name]
    waveform, rate = audio.decode(clip.path, *clip.span)
    peak = max(1.0, float(np.abs(waveform).max(initial=0)))
    return audio_folder.encoded(waveform / peak, rate)


def _picture(session: Session, name: str) -> bytes:
    """The spectrogram as networks see it."""
    log_mel = session.log_mel(name)
    top = float(log_mel.max())
    return gallery.picture(log_mel, (top - session.config.features.top_db, top))


@contextlib.contextmanager
def served(
    session: Session, port: int = 0, is_review: bool = False
) -> Iterator[tuple[str, Any, Labelling]]:
    """Yields the page's address, its server, and the labelling behind it.

    Raises:
      UserError: the port is in use.
    """
    _, waitress = libraries()
    labelling, token = Labelling(session, is_review), secrets.token_urlsafe(16)
    hosts: set[str] = set()
    app = make_app(labelling, token, hosts)
    try:
        server = waitress.create_server(app, host="127.0.0.1", port=port, threads=4)
    except OSError as error:
        raise UserError(f"port {port} cannot be used: {error.strerror}") from error
    port = server.effective_port
    hosts |= {f"127.0.0.1:{port}", f"localhost:{port}"}
    labelling.start()
    try:
        yield f"http://127.0.0.1:{port}/?token={token}", server, labelling
    finally:
        server.close()


def serve(session: Session, port: int, is_review: bool) -> None:
    """Serves the page until the person stops it by Ctrl+C."""
    logging.getLogger("waitress").setLevel(logging.ERROR)
    with served(session, port, is_review) as (address, server, labelling):
        print(f"Open {address}\nStop with Ctrl+C; the same command continues.")
        sys.stdout.flush()
        server.run()  # returns on Ctrl+C
        if not labelling.stop(seconds=1.0):
            # A training cannot be stopped, and the exit of Python would wait for it.
            # All answers are on the disk.
            lease.commit(session.workdir)
            place = with_urls(session.workdir)
            print(f"\n{session.answered:,} answers are in {place}")
            sys.stdout.flush()
            os._exit(0)
    print()
