"""``python -m audiodd_jax COMMAND``."""

from audiodd_jax.commands import run

if __name__ == "__main__":
    run()
