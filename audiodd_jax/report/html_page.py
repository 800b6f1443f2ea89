"""The report as one HTML page with its pictures and sounds within it."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import jinja2

from audiodd_jax.report.tables import Table


class Side(NamedTuple):
    """A spectrogram on the page.

    Attributes:
      title: what it is.
      told: a line under it.
      picture: a data address.
      sound: a data address.
      labels: names and shares of its label; empty for a real clip.
    """

    title: str
    told: str
    picture: str
    sound: str
    labels: Sequence[tuple[str, float]] = ()


class Card(NamedTuple):
    """A spectrogram of a coreset, and the real clip nearest to it, if it is known."""

    own: Side
    near: Side | None

    @property
    def sides(self) -> list[Side]:
        """Both, or the one that there is."""
        return [side for side in self if side]


class Gallery(NamedTuple):
    """A coreset on the page."""

    title: str
    told: str
    cards: Sequence[Card]


class Titled(NamedTuple):
    """A table and its title."""

    title: str
    table: Table


class Picture(NamedTuple):
    """A figure's title and its data address."""

    title: str
    source: str


class Page(NamedTuple):
    """What the page holds, from top to bottom.

    Attributes:
      title: of the page.
      made: when and of what.
      summary: a sentence a coreset.
      note: how to read them.
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
    """Content as an address that holds it (RFC 2397)."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def render(page: Page) -> str:
    """The page as HTML; every text in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("audiodd_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html").render(page._asdict())
