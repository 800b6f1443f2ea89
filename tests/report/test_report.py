"""``audiodd report``: turns run directories into a page with sounds."""

import contextlib
import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from browser import OPTIONS, assert_accessible, needs_axe, needs_browser
from command_line import FEATURES, FEW, NETWORK, TINY, fails

from audiodd_jax.commands import main
from audiodd_jax.report.groups import grouped
from audiodd_jax.report.runs import find
from audiodd_jax.runtime import files


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of RFAD, selected clips, networks, active learning, a partial run."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.getbasetemp() / "cache"
        patch.setenv("AUDIODD_CACHE", str(cache))
        place = tmp_path_factory.mktemp("runs")
        common = ["--dataset=tones", "--samples_per_class=2", *TINY]
        for seed in (0, 1):
            name = f"--workdir={place / f'rfad{seed}'}"
            main.main(["distill", *common, f"--seed={seed}", name])
        main.main(
            ["distill", *common, "--method=random", f"--workdir={place / 'random'}"]
        )
        main.main(
            [
                "evaluate",
                f"--workdir={place / 'rfad0'}",
                "--protocol=krr,linear",
                "--against=random",
                "--num_seeds=1",
                *NETWORK,
            ]
        )
        main.main(
            [
                *("active", "--dataset=tones", *FEATURES, *NETWORK, *FEW),
                *("--acquisition=random", "--model=linear"),
                f"--workdir={place / 'active'}",
            ]
        )
    shutil.copytree(place / "rfad1", place / "cut")
    (place / "cut" / "result.json").unlink()
    return place


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.getbasetemp() / "cache"
        patch.setenv("AUDIODD_CACHE", str(cache))
        out = tmp_path_factory.mktemp("report") / "out"
        main.main(["report", str(runs), f"--out={out}", "--iterations=8"])
    return out


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_seeds_are_one_row_with_mean_and_deviation(runs, report):
    scores = [
        json.loads((runs / name / "result.json").read_text())["test_accuracy"]
        for name in ("rfad0", "rfad1")
    ]
    found = {row["method"]: row for row in rows(report / "tables" / "coresets.csv")}
    mean, std = 100 * np.mean(scores), 100 * np.std(scores, ddof=1)
    assert found["rfad"]["accuracy (%)"] == f"{mean:.1f} ± {std:.1f}"
    assert found["rfad"]["seeds"] == "2"
    assert found["rfad"]["share of train"] == "1.00 %"
    assert found["random"]["seeds"] == "1"


def test_networks_name_their_coreset(report):
    found = [row["learns from"] for row in rows(report / "tables" / "networks.csv")]
    assert sorted(found) == ["coreset of rfad, 2 per class", "real clips, random"]


def test_unfinished_runs_are_listed(report):
    (row,) = rows(report / "tables" / "unfinished_runs.csv")
    assert (row["run"], row["last step"]) == ("cut", "8")


def test_sounds_are_an_audio_folder_to_train_on(report, tmp_path, capsys):
    (folder,) = (report / "sounds").glob("tones_rfad*")
    listed = rows(folder / "metadata.csv")
    assert len(listed) == 20
    for row in listed:
        wave, rate = soundfile.read(folder / row["file_name"])
        assert (rate, wave.size) == (8000, 8000)
        assert 0.5 < np.abs(wave).max() < 1
        values = {k: float(v) for k, v in row.items() if k.startswith("label_")}
        assert max(values, key=values.get) == f"label_{row['label']}"
        assert row["file_name"].startswith(f"{row['label']}/")
    shares = ["--config.data.test_fraction=0.5", "--config.data.validation_fraction=0"]
    main.main(
        ["prepare", "--dataset=folder", f"--data_dir={folder}", *FEATURES, *shares]
    )
    assert "20" in capsys.readouterr().out


def test_hidden_sounds_are_written_on_request(runs, tmp_path):
    command = ["report", str(runs / "rfad0"), "--per_class=1", "--iterations=0"]
    for flags, count in (((), 10), (("--all_sounds",), 20)):
        out = tmp_path / f"out{count}"
        main.main([*command, *flags, f"--out={out}"])
        (table,) = (out / "sounds").glob("*/metadata.csv")
        names = [row["file_name"] for row in rows(table)]
        assert len(names) == len(list(table.parent.rglob("*.wav"))) == count
        page = (out / "index.html").read_text()
        assert page.count("<audio") == 20  # ten, and a real clip next to each
        assert "10 more spectrograms are not shown" in page


