"""Thousands of damaged copies of each kind of file that users may exchange.

Each copy is either read correctly or refused in one sentence, without more memory or
time than an intact file takes.
"""

import io
import json
import os
import resource
import shutil
import tarfile
import time
import zipfile

import checks
import numpy as np
import pytest
import soundfile

from audiodd_jax.config import Config, FeaturesConfig, presets
from audiodd_jax.coreset.file import Coreset, load_coreset
from audiodd_jax.data import archives, audio
from audiodd_jax.errors import UserError
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Network
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.training import networks_file

pytestmark = pytest.mark.slow
COPIES = int(os.environ.get("AUDIODD_TEST_COPIES", "10000"))
# A checkpoint takes a hundred times as long to read as the other files.
CHECKPOINTS = int(os.environ.get("AUDIODD_TEST_CHECKPOINTS", "300"))
MOST_SECONDS, MOST_BYTES = 10.0, 1 << 30


def damaged(data, rng):
    """Returns a copy with bytes changed, truncated, or with a piece moved."""
    data = bytearray(data)
    kind = rng.integers(5)
    if kind == 0:
        return bytes(data[: rng.integers(len(data) + 1)])
    if kind == 1:  # a few bytes anywhere
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
    elif kind == 2:  # headers lie at both ends
        place = rng.integers(0, min(200, len(data)))
        place = place if rng.integers(2) else len(data) - 1 - place
        data[place] = rng.choice([0, 255, 127, 128, rng.integers(256)])
    elif kind == 3:
        a, b = sorted(rng.integers(0, len(data), 2))
        del data[a : a + min(b - a, 64)]
    else:
        a, b, c = rng.integers(0, len(data), 3)
        piece = data[a : a + 32]
        data[c : c + len(piece)] = piece
        data[b] ^= 1 << rng.integers(8)
    return bytes(data)


def survive(original, path, read, allowed, copies=COPIES, seed=0):
    """Reads damaged copies of a file, which may raise only ``allowed`` errors."""
    rng = np.random.default_rng(seed)
    read_right = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    for number in range(copies):
        path.write_bytes(damaged(original, rng))
        began = time.monotonic()
        try:
            read(path)
            read_right += 1
        except allowed:
            pass
        except Exception as error:
            pytest.fail(
                f"copy {number} of seed {seed}: {type(error).__name__}: {error}"
            )
        assert time.monotonic() - began < MOST_SECONDS, number
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    assert after - before < MOST_BYTES
    return read_right


def coreset(storage="float32"):
    rng = np.random.default_rng(0)
    features = {**vars(FeaturesConfig(n_mels=4, frames=4))}
    metadata = {
        "format": 1,
        "dataset": "tones",
        "features": features,
        "normalization": {"mean": [0.0] * 4, "std": [1.0] * 4},
        "platt_scale": 1.0,
        "settings": {"coreset": {"factor": 1, "storage": storage}},
        "split": {"fold": 0},
    }
    images = rng.standard_normal((2, 4, 4, 1)).astype(np.float32)
    return Coreset(images, np.eye(2, dtype=np.float32), ("a", "b"), metadata)


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_coresets(tmp_path, storage):
    coreset(storage).save(tmp_path / "whole.npz")

    def use(path):
        found = load_coreset(path)
        found.unpack()
        _ = found.normalization, found.features, found.num_bytes

    whole = (tmp_path / "whole.npz").read_bytes()
    survive(whole, tmp_path / "x.npz", use, UserError)


def test_networks(tmp_path):
    import jax

    config = presets.for_model(Config(), "linear")
    model = models.make(config.model, 2)
    variables = models.init(jax.random.key(0), model, (4, 4))
    stacked = jax.tree.map(lambda x: x[None], variables)

    class Data:
        name, title, licence = "tones", "tones", "none"
        class_names = ("a", "b")
        has_tags = is_embedded = False
        features = FeaturesConfig(n_mels=4, frames=4)
        normalization = Normalization(np.zeros(4, np.float32), np.ones(4, np.float32))

    save = networks_file.save  # without the checks of types: Data is no Dataset
    save = getattr(save, "__wrapped__", save)
    save(tmp_path / "whole.npz", Network(stacked, None), Data(), config.model)
    whole = (tmp_path / "whole.npz").read_bytes()
    survive(whole, tmp_path / "x.npz", networks_file.load_networks, UserError)


