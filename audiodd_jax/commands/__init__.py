"""The commands, one file each: work, printing, and how it follows from the flags."""


def run() -> None:
    """Runs the console script."""
    from audiodd_jax.commands import main

    main.run()
