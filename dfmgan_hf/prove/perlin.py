"""Defects that need no model: another texture in blots of Perlin noise, as the arm perlin makes them."""

from __future__ import annotations

import math

import numpy as np

from ..data.reading import Array
from .detector import Example


def perlin_defect(image: Array, source: Array, rng: np.random.Generator) -> Example:
    """Lay another texture over a photograph in blots of Perlin noise (DRAEM, ICCV 2021, section 3.2).

    DRAEM takes textures from another data set (DTD). Here it is a photograph of the same product: cut into tiles that
    are shuffled, made brighter or darker, more or less contrasty, perhaps inverted.

    Args:
        image, source: uint8 (S, S, 3).
        rng: source of randomness.

    Returns:
        The photograph with the defect, uint8 (S, S, 3), and its mask, bool (S, S), which may be empty.

    Example:
        >>> image, mask = perlin_defect(photograph, another, np.random.default_rng(0))
    """
    side = len(image)
    cells = [int(2 ** rng.integers(0, 6)) for _ in range(2)]
    noise = perlin_noise(side, min(cells[0], side // 2), min(cells[1], side // 2), rng)
    mask = np.rot90(noise, int(rng.integers(4))) > 0.5
    grid = 4
    step = side // grid
    corners = [(y * step, x * step) for y in range(grid) for x in range(grid)]
    tiles = [source[y : y + step, x : x + step] for y, x in corners]
    order = rng.permutation(len(tiles))
    texture = np.vstack([np.hstack([tiles[i] for i in row]) for row in order.reshape(grid, grid)]).astype(np.float32)
    texture = np.pad(texture, ((0, side - len(texture)), (0, side - len(texture)), (0, 0)), mode="symmetric")
    if rng.random() < 0.3:
        texture = 255 - texture
    middle = texture.mean(axis=(0, 1))
    texture = (texture - middle) * rng.uniform(0.5, 2) + middle + rng.uniform(-80, 80)
    opacity = rng.uniform(0.1, 1)
    mixed = (1 - opacity) * image + opacity * texture.clip(0, 255)
    return np.where(mask[:, :, None], mixed.round().astype(np.uint8), image), np.ascontiguousarray(mask)


def perlin_noise(side: int, rows: int, columns: int, rng: np.random.Generator) -> Array:
    """Return Perlin's gradient noise (SIGGRAPH 1985) over so many cells, about -1 to 1, float (side, side)."""
    angles = rng.uniform(0, 2 * np.pi, (rows + 1, columns + 1))
    y, x = (np.arange(side) * n / side for n in (rows, columns))
    row, column = y.astype(int), x.astype(int)
    dy, dx = (y - row)[:, None], (x - column)[None]
    corners = {
        (i, j): np.sin(angles[row + i][:, column + j]) * (dy - i) + np.cos(angles[row + i][:, column + j]) * (dx - j)
        for i in (0, 1)
        for j in (0, 1)
    }
    fade_y, fade_x = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (dy, dx))
    above, below = (corners[i, 0] + fade_x * (corners[i, 1] - corners[i, 0]) for i in (0, 1))
    return math.sqrt(2) * (above + fade_y * (below - above))
