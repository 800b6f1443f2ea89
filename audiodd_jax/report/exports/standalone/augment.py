"""Random augmentations of spectrograms during training, in PyTorch."""

import json
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
STRENGTH = json.loads((HERE / "recipe.json").read_text())["augment"]
with np.load(HERE / "frontend.npz", allow_pickle=False) as file:
    # In dB, per mel bin.
    MEAN, STD = (torch.tensor(file[name])[:, None] for name in ("mean", "std"))


def augment(images):
    """Applies random shifts, gains, noise and masks to images ``[b, 1, f, t]``."""
    images = time_shift(images)
    uniform = lambda: torch.rand(len(images), 1, 1, 1)
    images = images + STRENGTH["gain_db"] * (2 * uniform() - 1) / STD
    noise = uniform() * torch.randn_like(images)
    images = images + STRENGTH["noise_db"] * noise / STD
    images = mask(images, STRENGTH["time_mask"], 3)
    return mask(images, STRENGTH["frequency_mask"], 2)


def silence(images):
    """Returns the lowest level of each spectrogram, per bin: ``[b, 1, f, 1]``."""
    lowest = (images * STD + MEAN).amin((2, 3), keepdim=True)
    return (lowest - MEAN) / STD


def time_shift(images):
    """Shifts images by up to a share of the frames and fills the gap with silence."""
    b, t = len(images), images.shape[3]
    most = int(STRENGTH["time_shift"] * t)
    source = torch.arange(t) - torch.randint(-most, most + 1, (b, 1))
    inside = ((source >= 0) & (source < t))[:, None, None]
    columns = source.clamp(0, t - 1)[:, None, None].expand_as(images)
    return torch.where(inside, images.gather(3, columns), silence(images))


def mask(images, share, axis):
    """Silences a band of bins (axis 2) or frames (3), up to ``share`` wide."""
    b, size = len(images), images.shape[axis]
    width = torch.randint(0, int(share * size) + 1, (b, 1))
    start = (torch.rand(b, 1) * (size - width + 1)).long()
    index = torch.arange(size)
    band = (index >= start) & (index < start + width)
    band = band[:, None, :, None] if axis == 2 else band[:, None, None]
    return torch.where(band, silence(images), images)
