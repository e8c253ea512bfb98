"""Tests of the headless client."""
