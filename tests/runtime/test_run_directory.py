import json
import shutil

import pytest

from audiodd_jax.config import fields, presets
from audiodd_jax.errors import UserError, named
from audiodd_jax.runtime.run_directory import RunDirectory, run_once

CONFIG = {"seed": 0, "loop": {"steps": 5, "sizes": (1, 2)}}


def test_a_run_is_recorded(tmp_path):
    with RunDirectory(tmp_path / "run", CONFIG) as run:
        assert run.result() is None
        run.start_from(0)
        run.log({"step": 1, "loss": 0.5})
        run.finish({"test_accuracy": 0.9})
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 0
    assert run.history() == [{"step": 1, "loss": 0.5}]
    assert run.result() == {"test_accuracy": 0.9}
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["versions"]["jax"]
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))


def test_tensorboard_reads_the_events(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    with RunDirectory(tmp_path / "run", CONFIG) as run:
        run.start_from(0)
        for step in (1, 2):
            run.log({"step": step, "loss": 0.5 * step})
    events = accumulator.EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 1.0)]


def test_resuming_drops_later_rows_and_a_torn_line(tmp_path):
    with RunDirectory(tmp_path / "run", CONFIG) as run:
        run.start_from(0)
        for step in (1, 2, 3):
            run.log({"step": step})
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 4, "lo')
        run.start_from(2)
        run.log({"step": 3, "loss": 1})
        assert run.history() == [{"step": 1}, {"step": 2}, {"step": 3, "loss": 1}]


def test_a_run_accepts_only_its_configuration(tmp_path):
    with RunDirectory(tmp_path / "run", CONFIG) as run:
        run.start_from(0)
    with RunDirectory(tmp_path / "run", CONFIG):
        pass
    other = {"seed": 1, "loop": {"steps": 6, "sizes": (1, 2)}}
    with (
        pytest.raises(UserError, match=r"seed was 0 and is now 1; loop\.steps was 5"),
        RunDirectory(tmp_path / "run", other),
    ):
        pass
    # The refusal freed the lock.
    with RunDirectory(tmp_path / "run", CONFIG):
        pass


def test_a_refused_run_leaves_no_new_folder(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    for folder in (tmp_path / "new", mine):
        with (
            pytest.raises(UserError, match="a class has"),
            RunDirectory(folder, CONFIG),
        ):
            raise UserError("a class has 3 clips")
    assert not (tmp_path / "new").exists()
    assert mine.is_dir()

    def loses_its_folder():
        with RunDirectory(mine / "run", CONFIG):
            shutil.rmtree(mine)
            raise UserError("a class has 3 clips")

    # A folder that is gone does not hide why the run ended.
    with pytest.raises(UserError, match="a class has"):
        loses_its_folder()
    # One that has begun keeps what it wrote.
    run = RunDirectory(tmp_path / "new", CONFIG)
    with run:
        run.start_from(0)
    with pytest.raises(UserError, match="the disk"), run:
        raise UserError("the disk is full")
    assert (tmp_path / "new" / "config.json").exists()


def test_a_run_that_never_started_leaves_its_folder_free(tmp_path):
    with RunDirectory(tmp_path / "run", CONFIG):
        pass
    with RunDirectory(tmp_path / "run", {"seed": 1}) as run:
        run.start_from(0)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 1}


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_damaged_file_is_named(tmp_path, name):
    with RunDirectory(tmp_path / "run", CONFIG) as run:
        run.start_from(0)
    (tmp_path / "run" / name).write_text('{"a')
    with (
        pytest.raises(UserError, match=f"{name} is damaged"),
        RunDirectory(tmp_path / "run", CONFIG) as run,
    ):
        run.result()


def test_two_processes_cannot_write_the_same_directory(tmp_path):
    with (
        RunDirectory(tmp_path / "run", CONFIG),
        pytest.raises(UserError, match="another process is writing"),
        RunDirectory(tmp_path / "run", CONFIG),
    ):
        pass


def test_a_folder_that_holds_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="holds no run"), RunDirectory(tmp_path, CONFIG):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with (
        pytest.raises(UserError, match="is not a folder"),
        RunDirectory(tmp_path / "thesis.txt", CONFIG),
    ):
        pass


