"""The command line: flags in, text out, one file per command."""


def run() -> None:
    """Runs the console script."""
    from audiodd_jax.commands import main

    main.run()
