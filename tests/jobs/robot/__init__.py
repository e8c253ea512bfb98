"""Tests of the robot agent."""
