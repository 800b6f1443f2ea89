"""Counts a network's parameters from its settings alone.

Plain arithmetic, so that ``--help`` can print the count without importing JAX; a test
compares it with the networks.
"""

from audiodd_jax.config import ModelConfig

# Number of blocks in each stage of a ResNet-18.
STAGES = (2, 2, 2, 2)


def parameters(
    config: ModelConfig, image_shape: tuple[int, int], num_classes: int
) -> int:
    """Returns the number of trainable parameters for spectrograms ``(f, t)``."""
    if config.name == "linear":
        return (image_shape[0] * image_shape[1] + 1) * num_classes
    body, width, shape = _body(config, image_shape)
    f, t = shape
    positions = {"flatten": f * t, "time_mean": f, "mean": 1}[config.readout]
    return body + (width * positions + 1) * num_classes


def _body(
    config: ModelConfig, shape: tuple[int, int]
) -> tuple[int, int, tuple[int, int]]:
    """Counts parameters before the readout; returns channels and shape too."""
    norm = 0 if config.norm == "none" else 2
    width = config.width
    if config.name == "convnet":
        # Without a norm, the convolution has a bias.
        extra = norm or 1
        total, channels = 0, 1
        for _ in range(config.depth):
            total += (9 * channels + extra) * width
            channels = width
            shape = tuple(max(1, side // 2) for side in shape)
        return total, width, shape
    half = lambda shape: tuple((side + 1) // 2 for side in shape)
    kernel = 49 if config.stem == "imagenet" else 9
    total, channels = (kernel + norm) * width, width
    if config.stem == "imagenet":
        shape = half(half(shape))
    for stage, blocks in enumerate(STAGES):
        width = config.width * 2**stage
        shape = half(shape) if stage else shape
        for _ in range(blocks):
            total += (9 * channels + 9 * width + 2 * norm) * width
            if channels != width:
                total += (channels + norm) * width
            channels = width
    return total, width, shape
