"""Every wrong argument is refused by name, with what came and what is allowed."""

import re

import pytest
import torch

from dfmgan_hf import DFMGANPipeline

NAN, INF = float("nan"), float("inf")
GENERATOR = torch.Generator()


def z(n: int, width: int = 16, value: float = 0.5) -> torch.Tensor:
    return torch.full((n, width), value)


WRONG_CALLS = [
    ({"num_images": 0}, "`num_images` must be an integer of at least 1, but is 0"),
    ({"num_images": -3}, "`num_images` must be .* -3"),
    ({"num_images": 1.5}, r"`num_images` must be .* 1.5 \(float\)"),
    ({"num_images": "2"}, r"`num_images` must be .* '2' \(str\)"),
    ({"num_images": True}, r"`num_images` must be .* True \(bool\)"),
    ({"batch_size": 0}, "`batch_size` must be an integer of at least 1, but is 0"),
    ({"batch_size": None}, r"`batch_size` must be .* None \(NoneType\)"),
    ({"seeds": 3}, r"`seeds` must be a sequence of integers .* 3 \(int\)"),
    ({"seeds": "12"}, "`seeds` must be a sequence of integers .* '12'"),
    ({"seeds": []}, r"`seeds` must be .* \[\] \(list\)"),
    ({"seeds": [1, -1]}, r"`seeds` must be .* from 0 to 4294967295.* seeds\[1\] is -1"),
    ({"seeds": [2**32]}, r"seeds\[0\] is 4294967296"),
    ({"seeds": [0.5]}, "`seeds` must be a sequence of integers"),
    ({"seeds": [True]}, "`seeds` must be a sequence of integers"),
    ({"seeds": [1, 2], "num_images": 3}, "`seeds` must hold 3 to go with `num_images`, but holds 2"),
    ({"seeds": [1], "num_images": 3}, "`seeds` must hold 3 to go with `num_images`, but holds 1"),
    ({"seeds": range(3), "num_images": 1}, "`seeds` must hold 1 to go with `num_images`, but holds 3"),
    ({"object_latents": z(2), "num_images": 1}, "`object_latents` must hold 1 to go with `num_images`, but holds 2"),
    ({"seeds": [1], "generator": GENERATOR}, "`seeds` and `generator` were both given"),
    ({"generator": 5}, r"`generator` must be None, a torch.Generator or a list .* 5 \(int\)"),
    ({"generator": []}, r"`generator` must be .* \[\] \(list\)"),
    ({"generator": [GENERATOR, 1]}, r"`generator` must be .* \(list\)"),
    ({"generator": [GENERATOR] * 2, "num_images": 5}, "`generator` must hold 5 to go with `num_images`, but holds 2"),
    (
        {"object_latents": [[0.0] * 16]},
        r"`object_latents` must be a finite floating-point tensor of shape \(N, 16\) .* \(list\)",
    ),
    ({"object_latents": z(1, 8)}, r"`object_latents` must be .* \(N, 16\) in space \"z\", but its shape is \(1, 8\)"),
    ({"object_latents": z(1)[0]}, r"`object_latents` .* shape is \(16,\)"),
    ({"object_latents": z(0)}, r"`object_latents` .* shape is \(0, 16\)"),
    ({"object_latents": z(1).long()}, "`object_latents` .* floating-point .* but its dtype is torch.int64"),
    ({"object_latents": z(1, value=NAN)}, "`object_latents` .* finite .* but it holds NaN or infinity"),
    ({"defect_latents": z(1, value=INF)}, "`defect_latents` .* finite .* but it holds NaN or infinity"),
    ({"defect_latents": z(2, 8)}, r"`defect_latents` must be .* \(2, 8\)"),
    (
        {"object_latents": z(2), "defect_latents": z(3)},
        "`defect_latents` must hold 1 or 2 to go with `object_latents`",
    ),
    ({"object_latents": z(2), "num_images": 3}, "`object_latents` must hold 1 or 3 to go with `num_images`"),
    ({"object_latents": z(2), "seeds": [1]}, "`seeds` must hold 2 to go with `object_latents`, but holds 1"),
    (
        {"object_latents": z(1), "object_latent_space": "w+"},
        r"`object_latents` must be .* \(N, 8, 16\) in space \"w\+\"",
    ),
    ({"defect_latents": z(1), "defect_latent_space": "w+"}, r"`defect_latents` must be .* \(N, 5, 16\)"),
    ({"object_latent_space": "w"}, '`object_latents` must be given in space "w"'),
    ({"object_latent_space": "W"}, "`object_latent_space` must be one of 'z', 'w', 'w\\+', but is 'W'"),
    ({"defect_latent_space": None}, "`defect_latent_space` must be one of"),
    (
        {
            "object_latents": z(1),
            "defect_latents": z(1),
            "object_latent_space": "w",
            "defect_latent_space": "w",
            "truncation_psi": 0.5,
        },
        "`truncation_psi` acts on z and must be 1 beside w or w\\+ latents, but is 0.5",
    ),
    ({"truncation_psi": NAN}, "`truncation_psi` must be a number from 0 to 2, but is nan"),
    ({"truncation_psi": -0.1}, "`truncation_psi` must be a number from 0 to 2, but is -0.1"),
    ({"truncation_psi": INF}, "`truncation_psi` .* inf"),
    ({"truncation_psi": "0.5"}, "`truncation_psi` must be .* '0.5'"),
    ({"truncation_psi": None}, "`truncation_psi` must be .* None"),
    ({"mask_threshold": 257}, "`mask_threshold` must be a number from -256 to 256, but is 257"),
    ({"mask_threshold": NAN}, "`mask_threshold` .* nan"),
    ({"mask_threshold": torch.zeros(2)}, "`mask_threshold` must be a number"),
    ({"noise_mode": "fixed"}, "`noise_mode` must be one of 'random', 'const', 'none', but is 'fixed'"),
    ({"output_type": "jpeg"}, "`output_type` must be one of 'pil', 'np', 'pt', but is 'jpeg'"),
    ({"output_type": ["pil"]}, "`output_type` must be one of"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_CALLS, ids=lambda x: x if isinstance(x, str) else "")
def test_wrong_argument(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


def test_nothing_is_drawn_for_a_wrong_call(pipe):
    """A refused call leaves the caller's random generator where it was."""
    source = torch.Generator().manual_seed(1)
    before = source.get_state()
    with pytest.raises(ValueError, match="output_type"):
        pipe(generator=source, output_type="jpeg")
    assert torch.equal(source.get_state(), before)


@pytest.mark.parametrize("arguments", [{"defect_latents": z(1)}, {"mask_threshold": 0.5}], ids=lambda a: next(iter(a)))
def test_backbone_refuses_defect_arguments(backbone_pipe, arguments):
    name = re.escape(f"`{next(iter(arguments))}`")
    with pytest.raises(ValueError, match=f"{name} was given, but this pipeline's generator is a backbone"):
        backbone_pipe(**arguments)


def test_backbone_refuses_truncation_of_w(backbone_pipe):
    with pytest.raises(ValueError, match="`truncation_psi` acts on z"):
        backbone_pipe(object_latents=z(1), object_latent_space="w", truncation_psi=0.7)


def test_without_clamp_any_finite_threshold_is_allowed(make_generator):
    from dfmgan_hf import DFMGANPipeline

    pipe = DFMGANPipeline(make_generator(conv_clamp=None))
    assert pipe(seeds=[0], mask_threshold=1e6, output_type="pt").masks.max() == 0
    with pytest.raises(ValueError, match="`mask_threshold` must be a finite number"):
        pipe(mask_threshold=INF)


def test_a_mapped_latent_is_of_its_own_kind(make_generator):
    pipe = DFMGANPipeline(make_generator(defect_names=["dent", "scratch"]))
    pipe.set_progress_bar_config(disable=True)
    kinds = torch.tensor([1, 0])
    w = pipe.generator.defect_mapping(z(2), 1.0, kinds)
    mapped = pipe(seeds=[1, 2], defect_latents=w, defect_latent_space="w", output_type="pt")
    named = pipe(seeds=[1, 2], defect_latents=z(2), defect=["scratch", "dent"], output_type="pt")
    torch.testing.assert_close(mapped.images, named.images, rtol=0, atol=1e-3)
    assert mapped.defects is None
    with pytest.raises(ValueError, match=r'`defect` acts on z and must be left out .* space "w"'):
        pipe(seeds=[1, 2], defect_latents=w, defect_latent_space="w", defect="dent")
    with pytest.raises(ValueError, match=r"`defect` must be a name or a list of names, but is 5 \(int\)"):
        pipe(seeds=[1], defect=5)
