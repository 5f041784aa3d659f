import torch

from dfmgan_hf.methods.dfmgan import mask_difference, report_masks
from dfmgan_hf.training import RunningStatistics


def test_rates_of_drawn_masks():
    masks = torch.zeros(5, 1, 10, 10, dtype=torch.bool)
    masks[1] = True
    masks[2, 0, 4:6, 4:6] = True
    masks[3, 0, 3, 9] = True
    masks[4, 0, 1:9, 1:9] = True
    statistics = RunningStatistics()
    report_masks(statistics, "fake", masks)
    means = statistics.collect()
    assert abs(means["mask_area/fake"] - (0 + 1 + 0.04 + 0.01 + 0.64) / 5) < 1e-6
    assert abs(means["mask_empty/fake"] - 1 / 5) < 1e-9
    assert abs(means["mask_full/fake"] - 1 / 5) < 1e-9
    assert abs(means["mask_border/fake"] - 2 / 5) < 1e-9
    shares = statistics.collect_histograms()["mask_area/fake"]
    assert [round(share * 5) for share in shares] == [1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 1]


def test_mask_difference():
    first = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    second = first.clone()
    first[1, 0, 0, :2] = second[1, 0, 0, 1:3] = True
    first[2] = second[2] = True
    assert torch.allclose(mask_difference(first, second), torch.tensor([0.0, 2 / 3, 0.0]))
