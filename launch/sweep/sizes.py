"""Accuracy by coreset size: a grid of sizes, methods and seeds.

audiodd sweep launch/sweep/sizes.py --workdir=runs/sizes
audiodd report runs/sizes --out=runs/sizes-report
"""

COMMON = {"dataset": "tones", "preset": "quick"}
GRID = {
    "method": ["rfad", "random"],
    "samples_per_class": [1, 5],
    "seed": [0, 1],
}
