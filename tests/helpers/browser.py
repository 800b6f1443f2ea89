"""The browser that opens pages in tests, and the accessibility rules for them."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = {
    "executable_path": CHROMIUM,
    "args": ["--no-sandbox", "--disable-gpu", "--mute-audio"],
}
_MODULES = Path(__file__).parents[2] / "node_modules"
AXE = Path(os.environ.get("AUDIODD_TEST_AXE", _MODULES / "axe-core" / "axe.min.js"))

needs_browser = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium to open the page with"
)
needs_axe = pytest.mark.skipif(
    not AXE.exists(), reason="no axe-core: npm install axe-core"
)


def assert_accessible(page):
    """Checks an open page by the rules of axe-core."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 20
    assert [
        (rule["id"], node["html"])
        for rule in found["violations"]
        for node in rule["nodes"]
    ] == []
