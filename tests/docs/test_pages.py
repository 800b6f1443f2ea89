"""Commands, code, links and names on the pages work as printed."""

import functools
import re
import shlex
from pathlib import Path

import pytest
import soundfile
from coresets import by_one_network

import audiodd_jax
from audiodd_jax import command_line, flags
from audiodd_jax.config import fields
from audiodd_jax.kernels import ridge

REPOSITORY = Path(__file__).parents[2]
README = REPOSITORY / "README.md"
USAGE = REPOSITORY / "launch" / "usage.md"
PAGES = [
    README,
    REPOSITORY / "BUILD_NOTES.md",
    REPOSITORY / "audiodd_jax" / "CHANGES.md",
    *sorted((REPOSITORY / "launch").rglob("*.md")),
    *sorted((REPOSITORY / "experiments").rglob("*.md")),
]
LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")


def name_of(page):
    return str(page.relative_to(REPOSITORY))


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def run_blocks(page, names):
    """Runs the Python blocks of a page, which share their names."""
    for block in blocks(page, "python"):
        exec(compile(block, name_of(page), "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.optimized
def test_the_readme_example_runs_as_printed(tmp_path, monkeypatch, capsys):
    """With a third of the steps, scored once by one seed."""
    few = {"loop__steps": 60, "loop__eval_every": 0, "evaluation__seeds": 1}
    for_dataset = functools.partial(audiodd_jax.for_dataset, **few)
    monkeypatch.setattr(audiodd_jax, "for_dataset", for_dataset)
    monkeypatch.chdir(tmp_path)
    names = run_blocks(README, {})
    assert names["arrays"].images.shape == (50, 32, 64, 1)
    assert names["arrays"].labels.shape == (50, 10)
    assert (tmp_path / "runs/example/figures/coreset.png").exists()
    (accuracy,) = re.findall(r"test accuracy: ([\d.]+)%", capsys.readouterr().out)
    assert float(accuracy) > 90


@pytest.mark.slow
def test_python_blocks_of_the_usage_page_run_in_order(tmp_path, monkeypatch, capsys):
    """With smaller runs, in a folder with one like the quickstart's."""
    small = {"network__width": 4, "network__depth": 2, "features__n_mels": 16}
    small |= {"evaluation__width": 8, "evaluation__networks": 2}
    few = {"loop__steps": 2, "loop__batch_size": 32, "evaluation__seeds": 2, **small}
    for_dataset = functools.partial(audiodd_jax.for_dataset, **few)
    monkeypatch.setattr(audiodd_jax, "for_dataset", for_dataset)
    monkeypatch.setattr(ridge, "solved", by_one_network)  # of the example
    monkeypatch.chdir(tmp_path)
    config = audiodd_jax.for_dataset("tones", samples_per_class=5)
    audiodd_jax.distill(config, "runs/quickstart")
    assert len(blocks(USAGE, "python")) == 4
    names = run_blocks(USAGE, {})
    assert names["images"].shape[0] == names["labels"].shape[0] == 50
    assert soundfile.info("first.wav").duration == 1.0
    assert " % " in capsys.readouterr().out.replace("%\n", "% ")


def test_every_python_block_is_run_or_compared_by_a_test():
    tested = {
        "BUILD_NOTES.md": 2,  # by test_build_notes.py
        "README.md": 1,
        "launch/runs.md": 1,  # by runtime/test_trackers.py
        "launch/sweeps.md": 1,
        "launch/usage.md": 4,
    }
    printed = {
        name_of(page): len(blocks(page, "python"))
        for page in PAGES
        if blocks(page, "python")
    }
    assert printed == tested


def test_the_printed_sweep_is_the_example():
    (printed,) = blocks(REPOSITORY / "launch" / "sweeps.md", "python")
    assert printed in (REPOSITORY / "launch" / "sweep" / "sizes.py").read_text()


def test_the_readme_fits_one_and_a_half_screens():
    lines = README.read_text().splitlines()
    assert len(lines) <= 110
    assert max(map(len, lines)) <= 110
    (example,) = blocks(README, "python")
    assert len(example.splitlines()) <= 8
    (table,) = re.findall(r"(?:^\|.*\n)+", README.read_text(), re.MULTILINE)
    head_and_rule = 2
    assert len(table.splitlines()) - head_and_rule <= 6
    assert re.findall(r"!\[.*?\]\((.*?)\)", README.read_text())


def test_the_readme_names_both_scripts():
    commands = "".join(blocks(README, "bash"))
    for script in ("quickstart.sh", "test.sh"):
        assert f"bash launch/{script}" in commands


def test_results_are_one_page_and_notes_stay_short():
    results = (REPOSITORY / "experiments" / "RESULTS.md").read_text()
    assert len(results.splitlines()) <= 150
    notes = (REPOSITORY / "BUILD_NOTES.md").read_text()
    assert len(notes.splitlines()) <= 500


def anchors(page):
    """Names of a page's headings, as links write them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_pictures_and_scripts_exist(page):
    text = page.read_text()
    broken = []
    for link in LINK.findall(text):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    scripts = re.findall(r"(?:experiments|launch)/[\w/]+\.(?:py|sh|sbatch)", text)
    broken += [name for name in scripts if not (REPOSITORY / name).exists()]
    assert not broken


def test_pages_that_code_and_scripts_name_exist():
    named = set()
    for folder in ("audiodd_jax", "launch", "experiments", "tests"):
        for file in (REPOSITORY / folder).rglob("*"):
            if file.suffix in (".py", ".sh", ".sbatch"):
                named |= set(re.findall(r"experiments/[\w/]+\.md", file.read_text()))
    assert not [name for name in named if not (REPOSITORY / name).exists()]


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [README]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        for link in LINK.findall(page.read_text()):
            waiting.append(
                page.parent / link.partition("#")[0] if link[0] != "#" else page
            )
    missing = [name_of(page) for page in PAGES if page.resolve() not in reached]
    assert not missing


def test_files_of_the_package_that_pages_name_exist():
    rooms = {path.name for path in (REPOSITORY / "audiodd_jax").iterdir()}
    missing = []
    for page in PAGES:
        for path in re.findall(r"`([\w/]+/[\w.]+\.(?:py|md|html))`", page.read_text()):
            room = path.split("/")[0]
            root = REPOSITORY / "audiodd_jax" if room in rooms else REPOSITORY
            is_example = "NAME" in path or room == "build"
            if not is_example and not (root / path).exists():
                missing.append((name_of(page), path))
    assert not missing


def test_names_in_the_notes_exist():
    """Constants, classes and functions in backticks, so that renaming is noticed."""
    source = "".join(
        path.read_text()
        for folder in ("audiodd_jax", "tests", "experiments")
        for path in (REPOSITORY / folder).rglob("*.py")
    )
    text = (REPOSITORY / "BUILD_NOTES.md").read_text()
    foreign = {"importlib_resources", "jax.pmap", "psum"}
    named = set(re.findall(r"`([A-Za-z_][\w.]*[A-Za-z_])`", text)) - foreign
    words = set(re.findall(r"\w+", source))
    assert not sorted(n for n in named if n.split(".")[-1] not in words)


def printed_commands():
    """Every ``audiodd`` command line of a page."""
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(r"^audiodd .*$", text, re.MULTILINE):
            yield tuple(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("words", sorted(set(printed_commands())), ids=" ".join)
def test_printed_commands_parse(words):
    command, *arguments = words
    if command == "help":
        return
    assert command in flags.COMMANDS
    line = command_line.parse(command, arguments)
    base = audiodd_jax.Config()
    if command in ("prepare", "distill", "active", "train"):
        base = command_line.dataset_config(line.flags)
    if flags.COMMANDS[command].has_settings:
        assert line.configure(base)


def printed_scripts():
    """Every ``python experiments/...`` command, with the names of its flags."""
    call = re.compile(r"python (experiments/[\w/]+\.py)((?: --\w+(?:=[^\s`]*)?)*)")
    for page in PAGES:
        text = re.sub(r"\s*\\?\n\s*", " ", page.read_text())
        for script, arguments in call.findall(text):
            yield script, tuple(re.findall(r"--(\w+)", arguments))


@pytest.mark.parametrize(("script", "names"), sorted(set(printed_scripts())))
def test_printed_scripts_have_the_flags(script, names):
    sources = (REPOSITORY / script).parent.glob("*.py")
    defined = {
        name
        for source in sources
        for name in re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source.read_text())
    }
    assert all(n in defined or n.removeprefix("no") in defined for n in names)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_settings_exist(page):
    named = set(re.findall(r"--config\.([a-z_.]*[a-z_])", page.read_text()))
    assert named - {"group.field"} <= set(fields.names(audiodd_jax.Config()))
