"""The report as one HTML page with embedded images and sounds."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import jinja2

from audiodd_jax.report.tables import Table


class Side(NamedTuple):
    """A spectrogram on the page.

    Attributes:
      title: its class.
      caption: a line under it.
      picture: data URL.
      sound: data URL.
      labels: class names and values of its label; empty for a real clip.
    """

    title: str
    caption: str
    picture: str
    sound: str
    labels: Sequence[tuple[str, float]] = ()


class Card(NamedTuple):
    """A spectrogram of a coreset, and the nearest real clip, if known."""

    own: Side
    near: Side | None

    @property
    def sides(self) -> list[Side]:
        """The sides that exist."""
        return [side for side in self if side]


class Gallery(NamedTuple):
    """A coreset on the page."""

    title: str
    caption: str
    cards: Sequence[Card]


class Titled(NamedTuple):
    """A table and its title."""

    title: str
    table: Table


class Picture(NamedTuple):
    """A figure's title and its data URL."""

    title: str
    source: str


class Page(NamedTuple):
    """The content of the page, from top to bottom.

    Attributes:
      title: of the page.
      made: version, date and number of runs.
      summary: one sentence per coreset.
      note: how to read the numbers.
      figures: curves.
      tables: with titles.
      galleries: of coresets.
      origin: data, licences, versions.
    """

    title: str
    made: str
    summary: Sequence[str]
    note: str
    figures: Sequence[Picture]
    tables: Sequence[Titled]
    galleries: Sequence[Gallery]
    origin: Sequence[str]


def data_address(content: bytes, media_type: str) -> str:
    """Content as a data URL (RFC 2397)."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def render(page: Page) -> str:
    """The page as HTML; all text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("audiodd_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html").render(page._asdict())
