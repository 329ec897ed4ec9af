"""``python -m fsad_edge.cli`` is ``fsad-edge``."""

from fsad_edge.cli.main import main

if __name__ == "__main__":
    main()
