"""Metadata: what is written comes back, and what is missing is named."""

import pytest

from oscillab.export.facts import Facts, read_facts, storage_in_words

FACTS = Facts("yolov5n", "detect", ["a", "b"], [8, 16], [[[1.0, 2.0]]], None, "per_channel", {"x": 3}, "words")


def test_entries_are_texts_and_come_back():
    """Oracle: reading is the inverse of writing; ONNX's metadata holds texts alone."""
    entries = FACTS.entries()
    assert all(isinstance(text, str) for text in entries.values())
    assert read_facts(entries) == FACTS


@pytest.mark.parametrize("change, message", [
    ({"format": "other"}, "was not written by oscillab"),
    ({"version": "2"}, "a newer oscillab .format 2"),
    ({"version": "x"}, "cannot be read"),
    ({"names": None, "bits": None}, "lacks names, bits"),
    ({"anchors": "[["}, "cannot be read"),
    ({"strides": "7"}, "cannot be read: strides"),
])  # fmt: skip
def test_damage_is_named(change, message):
    """Oracle: one line for each way in which metadata can be wrong."""
    entries = {key: text for key, text in (FACTS.entries() | change).items() if text is not None}
    with pytest.raises(ValueError, match=message):
        read_facts(entries)


def test_storage_is_said_in_words():
    """Oracle: the sentence that a user reads."""
    assert storage_in_words({"a": 4}) == "4-bit states are stored in 4-bit integers"
    assert storage_in_words({"a": 5}, "per_tensor").endswith(
        "in 8-bit integers; multipliers in 16-bit and biases in 32-bit integers"
    )
    assert storage_in_words({}, "float") == "weights are 32-bit floats"
