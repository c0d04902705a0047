"""How do rows of different images stand side by side in one tensor, so that no loop over images is needed?

Images have different numbers of objects and of predictions that matter. Their rows lie one below another in a flat
tensor, with the number of the image beside each; `Ragged` gives every row a place (image, position) in a tensor with
one line an image, as long as the longest.
"""

import torch


class Ragged:
    """The places of m rows, `image` (m,) of whole numbers below `count`, in a tensor (count, most rows of an image)."""

    def __init__(self, image, count):
        self.image = image
        self.counts = torch.bincount(image, minlength=count)  # (count,) rows of each image
        self.starts = self.counts.cumsum(0) - self.counts  # (count,) rows of the images before
        order = image.argsort(stable=True)
        rows = torch.arange(len(image), device=image.device)
        self.position = torch.empty_like(image)  # (m,) rows of the same image before this one
        self.position[order] = rows - self.starts[image[order]]
        self.longest = int(self.counts.max())
        self.filled = torch.arange(self.longest, device=image.device) < self.counts[:, None]  # (count, longest) bool

    def padded(self, rows, fill=0):
        """The rows (m, …) in their places, (count, longest, …), and `fill` in the places that are left.

        >>> Ragged(torch.tensor([1, 0, 1]), 3).padded(torch.tensor([5, 6, 7]), fill=-1)
        tensor([[ 6, -1],
                [ 5,  7],
                [-1, -1]])
        """
        spread = rows.new_full((len(self.counts), self.longest, *rows.shape[1:]), fill)
        return spread.index_put((self.image, self.position), rows)

    def flat(self, padded):
        """The rows (m, …) that stand in their places in `padded` (count, longest, …)."""
        return padded[self.image, self.position]