def test_the_page_loads_no_other_files(report):
    text = (report / "index.html").read_text()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(addresses) > 40
    assert all(a.startswith(("data:", "#")) for a in addresses)
    assert "http" not in re.sub(r"data:[^\"]*", "", text)


def test_a_full_disk_is_one_sentence(runs, capsys, small_disk):
    arguments = ["report", str(runs / "rfad0"), f"--out={small_disk / 'out'}"]
    arguments.append("--iterations=1")
    sentence = fails(capsys, *arguments)
    assert "is full" in sentence
    assert str(small_disk) in sentence
    assert not (small_disk / "out" / "index.html").exists()
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    main.main(arguments)
    assert (small_disk / "out" / "index.html").exists()


def test_two_reports_into_one_folder_take_turns(runs, tmp_path):
    with files.exclusive(tmp_path / "out" / ".report", "here"):
        command = [sys.executable, "-m", "audiodd_jax", "report", str(runs / "rfad0")]
        command += [f"--out={tmp_path / 'out'}", "--galleries=0"]
        second = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        told = next(line for line in second.stderr if "waiting" in line)
        assert "writing a report there" in told
        assert not (tmp_path / "out" / "index.html").exists()
    assert second.wait(timeout=120) == 0
    second.stderr.close()
    assert (tmp_path / "out" / "index.html").exists()


def test_no_run_starts_inside_a_report(report, capsys):
    sentence = fails(capsys, "distill", *TINY, f"--workdir={report}")
    assert "is not empty and holds no run" in sentence


def test_missing_recordings_are_reported(runs, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(runs / "random", run)
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"name": "folder", "data_dir": str(tmp_path / "gone")}
    (run / "config.json").write_text(json.dumps(config))
    out = tmp_path / "out"
    main.main(["report", str(run), f"--out={out}", "--iterations=0"])
    assert "No real clips are shown next to tones, random" in capsys.readouterr().out
    assert "real: " not in (out / "index.html").read_text()


def test_folders_without_runs_are_refused(runs, tmp_path, capsys):
    assert fails(capsys, "report") == "usage: audiodd report RUNS... [flags]"
    gone = tmp_path / "gone"
    assert fails(capsys, "report", gone) == f"there is no folder {gone}"
    gone.mkdir()
    assert fails(capsys, "report", gone).startswith(f"there is no run in {gone}")
    found = fails(capsys, "report", runs, "--per_class=-1", f"--out={tmp_path / 'out'}")
    assert found == "--per_class must be at least 0, not -1"
    (tmp_path / "file").write_text("")
    found = fails(capsys, "report", runs, f"--out={tmp_path / 'file'}")
    assert found == f"{tmp_path / 'file'} is not a folder"
    (gone / "config.json").write_text("{")
    assert "is damaged" in fails(capsys, "report", gone)


def test_differing_settings_name_similar_groups(runs, tmp_path):
    """A different learning rate is named; a seed or a folder is not."""
    for name, rate in (("one", 0.03), ("other", 0.01)):
        shutil.copytree(runs / "rfad0", tmp_path / name)
        file = tmp_path / name / "config.json"
        config = json.loads(file.read_text())
        config["optimizer"]["learning_rate"] = rate
        config["data"]["data_dir"] = name
        file.write_text(json.dumps(config))
    found = find([tmp_path, tmp_path / "one"])
    distilled = [run for run in found if run.kind == "distill"]
    assert [group.settings for group in grouped(distilled)] == [
        ("optimizer.learning_rate=0.03",),
        ("optimizer.learning_rate=0.01",),
    ]


def test_user_folders_are_datasets_of_their_own_and_copies_are_not(runs, tmp_path):
    def groups(dataset):
        for name in ("one", "other"):
            shutil.copytree(runs / "rfad0", tmp_path / dataset / name)
            file = tmp_path / dataset / name / "config.json"
            config = json.loads(file.read_text())
            config["data"] |= {"name": dataset, "data_dir": name}
            file.write_text(json.dumps(config))
        found = find([tmp_path / dataset])
        return grouped([run for run in found if run.kind == "distill"])

    (group,) = groups("tones")
    # Two copies of a run are one seed.
    assert len(group.runs) == 1
    assert [group.settings for group in groups("folder")] == [
        ("data.data_dir=one",),
        ("data.data_dir=other",),
    ]


@contextlib.contextmanager
def opened(file, width=1400, **options):
    """Opens the page in a browser; it must not log to the console or fetch anything."""
    from playwright.sync_api import sync_playwright

    told = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**OPTIONS)
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("requestfailed", lambda request: told.append(request.url[:80]))
        page.goto(file.as_uri())
        yield page
        browser.close()
    assert told == []


