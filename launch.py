"""segjax on the command line, from a checkout: `python launch.py --help`."""

from segjax import cli

if __name__ == "__main__":
    cli.main()
