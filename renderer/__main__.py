"""`python -m renderer` is `stillreel`."""

import atexit
import gc
import sys

# No command has as many when its work begins: a whole `render` has 97,000, nearly all of them from imports.
_OBJECTS = 120_000


def main() -> None:
    """Run the command line.

    What it needs is imported here and not above: a worker process imports the program that its daemon was started as
    once more, and needs no command line. Nor does the version alone, which scripts ask for to see whether it is there.
    """
    if sys.argv[1:] == ["--version"]:
        from renderer.version import VERSION  # noqa: PLC0415 - as above

        sys.stdout.write(f"stillreel {VERSION}\n")
        return
    _collect_late()
    from renderer.cli.app import main as run  # noqa: PLC0415 - as above

    run()


def _collect_late() -> None:
    """Let the garbage collector begin only after the imports, and not look through everything again at the end.

    What is imported lives as long as the process, but would be searched for garbage 139 times while it comes. With the
    search at the end that is an eighth of the processor time of a `render` of one photograph.
    """
    usual = gc.get_threshold()

    def collect_as_usual(_phase: str, _found: dict[str, int]) -> None:
        gc.set_threshold(*usual)
        gc.callbacks.remove(collect_as_usual)

    gc.set_threshold(_OBJECTS)
    gc.callbacks.append(collect_as_usual)
    atexit.register(gc.freeze)


if __name__ == "__main__":
    main()
