"""The report as one HTML page with embedded images and sounds."""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2

from audiodd_jax.report import charts as charts_lib
from audiodd_jax.report.charts import Chart
from audiodd_jax.report.class_tables import ByClass, Matrix
from audiodd_jax.report.groups import Group
from audiodd_jax.report.tables import Table, mean_std


class Side(NamedTuple):
    """A spectrogram on the page.

    Attributes:
      title: its class.
      caption: the line below it.
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
    """A spectrogram of a coreset, and the nearest real clip if available."""

    distilled: Side
    nearest: Side | None

    @property
    def sides(self) -> list[Side]:
        """The sides that exist."""
        return [side for side in self if side]


class Gallery(NamedTuple):
    """A coreset on the page.

    Attributes:
      number: its run's number on the page.
      title: dataset, method, size and seed.
      caption: errors of the sounds, and number of spectrograms that are not shown.
      cards: its spectrograms.
    """

    number: int
    title: str
    caption: str
    cards: Sequence[Card]


class Titled(NamedTuple):
    """A table and its title."""

    title: str
    table: Table


class Page(NamedTuple):
    """The content of the page, from top to bottom; empty parts are left out.

    Attributes:
      title: heading.
      made: version, date and number of runs.
      summary: one sentence per coreset.
      note: how to read the numbers.
      comparison: the groups of runs by dataset.
      charts: accuracy against bytes, labels and steps.
      by_class: accuracy of each class.
      matrices: confusion matrices.
      galleries: coresets with their sounds.
      tables: all numbers.
      origin: data, licences, versions.
    """

    title: str
    made: str
    summary: Sequence[str]
    note: str
    comparison: Mapping[str, Sequence[Group]]
    charts: Sequence[Chart]
    by_class: Sequence[ByClass]
    matrices: Sequence[Matrix]
    galleries: Sequence[Gallery]
    tables: Sequence[Titled]
    origin: Sequence[str]


def data_address(content: bytes, media_type: str) -> str:
    """Returns content as a data URL (RFC 2397)."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def render(page: Page) -> str:
    """Renders the page as HTML with all text escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("audiodd_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["mean_std"] = mean_std
    size = {
        name.lower(): getattr(charts_lib, name)
        for name in ("WIDTH", "HEIGHT", "LEFT", "RIGHT", "TOP", "BOTTOM")
    }
    return environment.get_template("page.html").render(
        **page._asdict(), size=size, class_names=_class_names(page)
    )


def _class_names(page: Page) -> list[str]:
    """Returns the classes that the page can be filtered by."""
    names = [name for table in page.by_class for name, _ in table.rows]
    names += [card.distilled.title for item in page.galleries for card in item.cards]
    return list(dict.fromkeys(names))
