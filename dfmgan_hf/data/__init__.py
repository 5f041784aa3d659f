"""Photographs and masks: reading, checking, and turning them into training sets and `datasets.DatasetDict`s."""
