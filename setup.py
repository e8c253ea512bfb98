"""What setuptools cannot be told in pyproject.toml: the cffi extension, and that the wheel fits every Python 3.11+."""

from setuptools import setup

setup(
    cffi_modules=["src_c/build_libremctl.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
