"""The commands of ``audiodd``, one file each, and the functions of the Python API."""


def run() -> None:
    """Runs the console script."""
    from audiodd_jax.commands import main

    main.run()
