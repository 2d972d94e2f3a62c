"""`python -m renderer` is `stillreel`."""


def main() -> None:
    """Run the command line.

    It is imported here and not above: a worker process imports the program that its daemon was started as once more,
    and needs no command line.
    """
    from renderer.cli.app import main as run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
