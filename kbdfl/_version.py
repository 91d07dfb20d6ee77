"""The version, where setuptools reads it without importing the rest."""

__version__ = "0.1.0"
