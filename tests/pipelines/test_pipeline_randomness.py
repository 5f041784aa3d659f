"""Where the latents and the noise come from, and what an image depends on."""

import numpy as np
import pytest
import torch


def same(a, b) -> bool:
    return all(torch.equal(a[k], b[k]) for k in ("images", "masks", "defect_free_images"))


@pytest.mark.parametrize("noise_mode", ["const", "random", "none"])
def test_an_image_depends_on_its_seed_alone(pipe, noise_mode):
    """Bit for bit, whatever the batch size, the neighbours and the state of torch's own generator."""
    seeds = [7, 0, 2**32 - 1, 12, 7, 3, 4, 5, 6]
    alone = [pipe(seeds=[s], noise_mode=noise_mode, output_type="pt") for s in seeds]
    for batch_size in (1, 2, 8, 100):
        torch.manual_seed(batch_size)
        together = pipe(seeds=seeds, noise_mode=noise_mode, batch_size=batch_size, output_type="pt")
        for i in range(len(seeds)):
            assert same(alone[i], {k: v[i : i + 1] for k, v in together.items()})


def test_seeds_are_ordinary_torch_seeds(pipe):
    objects, defects = pipe.latents_from_seeds([42, 43])
    source = torch.Generator().manual_seed(43)
    assert torch.equal(objects[1], torch.randn(16, generator=source))
    assert torch.equal(defects[1], torch.randn(16, generator=source))
    out = pipe(seeds=[42, 43], output_type="pt")
    assert same(out, pipe(object_latents=objects, defect_latents=defects, output_type="pt"))
    assert same(out, pipe(generator=[torch.Generator().manual_seed(s) for s in (42, 43)], output_type="pt"))


@pytest.mark.parametrize("make_seeds", [list, tuple, np.array, torch.tensor, iter], ids=lambda f: f.__name__)
def test_seeds_of_any_sequence(pipe, make_seeds):
    assert same(pipe(seeds=make_seeds([4, 5]), output_type="pt"), pipe(seeds=range(4, 6), output_type="pt"))


def test_one_generator_draws_image_after_image(pipe):
    """The first images do not depend on how many follow."""

    def run(n):
        return pipe(n, generator=torch.Generator().manual_seed(9), noise_mode="random", output_type="pt")

    few, many = run(2), run(5)
    assert same(few, {k: v[:2] for k, v in many.items()})
    assert same({k: v[:1] for k, v in few.items()}, pipe(seeds=[9], noise_mode="random", output_type="pt"))
    assert not torch.equal(many.images[0], many.images[1])


def test_global_generator_is_used_without_seeds(pipe):
    torch.manual_seed(3)
    a = pipe(2, output_type="pt")
    b = pipe(2, output_type="pt")
    torch.manual_seed(3)
    assert same(a, pipe(2, output_type="pt"))
    assert not torch.equal(a.images, b.images)


def test_noise_modes(pipe):
    objects, defects = pipe.latents_from_seeds([1])
    latents = {"object_latents": objects, "defect_latents": defects, "output_type": "pt"}
    const = pipe(2, **latents)
    assert torch.equal(const.images[0], const.images[1])
    random = pipe(2, noise_mode="random", **latents)
    assert not torch.equal(random.images[0], random.images[1])
    assert not torch.equal(pipe(noise_mode="none", **latents).images[0], const.images[0])


def test_one_object_with_many_defects(pipe):
    objects, _ = pipe.latents_from_seeds([7])
    out = pipe(seeds=range(4), object_latents=objects, output_type="pt")
    assert all(torch.equal(twin, out.defect_free_images[0]) for twin in out.defect_free_images)
    assert len({m.numpy().tobytes() for m in out.masks}) == 4
    counted = pipe(num_images=3, object_latents=objects, output_type="pt")
    assert len(counted.images) == 3
    assert torch.equal(counted.defect_free_images[2], out.defect_free_images[0])


def test_one_defect_on_many_objects(pipe):
    _, defects = pipe.latents_from_seeds([7])
    objects, _ = pipe.latents_from_seeds(range(4))
    out = pipe(object_latents=objects, defect_latents=defects, output_type="pt")
    assert len({t.numpy().tobytes() for t in out.defect_free_images}) == 4
    for i in range(4):
        one = pipe(object_latents=objects[i : i + 1], defect_latents=defects, output_type="pt")
        assert same(one, {k: v[i : i + 1] for k, v in out.items()})


def test_a_seed_keeps_its_defect_when_the_object_is_given(pipe):
    objects, _ = pipe.latents_from_seeds([7])
    _, defects = pipe.latents_from_seeds([1, 2])
    given = pipe(object_latents=objects, defect_latents=defects, output_type="pt")
    assert same(given, pipe(seeds=[1, 2], object_latents=objects, output_type="pt"))


def test_latent_spaces(pipe):
    model = pipe.generator
    z, d = pipe.latents_from_seeds([1, 2])
    with torch.no_grad():
        # One by one, as the pipeline maps them on the CPU.
        w = torch.cat([model.mapping(z[i : i + 1]) for i in range(2)])
        dw = torch.cat([model.defect_mapping(d[i : i + 1]) for i in range(2)])
    expected = pipe(seeds=[1, 2], output_type="pt")
    spaces = {"object_latent_space": "w", "defect_latent_space": "w", "output_type": "pt"}
    assert same(expected, pipe(object_latents=w, defect_latents=dw, **spaces))
    spaces = {"object_latent_space": "w+", "defect_latent_space": "w+", "output_type": "pt"}
    ws = w.unsqueeze(1).repeat(1, model.num_latents, 1)
    dws = dw.unsqueeze(1).repeat(1, model.num_defect_latents, 1)
    assert same(expected, pipe(object_latents=ws, defect_latents=dws, **spaces))
    # What is not given is drawn as z, so one space may be w alone.
    assert same(expected, pipe(seeds=[1, 2], object_latents=w, object_latent_space="w", output_type="pt"))


def test_truncation(pipe):
    average = pipe(seeds=[1, 2], truncation_psi=0, output_type="pt")
    assert torch.equal(average.images[0], average.images[1])
    model = pipe.generator
    w_avg = {"object_latents": model.mapping.w_avg[None], "defect_latents": model.defect_mapping.w_avg[None]}
    spaces = {"object_latent_space": "w", "defect_latent_space": "w"}
    assert torch.equal(pipe(**w_avg, **spaces, output_type="pt").images[0], average.images[0])
    full, half = (pipe(seeds=[1], truncation_psi=psi, output_type="pt").images for psi in (1, 0.5))
    assert (half - average.images[:1]).abs().mean() < (full - average.images[:1]).abs().mean()
