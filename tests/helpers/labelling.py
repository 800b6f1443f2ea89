"""Sounds, a tiny session and instant networks for the tests of labelling."""

from pathlib import Path

import numpy as np
import soundfile

from audiodd_jax.active_learning.learner import Learner, Prediction
from audiodd_jax.active_learning.session import Session
from audiodd_jax.flags import for_session

TINY = {
    "model": "linear",
    "steps": 4,
    "batch": 4,
    "features__n_mels": 8,
    "features__frames": 8,
    "features__sample_rate": 8000,
    "features__clip_seconds": 0.25,
    "training__log_every": 2,
    "training__batch_size": 8,
    "active__passes": 2,
    "active__chunk": 16,
}
FLAGS = [
    *("--model=linear", "--steps=4", "--batch=4"),
    *(f"--config.{name.replace('__', '.')}={value}" for name, value in TINY.items()
      if "__" in name),
]  # fmt: skip
PITCHES = {"low": 300.0, "high": 1500.0, "noise": 0.0}


def sounds(folder: Path, each: int = 6) -> Path:
    """Writes a folder of short tones and noises, named by their true classes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for label, pitch in PITCHES.items():
        for i in range(each):
            time = np.arange(2000) / 8000
            wave = 0.4 * np.sin(2 * np.pi * pitch * rng.uniform(0.8, 1.25) * time)
            wave += (0.02 if pitch else 0.3) * rng.standard_normal(time.size)
            soundfile.write(folder / f"{label}{i}.wav", wave.astype(np.float32), 8000)
    return folder


def truth(name: str) -> str:
    """The class in the name of a file."""
    return Path(name).stem.rstrip("0123456789")


def session(folder: Path, workdir: Path, **changes: object) -> Session:
    """A tiny session."""
    return Session(for_session(str(folder), **{**TINY, **changes}), workdir)


def instant(monkeypatch):
    """Trains no network: batches take the classes in turn, predictions are certain."""

    def train(self, data, splits, number):
        row = {
            "step": len(self.rounds) + 1,
            "labelled": int((splits == "train").sum()),
            "validated": 2,
            "measure": "accuracy",
            "validation_accuracy": 0.5,
            "validation_low": 0.1,
            "validation_high": 0.9,
            "agreement": 0.9,
        }
        self._run.log(row)
        self.rounds.append(row)
        count = data.num_classes
        outputs = np.eye(count)[np.zeros(len(self.clips), int)]
        names = self._learner.names
        given = (names, data.class_names, outputs, data.has_tags)
        self.prediction = Prediction(*given)

    def choose(self, data, train, networks, free, count, number):
        # From the last: of the first of each class, most are for validation.
        in_turn = sorted(free, key=lambda name: (-int(name.split(".")[0][-1]), name))
        return tuple(in_turn[:count])

    monkeypatch.setattr(Session, "_train", train)
    monkeypatch.setattr(Learner, "choose", choose)
