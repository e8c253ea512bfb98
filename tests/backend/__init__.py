"""Tests of the backend framework; a package, since some of its modules bear names that others under tests/ bear too."""
