"""Tests of whole programs: every client against every server."""
