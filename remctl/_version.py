"""The version, in its one place: setuptools reads it from here, `remctl.__version__` hands it on."""

__version__ = "0.1.0"
