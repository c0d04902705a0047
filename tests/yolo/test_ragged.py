"""Oracles: Python's own lists, row by row."""

import pytest
import torch

from oscillab.yolo.ota_loss import Ragged


@pytest.mark.parametrize("image", [[2, 0, 2, 2, 3, 0], [0, 0, 1], [1], []])
def test_every_row_has_a_place_of_its_own(image):
    """Oracle: the rows collected in one list an image."""
    lists = [[row for row, own in enumerate(image) if own == number] for number in range(4)]
    places = Ragged(torch.tensor(image, dtype=torch.long), 4)
    assert places.counts.tolist() == [len(rows) for rows in lists]
    assert places.longest == max(map(len, lists))
    assert places.position.tolist() == [lists[own].index(row) for row, own in enumerate(image)]
    found = places.padded(torch.arange(len(image)), fill=-1)
    assert found.tolist() == [rows + [-1] * (places.longest - len(rows)) for rows in lists]
    assert places.filled.tolist() == [[entry >= 0 for entry in rows] for rows in found.tolist()]
    assert places.flat(found).tolist() == list(range(len(image)))


def test_rows_of_numbers_keep_their_gradient():
    """Oracle: the sum over the padded places has the gradient 1 for every number."""
    rows = torch.randn(3, 2, requires_grad=True)
    padded = Ragged(torch.tensor([1, 1, 0]), 2).padded(rows)
    assert padded.shape == (2, 2, 2)
    padded.sum().backward()
    assert torch.equal(rows.grad, torch.ones(3, 2))
