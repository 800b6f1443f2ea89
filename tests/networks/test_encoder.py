"""Encoders agree with the runtimes that they were published for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import EncoderConfig, FeaturesConfig
from audiodd_jax.data import audio
from audiodd_jax.errors import UserError
from audiodd_jax.features import encoders, logmel
from audiodd_jax.networks import encoder as encoder_lib
from audiodd_jax.networks import onnx_graph, speech_embedding

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
helper = onnx.helper


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(str(path), options, providers=providers)


@pytest.fixture(scope="module")
def speech_file():
    try:
        return speech_embedding.file()
    except UserError:
        pytest.skip("openwakeword is not installed")


def front_end(frames):
    settings = {**speech_embedding.FRONT_END, "clip_seconds": frames / 100}
    return FeaturesConfig(frames=frames, **settings)


def waveforms(count, samples, seed=0):
    """Noise under a changing envelope, at various levels."""
    random = np.random.default_rng(seed)
    level = 10 ** random.uniform(-3, -0.5, (count, 1))
    envelope = np.interp(
        np.arange(samples), np.linspace(0, samples, 9), random.uniform(0, 1, 9)
    )
    return (level * envelope * random.normal(size=(count, samples))).astype(np.float32)


def by_windows(path, mel):
    """Embeddings by onnxruntime of windows 8 frames apart, of ``[b, t, f]``."""
    run = session(path)
    starts = range(0, mel.shape[1] - 76 + 1, 8)
    cut = np.stack([mel[:, s : s + 76] for s in starts], 1)
    found = run.run(None, {"input_1": cut.reshape(-1, 76, 32, 1)})[0]
    return found.reshape(len(mel), -1, 96)


@pytest.mark.parametrize(
    "count", [4, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.nightly])]
)
def test_the_speech_embedding_is_that_of_onnxruntime(count, speech_file, real_audio):
    paths = sorted(real_audio("fsdd").rglob("*.wav"))
    sounds = np.zeros((count, 16_000), np.float32)
    for row, path in zip(sounds, paths[:: len(paths) // count], strict=False):
        sound, rate = audio.decode(path)
        audio.fit(audio.resample(sound, rate, 16_000), 16_000, "center", out=row)
    decibels = logmel.log_mel(sounds, front_end(100))
    given = encoder_lib.make(EncoderConfig("speech_embedding"))
    ours = jax.jit(given.embed)(decibels)
    scaled = np.asarray(decibels).swapaxes(1, 2) / 10 + 2 + 2 * np.log10(32_768)
    theirs = by_windows(speech_file, scaled.astype(np.float32))
    assert ours.shape == theirs.shape == (count, 4, 96)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_mel_front_end_is_that_of_onnxruntime(speech_file):
    sounds = waveforms(2, 16_000)
    run = session(speech_file.with_name("melspectrogram.onnx"))
    theirs = np.concatenate(
        [run.run(None, {"input": 32_768 * row[None]})[0][:, 0, 0] for row in sounds]
    ).reshape(2, -1, 32)
    # Our frame i is centred on sample 160 i, and theirs on 160 i + 256.
    shifted = np.pad(sounds, ((0, 0), (64, 0)))[:, :16_000]
    ours = logmel.log_mel(shifted, front_end(100)).swapaxes(1, 2)[:, 2:]
    ours = ours[:, : theirs.shape[1]] + 20 * np.log10(32_768)
    inside = slice(0, 95)  # the last frames reach beyond the cut
    np.testing.assert_allclose(ours[:, inside], theirs[:, inside], atol=2e-3)


def test_the_file_itself_gives_the_same_embeddings(speech_file):
    config = EncoderConfig(
        str(speech_file), layout="ntf1", scale=0.1, offset=11.030899869, hop=8
    )
    given = encoder_lib.make(config)
    assert given.least_frames == 76
    decibels = logmel.log_mel(waveforms(2, 13_440), front_end(84))
    shipped = encoder_lib.make(EncoderConfig("speech_embedding"))
    assert given.digest == shipped.digest

    def embedded(encoder):
        loss = lambda x: (jnp.sum((found := encoder.embed(x)) ** 2), found)
        return jax.jit(jax.grad(loss, has_aux=True))(decibels)

    (grad, found), (their_grad, theirs) = map(embedded, (given, shipped))
    np.testing.assert_allclose(found, theirs, atol=1e-4)
    np.testing.assert_allclose(grad, their_grad, atol=1e-4 * np.abs(grad).max())


def model(tmp_path, nodes, weights, shape):
    """Writes an ONNX model of one input and one output."""
    tensor = onnx.numpy_helper.from_array
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [value("x", onnx.TensorProto.FLOAT, ["n", *shape])],
        [value("y", onnx.TensorProto.FLOAT, None)],
        [tensor(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 13)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    path = tmp_path / "small.onnx"
    onnx.save(made, path)
    return path


def test_a_model_of_many_operators_is_that_of_onnxruntime(tmp_path):
    random = np.random.default_rng(0)
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "k1", "b1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 1]),
        node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["b"]),
        node("Relu", ["b"], ["c"]),
        node("Conv", ["c", "k2"], ["d"], group=4, auto_pad="SAME_UPPER"),
        node("Sigmoid", ["d"], ["e0"]),
        node("Mul", ["d", "e0"], ["e"]),
        node("AveragePool", ["e"], ["f"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("MaxPool", ["f"], ["g"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["g", "k3"], ["h"]),
        node("GlobalAveragePool", ["h"], ["i"]),
        node("Shape", ["i"], ["size"]),
        node("Gather", ["size", "zero"], ["first"], axis=0),
        node("Concat", ["first", "rest"], ["target"], axis=0),
        node("Reshape", ["i", "target"], ["j"]),
        node("Gemm", ["j", "w", "v"], ["y"], transB=1),
    ]
    weights = {
        "k1": draw(4, 1, 3, 3),
        "b1": draw(4),
        "scale": draw(4),
        "shift": draw(4),
        "mean": draw(4),
        "var": np.abs(draw(4)),
        "k2": draw(4, 1, 3, 3),
        "k3": draw(6, 4, 2, 2),
        "zero": np.array([0]),
        "rest": np.array([-1]),
        "w": draw(5, 6),
        "v": draw(5),
    }
    path = model(tmp_path, nodes, weights, (1, 16, 12))
    x = draw(3, 1, 16, 12)
    theirs = session(path).run(None, {"x": x})[0]
    given = encoder_lib.make(EncoderConfig(str(path)))
    ours = jax.jit(given.embed)(jnp.asarray(x[:, 0]))
    np.testing.assert_allclose(ours[:, 0], theirs, rtol=1e-5, atol=1e-4)
    inner = dataclasses.replace(EncoderConfig(str(path)), output="i")
    assert encoder_lib.make(inner).embed(jnp.asarray(x[:, 0])).shape == (3, 1, 6)


def test_unknown_operators_and_tensors_are_named(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("STFT", ["a", "step"], ["b"]),
        helper.make_node("Det", ["b"], ["y"]),
    ]
    path = model(tmp_path, nodes, {"step": np.array(1)}, (1, 4, 4))
    with pytest.raises(UserError, match="not supported: Det, STFT"):
        encoder_lib.make(EncoderConfig(str(path)))
    graph = onnx_graph.read(path)
    assert onnx_graph.function(graph, target="a")(jnp.ones((1, 1, 4, 4))).shape
    with pytest.raises(UserError, match="no tensor 'z'"):
        onnx_graph.function(graph, "z", "a")
    with pytest.raises(UserError, match="'z' of the model does not exist"):
        onnx_graph.function(graph, target="z")
    with pytest.raises(UserError, match="depends on 'x', too"):
        onnx_graph.function(graph, "b", "a")


def test_a_file_that_is_no_model_is_refused(tmp_path):
    bad = tmp_path / "bad.onnx"
    with pytest.raises(UserError, match="there is no ONNX file"):
        encoder_lib.make(EncoderConfig(str(bad)))
    bad.write_bytes(b"not a model")
    with pytest.raises(UserError, match="is not an ONNX model"):
        encoder_lib.make(EncoderConfig(str(bad)))


def mean_encoder():
    embed = lambda decibels: decibels.mean(2)
    return encoder_lib.Encoder({"n_mels": 8, "frames": 16}, embed, "mean")


def test_a_factory_and_windows():
    config = EncoderConfig(f"{__name__}:mean_encoder")
    given = encoders.load(config)
    settings = encoders.front_end(FeaturesConfig(), given)
    assert (settings.n_mels, settings.frames) == (8, 16)
    assert given.embed(jnp.ones((2, 8, 16))).shape == (2, 8)
    found = encoder_lib.windows(given.embed, jnp.arange(320.0).reshape(2, 8, 20), 16, 2)
    assert found.shape == (2, 3, 8)
    with pytest.raises(UserError, match="returns dict"):
        encoder_lib.make(EncoderConfig("builtins:dict"))


def test_the_front_end_follows_the_encoder():
    given = encoder_lib.Encoder(
        {"sample_rate": 16_000}, lambda x: x, "", frames_per_second=100, least_frames=76
    )
    settings = encoders.front_end(FeaturesConfig(8_000, clip_seconds=2.0), given)
    assert (settings.sample_rate, settings.frames) == (16_000, 200)
    settings = encoders.front_end(FeaturesConfig(clip_seconds=0.5), given)
    assert (settings.frames, settings.clip_seconds) == (76, 0.76)
    with pytest.raises(UserError, match="length of clips"):
        encoders.front_end(FeaturesConfig(clip_seconds=0.0), given)
