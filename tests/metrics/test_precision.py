from __future__ import annotations

import torch

from dfmgan_hf.metrics import lpips_distances
from dfmgan_hf.metrics.networks import LPIPS, full_precision
from tests.metrics.drawn import draw_images, tiny_extractor


def test_scores_do_not_depend_on_autocast(lpips_net: LPIPS):
    images = draw_images(4)
    extractor = tiny_extractor()
    distances, features = lpips_distances(lpips_net, images), extractor(images).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lpips_distances(lpips_net, images), distances)
        assert torch.equal(extractor(images).features, features)


def test_settings_are_put_back_also_after_an_error():
    def settings():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.is_autocast_enabled("cpu")

    torch.set_float32_matmul_precision("high")
    try:
        before = settings()
        with full_precision():
            assert settings() == ("highest", False, False)
        assert settings() == before
        try:
            with full_precision():
                raise RuntimeError("inside")
        except RuntimeError:
            pass
        assert settings() == before
    finally:
        torch.set_float32_matmul_precision("highest")