@pytest.mark.parametrize(
    "name", ["features.npy", "index.npz", "moments.npy", "meta.json"]
)
def test_feature_caches(tmp_path, name):
    config = presets.for_dataset(
        "tones", features__n_mels=4, features__frames=4, features__sample_rate=8000
    )
    entry = checks.prepare(config, tmp_path).path
    path = entry / name
    original = path.read_bytes()
    copies = COPIES // 10 if len(original) > 100_000 else COPIES

    def read(_):
        checks.prepare(config, tmp_path)

    survive(original, path, read, UserError, copies)


def test_checkpoints(tmp_path):
    """The previous checkpoint replaces a damaged one; no wrong numbers are restored."""
    import jax

    from audiodd_jax.runtime.checkpoints import Checkpoints

    rng = np.random.default_rng(0)
    state = lambda step: {
        "key": jax.random.key(step),
        "step": jax.numpy.int32(step),
        "images": jax.random.normal(jax.random.key(step), (10, 8, 8, 1)),
    }
    arrays = lambda tree: {**tree, "key": jax.random.key_data(tree["key"])}
    right = {step: arrays(state(step)) for step in (10, 20)}
    like = state(0)
    whole, path = tmp_path / "whole", tmp_path / "x"
    checkpoints = Checkpoints(whole)
    for step in right:
        checkpoints.save(step, state(step))
    files = [p for p in (whole / "20").rglob("*") if p.is_file()]
    contents = {p.relative_to(whole): p.read_bytes() for p in files}
    names, found = sorted(contents), dict.fromkeys(right, 0)
    # Of the whole process, whatever tests before this one took.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    for number in range(CHECKPOINTS):
        shutil.copytree(whole, path)
        name = names[rng.integers(len(names))]
        (path / name).write_bytes(damaged(contents[name], rng))
        began = time.monotonic()
        checkpoints = Checkpoints(path)
        step, restored = checkpoints.restore_latest(like)
        assert time.monotonic() - began < MOST_SECONDS, number
        for array, expected in right[step].items():
            np.testing.assert_array_equal(
                arrays(restored)[array], expected, err_msg=f"copy {number}: {name}"
            )
        found[step] += 1
        shutil.rmtree(path)
    assert all(found.values())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    assert after - before < MOST_BYTES


@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip"])
def test_archives(tmp_path, kind):
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    members = {f"d/{i}.wav": rng.bytes(300) for i in range(4)}
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in members.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(
            fileobj=file, mode="w:gz" if kind == "tar.gz" else "w"
        ) as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    counter = iter(range(COPIES + 1))

    def read(path):
        archives.extract(path, tmp_path / "out" / str(next(counter)), 1 << 20)

    survive(file.getvalue(), tmp_path / "x", read, UserError)
    assert not list((tmp_path / "out").glob("*.part-*"))


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_16"), ("flac", "PCM_16"), ("ogg", "VORBIS"), ("mp3", None),
     ("aiff", "PCM_16"), ("w64", "PCM_16"), ("wav", "GSM610")],
)  # fmt: skip
def test_sounds(tmp_path, suffix, subtype):
    wave = 0.1 * np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    soundfile.write(tmp_path / f"whole.{suffix}", wave, 8000, subtype=subtype)
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    path = tmp_path / f"x.{suffix}"

    def read(path):
        audio.headers([path])
        audio.decode(path)

    survive(whole, path, read, audio.BadAudioError)


@pytest.mark.parametrize(
    "name", ["config.json", "metrics.jsonl", "result.json", "data.json"]
)
def test_run_directories(tmp_path, name):
    config = {"seed": 0, "loop": {"steps": 5}}
    with RunDirectory(tmp_path / "run", config) as run:
        run.use_data("digest")
        run.start_from(0)
        run.log({"step": 1, "loss": 0.5})
        run.finish({"test_accuracy": 0.5})
    path = tmp_path / "run" / name
    original = path.read_bytes()

    def read(_):
        with RunDirectory(tmp_path / "run", config) as run:
            run.result()
            run.history()
            run.use_data("digest")

    survive(original, path, read, UserError)
    assert json.loads(original.splitlines()[0] if name == "metrics.jsonl" else original)