@needs_browser
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_and_plays_the_page(report, width):
    with opened(report / "index.html", width) as page:
        # Players need the length of a sound to play it.
        page.wait_for_function(
            "[...document.querySelectorAll('audio')].every(a => a.readyState > 0)"
        )
        loaded = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
        assert page.evaluate(loaded)
        count = page.locator("audio").count()
        # Two coresets of twenty, and a real clip next to each.
        assert count == page.locator("button.spectrogram").count() == 80
        # Nothing is wider than the window: only tables scroll, by themselves.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("button.spectrogram").nth(2).click()
        page.wait_for_function("document.querySelectorAll('audio')[2].currentTime > 0")
        assert page.locator("button.playing").count() == 1
        # Playing another sound stops the first.
        page.locator("button.spectrogram").nth(1).click()
        page.wait_for_function("!document.querySelectorAll('audio')[1].paused")
        assert page.evaluate("document.querySelectorAll('audio')[2].paused")


@needs_browser
def test_keys_move_between_sounds_and_play_them(report):
    with opened(report / "index.html") as page:
        playing = "[...document.querySelectorAll('audio')].findIndex(a => !a.paused)"
        page.locator("button.spectrogram").first.focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Enter"):
            page.keyboard.press(key)
        page.wait_for_function(f"{playing} === 1")
        page.keyboard.press("Escape")
        assert page.evaluate(playing) == -1
        page.keyboard.press("End")
        page.keyboard.press("Space")
        page.wait_for_function(f"{playing} === 79")


@needs_browser
def test_classes_and_runs_can_be_selected(report):
    with opened(report / "index.html") as page:
        shown = lambda selector: page.locator(f"{selector}:visible").count()
        assert shown(".card") == 40
        page.select_option("#class", "siren")
        assert shown(".card") == 4
        assert shown(".by-class tbody tr") == 1
        runs = page.locator("[data-shows]").count()
        assert shown("g.run") > runs
        page.locator("[data-check=none]").click()
        assert shown("figure") == shown(".card") == shown(".by-class") == 0
        assert shown("details") == 0
        page.locator("[data-shows='1']").check()
        assert shown(".card") == 2
        page.select_option("#class", "")
        assert shown(".card") == 20
        page.locator("[data-check=all]").click()
        assert shown(".card") == 40


@needs_browser
def test_clicking_a_heading_sorts_the_runs(report):
    with opened(report / "index.html") as page:

        def clicked(title):
            head = page.locator(".runs th", has_text=title)
            head.locator("button").click()
            place = head.evaluate("head => head.cellIndex")
            column = f"rows => rows.map(row => row.cells[{place}].dataset.value)"
            return page.locator(".runs tbody tr").evaluate_all(column)

        found = list(map(float, clicked("accuracy (%)")))
        assert len(found) > 2
        assert found == sorted(found, reverse=True)
        assert list(map(float, clicked("accuracy (%)"))) == sorted(found)
        # Unknown values come last in both orders.
        assert clicked("bytes")[-1] == clicked("bytes")[-1] == ""
        assert clicked("bytes")[0] != ""


@needs_browser
def test_dark_mode_follows_the_system_and_a_button(report):
    ground = "getComputedStyle(document.body).backgroundColor"
    found = {}
    for scheme in ("light", "dark"):
        with opened(report / "index.html", color_scheme=scheme) as page:
            found[scheme] = page.evaluate(ground)
            page.locator("#theme").click()
            found[scheme, "switched"] = page.evaluate(ground)
            # The choice survives a reload, once the browser has stored it.
            page.wait_for_timeout(500)
            page.reload()
            assert page.evaluate(ground) == found[scheme, "switched"]
    assert found["light"] == found["dark", "switched"] == "rgb(244, 246, 248)"
    assert found["dark"] == found["light", "switched"] == "rgb(18, 22, 28)"


@needs_browser
def test_the_page_works_without_scripts(report):
    with opened(report / "index.html", java_script_enabled=False) as page:
        assert page.locator("audio[controls]:visible").count() == 80
        assert page.locator("table:visible").count() >= 5
        for selector in ("button", "select", "input"):
            assert page.locator(f"{selector}:visible").count() == 0


@needs_browser
@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_accessible(report, width, scheme):
    with opened(report / "index.html", width, color_scheme=scheme) as page:
        assert_accessible(page)
