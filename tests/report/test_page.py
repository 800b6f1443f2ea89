"""The page's structure, without a browser: headings, labels, escaping, contrast."""

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import run_rows

from audiodd_jax.report import page
from audiodd_jax.report.gallery import Gallery, Side
from audiodd_jax.report.tables import Table

TEMPLATES = Path(page.__file__).parent / "templates"
HOSTILE = ("<b>bold</b>", 'a"b', "</script><script>x", "{{ 7 * 7 }}")
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Tree(HTMLParser):
    """Tags with their attributes, and the text of headings; tags must be closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.headings = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice"
        inside = [name for name, _ in self.open]
        self.tags.append((tag, dict(attributes), inside))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append([int(tag[1]), ""])
        if tag not in VOID:
            self.open.append((tag, dict(attributes)))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes), [name for name, _ in self.open]))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and re.fullmatch("h[1-6]", self.open[-1][0]):
            self.headings[-1][1] += data

    def of(self, *names):
        return [attributes for tag, attributes, _ in self.tags if tag in names]


def group(number, **changes):
    values = {
        "learns_from": "rfad, <i>1</i> per class",
        "accuracies": (0.5, 0.75),
        "start": 0.25,
        "history": [
            {"step": 0, "validation_accuracy": 0.25},
            {"step": 10, "validation_accuracy": 0.5},
        ],
    }
    return run_rows.group(number, **{**values, **changes})


def rendered(groups=(), galleries=(), tables=None, origin=()):
    texts = {"title": "Coresets of <tones>", "made": "today", "summary": []}
    return page.render(groups, galleries, tables or {}, {}, **texts, origin=origin)


@pytest.fixture(scope="module")
def text():
    counts = np.eye(4, dtype=int) + np.eye(4, k=1, dtype=int)
    rounds = [{"counted": n, "test_accuracy": n / 40} for n in (10, 20)]
    active = {"acquisition": "bald", "rounds": rounds, "wall_seconds": 1.0}
    groups = [
        group(1, scores=[run_rows.summary(counts, names=HOSTILE)]),
        group(2, num_bytes=None, start=None, history=[]),
        group(3, kind="active", result=active),
    ]
    side = lambda name: Side(name, "<file>", "data:,", "data:,", [(name, 0.5)])
    cards = [[side(name), side(f"real: {name}")] for name in HOSTILE]
    tables = {"Some <table>": Table(["a & b"], [["<td>"]])}
    gallery = Gallery(1, "the <gallery>", "caption", cards, Path(), [])
    return rendered(groups, [gallery], tables, ["origin"])


@pytest.fixture(scope="module")
def tree(text):
    return Tree(text)


def test_headings_are_in_order(tree):
    levels = [level for level, _ in tree.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(text.strip() for _, text in tree.headings)


def test_everything_has_a_name(tree):
    assert tree.of("html") == [{"lang": "en"}]
    assert all(image["alt"].strip() for image in tree.of("img"))
    labelled = {label["for"] for label in tree.of("label")}
    for field in tree.of("input", "select"):
        assert field.get("aria-label") or field["id"] in labelled
    assert all(drawing["aria-label"] for drawing in tree.of("svg"))
    assert all(head["scope"] in ("col", "row") for head in tree.of("th"))
    names = [part["aria-label"] for part in tree.of("div") if "tabindex" in part]
    assert names
    assert len(names) == len(set(names))


def test_tables_scroll_by_themselves(tree):
    assert tree.of("table")
    places = [inside[-1] for tag, _, inside in tree.tags if tag == "table"]
    assert set(places) == {"div"}
    assert len([d for d in tree.of("div") if "tabindex" in d]) == len(places)


def test_a_row_has_as_many_cells_as_its_table_has_columns(text):
    for table in re.findall("<table.*?</table>", text, re.DOTALL):
        head, *rows = re.findall("<tr.*?</tr>", table, re.DOTALL)
        cells = {len(re.findall("<t[hd][ >]", row)) for row in (head, *rows)}
        assert len(cells) == 1


def test_links_lead_to_headings(tree):
    ids = [attributes["id"] for _, attributes, _ in tree.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [link["href"] for link in tree.of("a")]
    assert len(links) == 7
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_names_from_users_are_escaped(tree):
    """They neither create tags nor end attributes, and are complete."""
    tags = {tag for tag, _, _ in tree.tags}
    assert not tags & {"b", "i", "file", "gallery", "tones"}
    assert len(tree.of("script")) == 1
    options = [option["value"] for option in tree.of("option")]
    assert options == ["", *HOSTILE]
    classes = {row["data-class"] for row in tree.of("tr") if "data-class" in row}
    assert classes == set(HOSTILE)
    cards = {card["data-class"] for card in tree.of("div") if "data-class" in card}
    assert cards == set(HOSTILE)


def test_the_menu_has_every_class_of_a_coreset():
    cards = [[Side("b", "b/0000.wav", "data:,", "data:,")]]
    gallery = Gallery(1, "t", "caption", cards, Path(), [], ("a", "b", "c"))
    options = Tree(rendered(galleries=[gallery])).of("option")
    assert [option["value"] for option in options] == ["", "a", "b", "c"]


def test_a_run_has_its_number_everywhere(tree):
    boxes = [box["data-shows"] for box in tree.of("input")]
    assert boxes == ["1", "2", "3"]
    assert {mark["data-run"] for mark in tree.of("g")} == set(boxes)
    assert {item["data-run"] for item in tree.of("details")} == {"1"}


def test_missing_results_have_no_panel():
    nothing = Tree(rendered())
    assert [text for _, text in nothing.headings] == [
        "Coresets of <tones>",
        "Summary",
        "Glossary",
    ]
    assert nothing.of("table", "svg", "select", "figure") == []
    plain = group(1, num_bytes=None, start=None, history=[])
    some = Tree(rendered([plain]))
    assert [text for level, text in some.headings if level == 2] == [
        "Summary",
        "Runs side by side",
        "Glossary",
    ]
    assert some.of("figure") == []  # a chart of one point says nothing
    runs = rendered([plain]).split("</table>")[0].split("<table")[1]
    assert ("bytes" in runs, "real clips" in runs) == (False, False)


def luminance(colour):
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one, other):
    """Contrast of two colours, as defined by WCAG 2."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_and_marks_have_contrast(mode):
    style = (TEMPLATES / "page.css").read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    colours = {name: pair[mode == "dark"] for name, *pair in pairs}
    # Shares are written on bars and cells of the last two.
    grounds = ("back", "panel", "correct", "wrong")
    assert min(contrast(colours["ink"], colours[g]) for g in grounds) >= 4.5
    for name in ("soft", "accent"):
        assert min(contrast(colours[name], colours[g]) for g in grounds[:2]) >= 4.5
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
    for name in (f"c{i}" for i in range(8)):
        assert contrast(colours[name], colours["panel"]) >= 3
