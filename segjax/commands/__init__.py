"""The commands of launch.py and segjax: each a function in a file of its name.

Each prints what it does and where it wrote; `segjax.cli.COMMANDS` lists them.
"""
