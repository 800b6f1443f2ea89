"""The report as one HTML page with embedded images and sounds."""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2

from audiodd_jax.report import charts as charts_lib
from audiodd_jax.report.charts import Chart
from audiodd_jax.report.groups import Group
from audiodd_jax.report.tables import Table, mean_std


class Side(NamedTuple):
    """A spectrogram on the page, with picture and sound as data URLs.

    ``labels`` has class names and values of its label; it is empty for a real clip.
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
    """A coreset on the page; ``number`` is that of its run."""

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
      made: version, date and number of runs.
      summary: one sentence per coreset.
      note: how to read the numbers.
      comparison: the groups of runs by dataset.
      by_class: the groups of each table of scores by class.
      matrices: groups with confusion matrices.
      origin: data, licences, versions.
    """

    title: str
    made: str
    summary: Sequence[str]
    note: str
    comparison: Mapping[str, Sequence[Group]]
    charts: Sequence[Chart]
    by_class: Sequence[Sequence[Group]]
    matrices: Sequence[Group]
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
    environment.filters["percent"] = _percent
    size = {
        name.lower(): getattr(charts_lib, name)
        for name in ("WIDTH", "HEIGHT", "LEFT", "RIGHT", "TOP", "BOTTOM")
    }
    return environment.get_template("page.html").render(
        **page._asdict(), size=size, class_names=_class_names(page)
    )


def _percent(share: float) -> str:
    """Returns a share in whole percent; small ones are not shown as 0."""
    return "<1" if 0 < share < 0.005 else f"{100 * share:.0f}"


def _class_names(page: Page) -> list[str]:
    """Returns the classes that the page can be filtered by."""
    names = [name for same in page.by_class for name in same[0].classes.class_names]
    names += [card.distilled.title for item in page.galleries for card in item.cards]
    return list(dict.fromkeys(names))
