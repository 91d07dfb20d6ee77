"""The front page of `import kbdfl`: runs and models as objects for scripts and notebooks.

The commands' own code stands behind it; nothing is computed here that a command would compute otherwise.
"""
