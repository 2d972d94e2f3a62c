"""`python -m renderer` is `stillreel`."""

import sys


def main() -> None:
    """Run the command line.

    What it needs is imported here and not above: a worker process imports the program that its daemon was started as
    once more, and needs no command line. Nor does the version alone, which scripts ask for to see whether it is there.
    """
    if sys.argv[1:] == ["--version"]:
        from renderer.version import VERSION  # noqa: PLC0415 - as above

        sys.stdout.write(f"stillreel {VERSION}\n")
        return
    from renderer.cli.app import main as run  # noqa: PLC0415 - as above

    run()


if __name__ == "__main__":
    main()
