"""Measurements, run by hand (`make bench PEER=directory`); none of them is a test."""
