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
    f, t = image_shape
    if config.name == "linear":
        return (f * t + 1) * num_classes
    norm = 0 if config.norm == "none" else 2
    total, channels, width = 0, 1, config.width
    if config.name == "convnet":
        for _ in range(config.depth):
            # Without a norm, the convolution has a bias.
            total += (9 * channels + (norm or 1)) * width
            channels = width
            f, t = max(1, f // 2), max(1, t // 2)
    else:
        is_small = config.stem == "small"
        total, channels = ((9 if is_small else 49) + norm) * width, width
        # The stem for ImageNet halves the sides twice; each stage but the first, once.
        for _ in range(len(STAGES) - 1 + 2 * (not is_small)):
            f, t = (f + 1) // 2, (t + 1) // 2
        for stage, blocks in enumerate(STAGES):
            width = config.width * 2**stage
            for _ in range(blocks):
                total += (9 * channels + 9 * width + 2 * norm) * width
                if channels != width:
                    total += (channels + norm) * width
                channels = width
    positions = {"flatten": f * t, "time_mean": f, "mean": 1}[config.readout]
    return total + (width * positions + 1) * num_classes
