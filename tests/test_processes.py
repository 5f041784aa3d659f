"""What processes do together: a stand-in for the second process gets what the first one sends."""

import pytest
import torch
from torch import nn

from dfmgan_hf.processes import ProcessGroup


class TwoProcesses:
    """Both processes of a launch, one after the other: the first pass records what each sends, the second reduces."""

    def __init__(self) -> None:
        self.sent: list[torch.Tensor] = []

    def average(self, parameters: list[nn.Parameter]) -> None:
        group = ProcessGroup()
        group.count = 2
        group.mean = self._mean  # type: ignore[method-assign]
        group.average_gradients_(parameters)

    def _mean(self, tensor: torch.Tensor) -> torch.Tensor:
        if len(self.sent) < 2:
            self.sent.append(tensor.clone())
            return tensor
        return torch.stack(self.sent).mean(dim=0)


def parameters(gradients: list[float | None]) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.zeros(k + 1)) for k in range(len(gradients))]
    for parameter, value in zip(made, gradients, strict=True):
        parameter.grad = None if value is None else torch.full_like(parameter, value)
    return made


@pytest.mark.parametrize("turn", [0, 1])
def test_a_gradient_that_one_process_lacks_counts_as_zero_and_shifts_no_other(turn):
    of_each = [[1.0, None, 3.0, None], [5.0, 2.0, None, None]]
    launch = TwoProcesses()
    for gradients in of_each:
        launch.average(parameters(gradients))
    mine = parameters(of_each[turn])
    launch.average(mine)
    assert [None if p.grad is None else p.grad.unique().item() for p in mine] == [3.0, 1.0, 1.5, None]
    assert all(p.grad is None or p.grad.shape == p.shape for p in mine)


def test_alone_nothing_happens():
    (parameter,) = parameters([None])
    group = ProcessGroup()
    group.average_gradients_([parameter])
    assert parameter.grad is None
    assert group.gather(7) == [7]
    assert group.any(True)
    assert list(group.mine(range(3))) == [0, 1, 2]
