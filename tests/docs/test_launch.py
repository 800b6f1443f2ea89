"""The notebook, the scripts and the sweep in launch/ work."""

import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import stores

from audiodd_jax.runtime.object_store import Bucket
from audiodd_jax.sweep import plan

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = sorted([*LAUNCH.rglob("*.sh"), *LAUNCH.rglob("*.sbatch")])


def notebook():
    import nbformat

    return nbformat.read(LAUNCH / "colab_tpu.ipynb", as_version=4)


def executed(folder, *replaced):
    """Runs the notebook in a folder, with replaced settings."""
    from nbclient import NotebookClient

    book = notebook()
    for old, new in replaced:
        (cell,) = [cell for cell in book.cells if old in cell.source]
        cell.source = cell.source.replace(old, new)
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=500, resources=where).execute()
    return book


FEW = [
    ("SAMPLES_PER_CLASS = 5", "SAMPLES_PER_CLASS = 1"),
    ("STEPS = 0", "STEPS = 4"),
    ("changes = {", 'changes = {"features__frames": 16} | {'),
]


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.filterwarnings("ignore")  # from Jupyter itself
def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    """On the CPU, with few steps, and with the package already installed."""
    book = executed(tmp_path, *FEW)
    runs = tmp_path / "audiodd_runs"
    assert (runs / "tones-1-4-seed0" / "coreset.npz").exists()
    assert (runs / "report" / "index.html").exists()
    shown = [
        kind
        for cell in book.cells
        for output in cell.get("outputs", ())
        for kind in output.get("data", ())
    ]
    assert shown.count("image/png") == 2
    # One player per class.
    players = [
        output
        for cell in book.cells
        for output in cell.get("outputs", ())
        if "<audio" in output.get("data", {}).get("text/html", "")
    ]
    assert len(players) == 10


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_works_in_a_bucket(tmp_path, monkeypatch):
    """The runtime's disk is lost, and the same cells find the run again."""
    with stores.serving("s3") as store:
        for name, value in store.variables.items():
            monkeypatch.setenv(name, value)
        place = f"{store.url}/colab"
        for machine in ("a", "b"):
            monkeypatch.setenv("AUDIODD_MIRRORS", str(tmp_path / machine))
            store.log.clear()
            book = executed(tmp_path, *FEW, ('BUCKET = ""', f'BUCKET = "{place}"'))
        written = [path for method, path, *_ in store.log if method == "PUT"]
        assert not [path for path in written if re.search("/colab/tones.*[^k]$", path)]
        names = Bucket(*store.url.split("://")).listed("colab/")
    assert {"colab/tones-1-4-seed0/coreset.npz", "colab/report/index.html"} <= {*names}
    shown = [output.get("text", "") for output in book.cells[-1].outputs]
    assert f"page:     {place}/report/index.html" in "".join(shown)


def test_the_cells_of_the_notebook_compile_and_take_a_bucket(monkeypatch):
    cells = [cell.source for cell in notebook().cells if cell.cell_type == "code"]
    for source in cells:
        compile(source, "cell", "exec")
    (storage,) = [source for source in cells if 'BUCKET = ""' in source]
    storage = storage.replace('BUCKET = ""', 'BUCKET = "gs://bucket/runs/"')
    signed_in = []
    auth = types.SimpleNamespace(authenticate_user=lambda: signed_in.append(1))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(auth=auth))
    found = {"sys": sys}
    exec(storage, found)
    assert (found["PLACE"], signed_in) == ("gs://bucket/runs", [1])


def test_the_notebook_is_stored_without_outputs():
    cells = [cell for cell in notebook().cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: str(p.relative_to(LAUNCH)))
def test_scripts_pass_shellcheck(script):
    done = subprocess.run(
        ["shellcheck", "-x", script], capture_output=True, text=True, cwd=LAUNCH.parent
    )
    assert done.returncode == 0, done.stdout


def test_the_example_sweep_is_read():
    runs = plan.read(LAUNCH / "sweep" / "sizes.py")
    assert len(runs) == 8
    assert runs[0].name == "method=rfad,samples_per_class=1,seed=0"


def test_tpu_scripts_print_their_usage():
    for script in (LAUNCH / "tpu").iterdir():
        done = subprocess.run(["bash", script], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith(f"usage: bash launch/tpu/{script.name} NAME ZONE")


FAKE = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$CALLS"
"""


def fake(tmp_path, monkeypatch, **programs):
    """Installs stand-ins for a cluster's programs that record their calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(text or FAKE)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def test_a_slurm_job_saves_and_requeues_at_the_time_limit(tmp_path, monkeypatch):
    waits = (
        "#!/usr/bin/env bash\n"
        "trap 'echo saved >>\"$CALLS\"; exit 143' TERM\n"
        'echo "audiodd $*" >>"$CALLS"\n'
        # No $(...): bash may lose a signal while it reads the output.
        "for ((i = 0; i < 300; i++)); do sleep 0.1; done\n"
    )
    calls = fake(tmp_path, monkeypatch, audiodd=waits, scontrol=None)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text("")
    monkeypatch.setenv("AUDIODD_VENV", str(tmp_path / "venv"))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    script = LAUNCH / "slurm" / "distill.sbatch"
    process = subprocess.Popen(["bash", script, "--dataset=tones"])
    while not calls.exists() or not calls.read_text():
        assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert calls.read_text().splitlines() == [
        "audiodd distill --workdir=runs/slurm-7 --dataset=tones",
        "saved",
        "scontrol requeue 7",
    ]


def test_a_tpu_run_uses_all_hosts_and_fetches_from_the_first(tmp_path, monkeypatch):
    calls = fake(tmp_path, monkeypatch, gcloud=None)
    script = LAUNCH / "tpu" / "run.sh"
    command = ["bash", script, "pod", "zone", "distill", "--dataset=tones"]
    subprocess.run(command, check=True, capture_output=True)
    run, fetch = calls.read_text().splitlines()
    assert "ssh pod --zone=zone --worker=all" in run
    assert run.rstrip().endswith("--command=venv/bin/audiodd distill --dataset=tones")
    assert "scp --recurse pod:runs runs-pod --zone=zone --worker=0" in fetch
    calls.unlink()
    subprocess.run([*command, "--workdir=gs://b/run"], check=True, capture_output=True)
    assert "scp" not in calls.read_text()