def test_a_failed_write_names_the_run(tmp_path):
    with (
        pytest.raises(OSError, match="No space") as raised,
        RunDirectory(tmp_path / "run", {"a": 1}),
    ):
        raise OSError(28, "No space left on device")
    assert raised.value.filename == str(tmp_path / "run")
    with pytest.raises(OSError, match="No space") as raised, named(tmp_path):
        raise OSError(28, "No space left on device", "a file")
    assert raised.value.filename == "a file"


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    with RunDirectory(tmp_path / "run", CONFIG) as run:
        run.start_from(0)
    (tmp_path / "run" / "result.json.part-0123456789ab").write_text('{"a')
    with RunDirectory(tmp_path / "run", CONFIG):
        pass
    assert not list((tmp_path / "run").glob("*.part-*"))


def test_a_finished_run_is_read_instead_of_run_again(tmp_path):
    calls = []

    def work(run):
        calls.append(run.path)
        run.use_data("digest")
        run.start_from(-1)
        return {"test_accuracy": 0.5}

    def is_stopped(run):
        run.start_from(-1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_once(tmp_path / "run", CONFIG, is_stopped)
    done = run_once(tmp_path / "run", CONFIG, work)
    again = run_once(tmp_path / "run", CONFIG, work)
    assert calls == [tmp_path / "run"]
    assert done == again == ({"test_accuracy": 0.5}, tmp_path / "run")
    with pytest.raises(UserError, match="seed was 0"):
        run_once(tmp_path / "run", {"seed": 1}, work)
    renewed = run_once(
        tmp_path / "run",
        {**CONFIG, "new": 2},
        work,
        defaults={"new": 1},
        may_change={"new"},
    )
    assert renewed.result == done.result


OPTIONS = presets.run_options(presets.for_dataset("tones"), fields.DISTILLATION)


def record(**changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return fields.record(
        fields.replace(presets.for_dataset("tones"), dotted), fields.DISTILLATION
    )


def start(folder, config):
    with RunDirectory(folder, config, **OPTIONS) as run:
        run.use_data("digest")
        run.start_from(0)
    return folder


def test_a_setting_missing_from_an_older_run_takes_its_default(tmp_path):
    """The default is that of the run's dataset."""
    old = record()
    del old["coreset"]["factor"], old["seed"], old["optimizer"]
    start(tmp_path / "run", old)
    with RunDirectory(tmp_path / "run", record(), **OPTIONS):
        pass
    other = pytest.raises(UserError, match="factor was 1 and is now 2")
    with other, RunDirectory(tmp_path / "run", record(coreset__factor=2), **OPTIONS):
        pass


def test_settings_that_do_not_affect_numbers_may_change(tmp_path):
    start(tmp_path / "run", record())
    moved = record(data__data_dir="/elsewhere", network__chunk=8, evaluation__seeds=9)
    with RunDirectory(tmp_path / "run", moved, **OPTIONS) as run:
        run.use_data("digest")
        run.start_from(0)
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["data"]["data_dir"] == "/elsewhere"
    assert kept["evaluation"]["seeds"] == 9


def test_other_data_is_refused(tmp_path):
    start(tmp_path / "run", record())
    with RunDirectory(tmp_path / "run", record(), **OPTIONS) as run:
        with pytest.raises(UserError, match="or its split has changed since"):
            run.use_data("another")
        (tmp_path / "run" / "data.json").unlink()  # as an older version left it
        run.use_data("another")


def test_the_history_ends_at_a_damaged_row(tmp_path):
    with RunDirectory(tmp_path / "run", record(), **OPTIONS) as run:
        run.start_from(0)
        run.log({"step": 1, "loss": float("nan")})
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('[1, 2]\n{"step": 2}\n')
        assert run.history() == [{"step": 1, "loss": None}]


@pytest.mark.parametrize("text", ["[]", "null", "0"])
def test_a_configuration_that_is_no_object_is_refused(tmp_path, text):
    with RunDirectory(tmp_path / "run", {"seed": 0}) as run:
        run.start_from(-1)
    (tmp_path / "run" / "config.json").write_text(text)
    defaults = {"seed": 0}
    with (
        pytest.raises(UserError, match="is damaged: it holds no settings"),
        RunDirectory(tmp_path / "run", {"seed": 0}, defaults=defaults),
    ):
        pass
