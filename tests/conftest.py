"""Runtime checks of every typed function, and where real audio may lie."""

import gc
import http.server
import os
import subprocess
import threading
from pathlib import Path

from jaxtyping import install_import_hook

REPOSITORY = Path(__file__).parents[1]

# Compiled programs are kept for all workers, subprocesses and sessions. In the
# environment, before JAX is imported, so that processes that tests start use them too.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".pytest_cache" / "compiled")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.01")

# Before anything of the package is imported: its functions are wrapped as they load.
install_import_hook("audiodd_jax", "beartype.beartype")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402

# LLVM's third level takes ten times as long as its second for some programs (PRNGs).
# Splitting a module for parallel compilation costs a sixth where all cores are busy.
_QUICK_COMPILATION = (
    "--xla_backend_optimization_level=2 --xla_cpu_parallel_codegen_split_count=1"
)
# Half of a compilation for CPUs; what it compiles is a tenth slower at large sizes.
_OLDER_EMITTERS = "--xla_cpu_use_fusion_emitters=false"


def pytest_configure(config):
    """Tests run on the CPU unless JAX_PLATFORMS says otherwise.

    A selection that leaves out slow tests, or those of them that are optimized, is
    compiled with XLA's older emitters, others with those of users' programs. Versions
    of JAX in which these flags were not tried get none: XLA ends a process over a flag
    that it does not know.
    """
    jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
    if jax.__version_info__ < (0, 11):
        left_out = ("not slow", "not (slow and optimized)")
        is_quick = any(words in config.option.markexpr for words in left_out)
        flags = [_QUICK_COMPILATION, *([_OLDER_EMITTERS] if is_quick else [])]
        # XLA reads them when the first device is asked for.
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = " ".join([given, *flags]).strip()


# The longest files of each tier come first, so that no worker is left with one of them
# when the others are done. launch/test.sh keeps this order.
_LONGEST = (
    *("forecast/test_accelerators.py", "commands/test_accuracy.py"),
    *("docs/test_pages.py", "hostile/test_damaged_files.py", "hostile/test_killed.py"),
    *("commands/test_tags.py", "docs/test_readme_walkthrough.py"),
    *("docs/test_launch.py", "commands/test_protocols.py", "commands/test_export.py"),
    *("runtime/test_several_devices.py", "runtime/test_processes.py"),
    *("experiments/test_example_coreset.py", "hostile/test_machines.py"),
    *("commands/test_active.py", "features/test_inversion.py"),
    *("commands/test_predict.py", "experiments/test_accelerator_table.py"),
    *("training/test_fit.py", "active_learning/test_active_loop.py"),
    *("report/test_report.py", "commands/test_distill.py", "commands/test_teacher.py"),
    *("commands/test_train.py", "distillation/test_loop.py"),
    *("distillation/test_frepo.py", "distillation/test_matching.py"),
    *("distillation/test_rfad.py", "distillation/test_methods.py"),
    *("distillation/test_distilled_tags.py", "active_learning/test_monte_carlo.py"),
    *("commands/test_extensions.py", "commands/test_exact_kernels.py"),
)


def _rank(path):
    """Returns the place of a file in the order of the suite."""
    name = f"{path.parent.name}/{path.name}"
    return _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)


def _is_plain(item):
    marks = ("optimized", "nightly", "gpu")
    return not any(item.get_closest_marker(mark) for mark in marks)


def pytest_collection_modifyitems(items):
    """Long files come first, and in each the plain tests.

    Each change between plain and optimized tests drops compiled programs.
    """
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    items[:] = [
        item
        for path in sorted(files, key=_rank)
        for item in sorted(files[path], key=_is_plain, reverse=True)
    ]


def pytest_collection_finish():
    """Collects garbage rarely, and never looks through what imports have made.

    A tracer makes millions of small objects and few cycles: looking for these was a
    twentieth of the suite's time.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Compiles with few optimizations, which halves the time of most tests.

    Tests of numbers, precision, devices, resumed runs and long runs are marked
    ``optimized`` and compile with all of them, as nightly and GPU tests do.
    """
    is_plain = _is_plain(item)
    value = str(int(is_plain))
    if os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") != value:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = value  # of child processes
        jax.config.update("jax_disable_most_optimizations", is_plain)
        jax.clear_caches()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    """No test sees the user's cache, and all tests of a session share one."""
    place = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("AUDIODD_CACHE", str(place))


@pytest.fixture(scope="session", autouse=True)
def _small_pictures():
    """Figures of coresets show two classes, and none is laid out to fit its texts.

    Both would take half of a tiny run.
    """
    from audiodd_jax.report import figures

    def blank(width, height):
        from matplotlib.figure import Figure

        return Figure(figsize=(width, height))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "MAX_ROWS", 2)
        patch.setattr(figures, "blank", blank)
        yield


def _found(kind: str, variable: str, default: Path, name: str) -> Path:
    folder = Path(os.environ.get(variable, default)) / name
    if not folder.exists():
        pytest.skip(f"no {kind} {name}: set {variable} to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def real_audio():
    """``real_audio("fsdd")``: a folder of real recordings, or a skip."""
    default = REPOSITORY.parent / "shared" / "data"
    return lambda name: _found("recordings", "AUDIODD_TEST_DATA", default, name)


@pytest.fixture(scope="session")
def golden():
    """``golden("rfad_step.npz")``: reference numbers, or a skip."""
    default = REPOSITORY.parent / "shared" / "golden"

    def load(name: str) -> dict[str, np.ndarray]:
        path = _found("numbers", "AUDIODD_TEST_GOLDEN", default, name)
        with np.load(path) as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def float64():
    """``with float64(True):`` arrays are float64 by default, on any version of JAX."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64
    from jax.experimental import enable_x64  # before jax 0.8

    return enable_x64


@pytest.fixture
def x64(float64):
    """Runs a test in float64."""
    with float64(True):
        yield


class _FileHandler(http.server.BaseHTTPRequestHandler):
    """Serves its server's body, with ranges unless they are switched off.

    Each reply breaks off after the next number of bytes in the server's ``cuts``.
    """

    def do_GET(self):
        server = self.server
        span = self.headers.get("Range", "") if server.has_ranges else ""
        server.requests.append(span)
        if server.status != 200:
            return self.send_error(server.status)
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        if start > len(server.body):
            return self.send_error(416)
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else len(server.body)
        self.wfile.write(server.body[start:end])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def file_server():
    """``file_server(body)``: a server on the loopback address that serves it."""
    started = []

    def start(body: bytes):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _FileHandler)
        server.body, server.requests, server.cuts = body, [], []
        server.status, server.has_ranges = 200, True
        server.url = f"http://127.0.0.1:{server.server_port}/archive"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def sound_folder(tmp_path):
    """A labelled folder of short real WAV files: two classes, twelve clips each."""
    rng = np.random.default_rng(0)
    for label, pitch in (("low", 300.0), ("high", 1500.0)):
        folder = tmp_path / "sounds" / label
        folder.mkdir(parents=True)
        for i in range(12):
            time = np.arange(int(rng.uniform(0.3, 0.6) * 8000)) / 8000
            wave = np.sin(2 * np.pi * pitch * rng.uniform(0.8, 1.25) * time)
            wave = 0.4 * wave + 0.02 * rng.standard_normal(time.size)
            soundfile.write(folder / f"{i:02d}.wav", wave.astype(np.float32), 8000)
    return tmp_path / "sounds"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB, where the tests may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    try:
        made = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("no right to mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
