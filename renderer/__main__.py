"""`python -m renderer` is `stillreel`."""

from renderer.cli import main

if __name__ == "__main__":
    main()
