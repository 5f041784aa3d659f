"""Models on the Hub: what is pushed, in which order and how often, and what loads."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load

from . import actions
from .client import ActionFailed

WEIGHTS = "generator/diffusion_pytorch_model.safetensors"
MODEL_FILES = {"README.md", "model_index.json", "generator/config.json", WEIGHTS}


def test_push_and_pull(hub, client, new_name):
    name = new_name()
    expected = client(actions.push, name, facts={"model_name": name, "product": "nuts", "license": "apache-2.0"})
    assert set(hub.files(name)) == MODEL_FILES
    assert hub.repository(name).messages["main"] == ["initial commit", "Upload DFMGAN pipeline"]
    card = ModelCard(hub.files(name)["README.md"].decode())
    assert card.data.library_name == "diffusers"
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert card.data.license == "apache-2.0"
    assert "Draws images of nuts with a defect." in card.text
    assert f'from_pretrained("{name}")' in card.text
    assert client(actions.pull, name) == expected
    assert client(actions.pull, name, generic=True) == expected


def test_those_who_draw_do_not_download_discriminators(hub, client, new_name, cache, trained_folder):
    name = new_name()
    client(actions.push_folder, str(trained_folder), hub_model_id=name, hub_training_networks=True)
    assert "discriminator/diffusion_pytorch_model.safetensors" in hub.files(name)
    hub.requests.clear()
    client(actions.pull, name, cache_dir=cache)
    asked = {path.partition("/resolve/")[2].partition("/")[2] for method, path in hub.requests if method == "HEAD"}
    assert asked == {"model_index.json", "generator/config.json", WEIGHTS}
    assert client(actions.load_discriminator, name) == 32


def test_variant_shards_and_branch(hub, client, new_name):
    name = new_name()
    client(actions.push, name, seed=1)
    first = hub.repository(name).branches["main"]
    expected = client(
        actions.push,
        name,
        seed=2,
        variant="fp16",
        max_shard_size="50KB",
        revision="half/v2",
        commit_message="Second",
    )
    assert hub.repository(name).branches["main"] == first
    assert hub.repository(name).messages["half/v2"] == ["Second"]
    files = hub.files(name, revision="half/v2")
    weights = [n for n in files if n.endswith(".safetensors")]
    half = [n for n in weights if ".fp16" in n]
    assert len(weights) > len(half) + 1 > 1
    assert {str(t.dtype) for n in half for t in load(files[n]).values()} == {"torch.float16"}
    assert {str(t.dtype) for n in set(weights) - set(half) for t in load(files[n]).values()} == {"torch.float32"}
    assert "generator/diffusion_pytorch_model.safetensors.index.json" in files
    assert client(actions.pull, name, revision="half/v2") == expected
    assert client(actions.pull, name) != expected

    # The index of the shards would be loaded before the single file that follows.
    expected = client(actions.push, name, seed=3, revision="half/v2")
    assert {n for n in hub.files(name, revision="half/v2") if n.startswith("generator/")} == {
        n for n in MODEL_FILES if n.startswith("generator/")
    }
    assert client(actions.pull, name, revision="half/v2") == expected


def test_half_precision_is_cast_before_it_is_saved(client, new_name):
    name = new_name()
    client(actions.push, name, variant="fp16")
    dtype, difference = client(actions.pull_half, name)
    assert dtype == "torch.float16"
    assert 0 < difference < 0.05


def test_a_card_on_the_hub_stays(hub, client, new_name):
    name = new_name()
    hub.put(name, {"README.md": b"---\nlicense: mit\n---\n# Mine\n"})
    client(actions.push, name)
    assert hub.files(name)["README.md"] == b"---\nlicense: mit\n---\n# Mine\n"
    assert set(hub.files(name)) == MODEL_FILES


def test_a_folder_takes_its_card_along(hub, client, new_name, trained_folder):
    card = "---\nlicense: mit\n---\n# Nuts\n\n![Samples](pictures/grid.png)\n![away](https://example.org/x.png)\n"
    (trained_folder / "README.md").write_text(card)
    (trained_folder / "pictures").mkdir()
    (trained_folder / "pictures" / "grid.png").write_bytes(b"picture")
    name = new_name()
    client(actions.push_loaded, str(trained_folder), name)
    assert hub.files(name)["README.md"] == card.encode()
    assert hub.files(name)["pictures/grid.png"] == b"picture"
    assert "training_config.json" in hub.files(name)


def test_a_trained_folder_is_pushed_without_what_is_private_or_bulky(hub, client, new_name, trained_folder):
    name = new_name()
    client(actions.push_folder, str(trained_folder), hub_model_id=name)
    files = hub.files(name)
    assert set(files) == MODEL_FILES | {"training_config.json", "samples.png"}
    assert files["samples.png"] == b"last"
    for private in (b"/home/alice", b"customer_17"):
        assert not any(private in content for content in files.values())
    card = ModelCard(files["README.md"].decode())
    assert 'Draws images of magnetic tile with the defect "blow hole".' in card.text
    assert "![Generated samples](samples.png)" in card.text
    assert "*Samples after 2 kimg of training.*" in card.text
    assert "10 photographs" in card.text

    client(actions.push_folder, str(trained_folder), hub_model_id=name, hub_training_networks=True)
    assert set(hub.files(name)) - set(files) == {
        "discriminator/config.json",
        "discriminator/diffusion_pytorch_model.safetensors",
    }


def test_the_best_model_of_a_run_is_pushed(hub, client, new_name, trained_folder):
    last = new_name()
    client(actions.push_run, str(trained_folder), hub_model_id=last)
    assert "Checkpoint" not in hub.files(last)["README.md"].decode()

    best = trained_folder / "best"
    actions.make_pipeline(6).save_pretrained(best)
    (best / "score.json").write_text('{"images_seen": 1200}')
    record = json.loads((trained_folder / "training_config.json").read_text())
    (best / "training_config.json").write_text(json.dumps({**record, "checkpoint_rule": "lowest KID"}))
    (address,) = client(actions.push_run, str(trained_folder))
    assert address.startswith(f"{hub.address}/user/trained/commit/")
    files = hub.files("user/trained")
    assert set(hub.files(last)) == MODEL_FILES | {"training_config.json", "samples.png"}
    assert set(files) == set(hub.files(last)) | {"score.json"}
    card = files["README.md"].decode()
    assert 'with the defect "blow hole"' in card
    assert "- Checkpoint: the one after 1.2 kimg, by the lowest KID." in card
    assert files["samples.png"] == b"first"
    assert "*Samples after 1 kimg of training.*" in card
    assert (
        client(actions.pull, "user/trained") == actions.drawn(actions.make_pipeline(6)) != client(actions.pull, last)
    )


def test_several_models_of_a_run(hub, client, new_name, tmp_path):
    """One repository each; what fails does not keep the others from it, and the message says how to go on."""
    name = new_name()
    for part in ("cut", "blow hole"):
        actions.make_pipeline(len(part)).save_pretrained(tmp_path / part)
    with pytest.raises(ActionFailed) as caught:
        client(actions.push_run, str(tmp_path), ("cut", "missing", "blow hole"), hub_model_id=name, hub_variant="fp16")
    message = str(caught.value)
    assert f"Published: {hub.address}/{name}-cut/commit/" in message
    assert f"Published: {hub.address}/{name}-blow-hole/commit/" in message
    assert (
        f"The model is in {tmp_path}/missing, but was not published. {tmp_path}/missing has no model_index.json"
        in (message)
    )
    assert message.endswith(
        f"python examples/push_to_hub.py --folder {tmp_path}/missing --push_to_hub --hub_model_id {name}-missing "
        "--hub_variant fp16"
    )
    assert client(actions.pull, f"{name}-blow-hole") == actions.drawn(actions.make_pipeline(len("blow hole")))


def test_numbers_of_an_earlier_model_do_not_stay_unnoticed(hub, client, new_name, trained_folder):
    name = new_name()
    hub.put(name, {"README.md": b"---\n---\n", "results.json": b"{}"})
    with pytest.raises(
        ActionFailed, match=rf"UserWarning.*{name} keeps the numbers of an earlier model; measure this"
    ):
        client(actions.with_warnings_as_errors, "push_folder", str(trained_folder), hub_model_id=name)


def test_results_join_their_model(hub, client, new_name, trained_folder, tmp_path):
    name = new_name()
    results = {
        "metrics": {"kid": {"kid": 0.05}},
        "settings": {"real_file_names": ["customer.png"]},
        "options": {"data_dir": "/home/alice/data"},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "reference_results.json").write_text(json.dumps({"real cut": {"metrics": {"kid": {"kid": 0.2}}}}))
    (tmp_path / "nearest.png").write_bytes(b"photographs")
    client(actions.push_measured, str(trained_folder), str(tmp_path), hub_model_id=name)
    files = hub.files(name)
    more = {"training_config.json", "samples.png", "results.json", "reference_results.json"}
    assert set(files) == MODEL_FILES | more
    assert json.loads(files["results.json"])["options"] == {"data_dir": "data"}
    assert b"customer.png" not in files["results.json"]
    assert "| | this model | real cut |" in files["README.md"].decode()
    assert "| KID x 1000, lower is closer | 50.00 | 200.00 |" in files["README.md"].decode()

    edited = files["README.md"].decode().replace("## Use", "By hand.\n\n## Use")
    hub.put(name, {**files, "README.md": edited.encode()})
    results["metrics"]["kid"]["kid"] = 0.04
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "reference_results.json").unlink()
    client(actions.push_measured, name, str(tmp_path))
    card = ModelCard(hub.files(name)["README.md"].decode())
    assert "By hand." in card.text
    assert card.text.count("## Measured") == 1
    assert "| KID x 1000, lower is closer | 40.00 | 200.00 |" in card.text
    assert [(r.metric_type, r.metric_value) for r in card.data.eval_results] == [("kid", 40.0)]
    assert hub.files(name)[WEIGHTS] == files[WEIGHTS]
    with pytest.raises(ActionFailed, match="holds no model"):
        client(actions.push_measured, name, str(tmp_path), hub_model_id=new_name())


def test_offline_from_the_cache(hub, client, new_name, cache):
    name = new_name()
    expected = client(actions.push, name, variant="fp16")
    assert client(actions.pull, name, cache_dir=cache) == expected
    hub.requests.clear()
    assert client(actions.pull, name, cache_dir=cache, local_files_only=True) == expected
    assert client(actions.pull, name, cache_dir=cache, offline=True) == expected
    assert hub.requests == []
    with pytest.raises(ActionFailed, match=r"(?s)OSError.*HF_HUB_OFFLINE is set"):
        client(actions.pull, new_name(), cache_dir=cache, offline=True)


@pytest.mark.parametrize(
    ("files", "generic"),
    [
        ({"generator/diffusion_pytorch_model.bin": b"\x80\x04harm."}, False),
        ({"generator/diffusion_pytorch_model.bin": b"\x80\x04harm."}, True),
        ({"generator/extra.pt": b"\x80\x04harm.", WEIGHTS: None}, False),
        ({"network-snapshot.pkl": b"\x80\x04harm.", WEIGHTS: None}, False),
    ],
)
def test_a_repository_with_a_pickle_is_not_loaded(hub, client, new_name, files, generic):
    name = new_name()
    client(actions.push, name)
    whole = hub.files(name)
    kept = {n: content for n, content in whole.items() if n != WEIGHTS}
    hub.put(name, {**kept, **{n: whole[n] if content is None else content for n, content in files.items()}})
    hub.requests.clear()
    with pytest.raises(ActionFailed, match=r"OSError.*(holds pickles|safetensors)"):
        client(actions.pull, name, generic=generic)
    if not generic:
        asked = [path for _, path in hub.requests]
        assert not any(path.endswith((".bin", ".pt", ".pkl")) for path in asked)


def test_a_network_without_safetensors_is_not_downloaded(hub, client, new_name, cache):
    name = new_name()
    client(actions.push, name)
    client(actions.load_generator, name, cache)
    files = dict(hub.files(name))
    files["generator/diffusion_pytorch_model.bin"] = files.pop(WEIGHTS)
    hub.put(name, files)
    hub.requests.clear()
    with pytest.raises(ActionFailed, match=r"OSError.*does not appear to have a file named .*safetensors"):
        client(actions.load_generator, name, cache)
    assert not any(path.endswith(".bin") for _, path in hub.requests)
