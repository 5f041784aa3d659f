"""What of a folder is published, and what is said when it cannot be; the Hub itself is replaced by a dict."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import tyro
from huggingface_hub import CommitOperationAdd, ModelCard
from huggingface_hub.errors import OfflineModeIsEnabled
from safetensors.torch import load

from dfmgan_hf import DFMGANPipeline, StyleGAN2Discriminator
from dfmgan_hf.export import ExportConfig, ExportError, generate_dataset
from dfmgan_hf.export.generate import check_push, push_to_hub
from dfmgan_hf.files import module_sha256, write_json
from dfmgan_hf.hub import (
    CardError,
    HubConfig,
    HubError,
    PublishConfig,
    prepare_push,
    publish,
    push_model_folder,
    push_results,
)
from dfmgan_hf.hub.cards import RECORD_FILES, without_local_paths
from dfmgan_hf.hub.push import published_files, push_trained, scratch_folder
from dfmgan_hf.hub_errors import clear_errors
from dfmgan_hf.models.base import PickledWeightsError

PIPELINE = {"model_index.json", "generator/config.json", "generator/diffusion_pytorch_model.safetensors"}
MODEL_FILES = PIPELINE | {"README.md"}


class FakeHub:
    """As much of HfApi as pushing takes: files by repository, of which one may refuse every commit."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.kinds: dict[str, str] = {}
        self.private: dict[str, bool | None] = {}
        self.refused: str | None = None

    def __call__(self, **options):
        return self

    def create_repo(self, name, *, repo_type, private, exist_ok):
        name = name if "/" in name else f"user/{name}"
        self.files.setdefault(name, {})
        self.kinds[name], self.private[name] = repo_type, private
        return SimpleNamespace(repo_id=name)

    def auth_check(self, name, *, repo_type, write):
        assert write

    def list_repo_files(self, name, *, repo_type, revision):
        return list(self.files[name])

    def get_paths_info(self, name, paths, *, repo_type, revision):
        content = {path: self.files[name][path] for path in paths if path in self.files[name]}
        hashes = {path: SimpleNamespace(sha256=hashlib.sha256(each).hexdigest()) for path, each in content.items()}
        return [SimpleNamespace(path=path, lfs=large_file) for path, large_file in hashes.items()]

    def hf_hub_download(self, name, path, *, repo_type, revision):
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(self.files[name][path])
        return file.name

    def create_commit(self, name, operations, *, commit_message, repo_type, revision, create_pr):
        if name == self.refused:
            raise OfflineModeIsEnabled("no")
        for operation in operations:
            if isinstance(operation, CommitOperationAdd):
                self.files[name][operation.path_in_repo] = Path(operation.path_or_fileobj).read_bytes()
            else:
                del self.files[name][operation.path_in_repo]
        return SimpleNamespace(pr_url=None, commit_url=f"https://hub/{name}/commit/1")


@pytest.fixture
def hub(monkeypatch):
    fake = FakeHub()
    monkeypatch.setattr("dfmgan_hf.hub.push.HfApi", fake)
    return fake


@pytest.fixture
def trained(make_generator, tmp_path):
    """What a training of stage 2 leaves behind."""
    folder = tmp_path / "trained"
    DFMGANPipeline(make_generator()).save_pretrained(folder)
    discriminator = StyleGAN2Discriminator(resolution=32, channel_base=64, channel_max=4)
    discriminator.save_pretrained(folder / "discriminator")
    for name, content in (("0000001000", b"first"), ("0000002000", b"last")):
        (folder / "samples").mkdir(exist_ok=True)
        (folder / "samples" / f"{name}.png").write_bytes(content)
    (folder / "metrics.jsonl").write_text("{}\n")
    data = {"data_dir": "/home/alice/customer", "category": "magnetic_tile"}
    record = {"method": "dfmgan", "defect": "blow_hole", "images": 10, "config": {"data": data}}
    record["training_file_names"] = ["test/blow_hole/customer_17.png"]
    (folder / "training_config.json").write_text(json.dumps(record))
    return folder


def options(name="me/tiles", **more) -> HubConfig:
    return HubConfig(push_to_hub=True, hub_model_id=name, **more)


@pytest.fixture
def aside(tmp_path):
    (tmp_path / "aside").mkdir()
    return tmp_path / "aside"


def test_pipeline_only(model_dir, aside):
    for name in ("logs/events", "checkpoints/1/a.safetensors", "samples/1.png", "metrics.jsonl", "photograph.png"):
        (model_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (model_dir / name).write_bytes(b"")
    assert set(published_files(model_dir, aside, HubConfig())) == PIPELINE


def test_a_pipeline_is_pushed_with_a_variant_and_in_shards(hub, make_generator):
    pipe = DFMGANPipeline(make_generator())
    pipe.push_to_hub("me/tiles", variant="fp16", max_shard_size="50KB")
    files = {name: content for name, content in hub.files["me/tiles"].items() if name.endswith(".safetensors")}
    merged = {}
    for name, content in files.items():
        if ".fp16" not in name:
            merged |= load(content)
    assert sum(".fp16" in name for name in files) >= 1
    assert len(files) >= 3
    original = pipe.generator.state_dict()
    assert merged.keys() == original.keys()
    assert all(torch.equal(merged[name], tensor) for name, tensor in original.items())


def test_discriminators_are_named_as_not_to_be_downloaded(model_dir, aside):
    StyleGAN2Discriminator(resolution=32, channel_base=64, channel_max=4).save_pretrained(model_dir / "discriminator")
    files = published_files(model_dir, aside, options(hub_training_networks=True))
    extra = {"discriminator/config.json", "discriminator/diffusion_pytorch_model.safetensors"}
    assert set(files) == PIPELINE | extra
    assert json.loads(files["model_index.json"].read_text())["_ignore_files"] == sorted(extra)
    assert "_ignore_files" not in json.loads((model_dir / "model_index.json").read_text())


def test_only_pictures_of_the_card_are_published(model_dir, aside, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"")
    (model_dir / "grid.png").write_bytes(b"")
    (model_dir / "nearest.png").write_bytes(b"")
    (model_dir / "README.md").write_text("![a](grid.png) ![b](../secret.png) ![c](missing.png) ![d](http://x/y.png)")
    for folder in (model_dir, model_dir / "generator" / ".."):
        assert set(published_files(folder, aside, HubConfig())) == PIPELINE | {"README.md", "grid.png"}


def test_local_paths_are_cut():
    record = {
        "_name_or_path": "models/x",
        "a": ["/home/alice/nuts", "runs/nuts", "C:\\customers\\nuts", 3, None],
        "b": {"c": "/"},
    }
    assert without_local_paths(record) == {"a": ["nuts", "runs/nuts", "nuts", 3, None], "b": {"c": ""}}


def test_where_a_model_was_loaded_from_is_not_published(model_dir, aside):
    DFMGANPipeline.from_pretrained(model_dir).save_pretrained(model_dir)
    files = published_files(model_dir, aside, HubConfig())
    assert not any(str(model_dir).encode() in path.read_bytes() for path in files.values())


def test_folders_that_cannot_be_published(model_dir, aside, tmp_path):
    with pytest.raises(CardError, match=r"has no model_index.json"):
        published_files(tmp_path, aside, HubConfig())
    (model_dir / "generator" / "old.pt").write_bytes(b"")
    with pytest.raises(PickledWeightsError, match=r"old.pt"):
        published_files(model_dir, aside, HubConfig())
    for path in (model_dir / "generator").iterdir():
        path.unlink()
    with pytest.raises(CardError, match=r"holds no weights as safetensors"):
        published_files(model_dir, aside, HubConfig())


def test_numbers_of_other_weights_are_not_published(hub, trained, make_generator, tmp_path):
    def results(generator):
        return {"metrics": {}, "settings": {"sampler": {"weights_sha256": module_sha256(generator)}}}

    pipe = DFMGANPipeline.from_pretrained(trained)
    (trained / "README.md").write_text("Measured.")
    write_json(trained / "results.json", results(pipe.generator))
    publish(PublishConfig(trained, output_dir=tmp_path / "same"))
    assert pipe.push_to_hub("me/tiles")
    pipe.generator.mapping.w_avg += 1
    for push in (lambda: pipe.push_to_hub("me/other"), lambda: push_model_folder(trained, options("me/other"))):
        with pytest.raises(CardError, match=r"not those of this model: .*Save and measure this one"):
            push()
        pipe.save_pretrained(trained)
    with pytest.raises(CardError, match="not those of this model"):
        publish(PublishConfig(trained, output_dir=tmp_path / "other"))
    assert "me/other" not in hub.files
    # New numbers take the place of the folder's.
    write_json(tmp_path / "results.json", results(pipe.generator))
    push_results(str(trained), tmp_path, options("me/other"))
    assert json.loads(hub.files["me/other"]["results.json"]) == results(pipe.generator)


def test_options_of_scripts():
    @dataclasses.dataclass(frozen=True)
    class Config:
        hub: HubConfig = dataclasses.field(default_factory=HubConfig)

    def parse(*arguments: str) -> HubConfig:
        return tyro.cli(Config, args=arguments, config=(tyro.conf.OmitArgPrefixes,)).hub

    assert parse() == HubConfig()
    given = parse("--push_to_hub", "--hub_model_id", "a/b", "--hub_private_repo")
    assert given == HubConfig(push_to_hub=True, hub_model_id="a/b", hub_private_repo=True)
    with pytest.raises(ValueError, match=r"`hub_model_id` has no effect without `push_to_hub`"):
        HubConfig(hub_model_id="a/b")


def test_a_trained_folder_is_pushed_without_what_is_private_or_bulky(hub, trained):
    assert push_model_folder(trained, options()) == "https://hub/me/tiles/commit/1"
    files = hub.files["me/tiles"]
    assert set(files) == MODEL_FILES | {"training_config.json", "samples.png"}
    assert files["samples.png"] == b"last"
    for private in (b"/home/alice", b"customer_17"):
        assert not any(private in content for content in files.values())
    text = ModelCard(files["README.md"].decode()).text
    assert 'Draws images of magnetic tile with the defect "blow hole".' in text
    assert "*Samples after 2 kimg of training.*" in text
    assert 'from_pretrained("me/tiles")' in text

    push_model_folder(trained, options(hub_training_networks=True))
    more = {"discriminator/config.json", "discriminator/diffusion_pytorch_model.safetensors"}
    assert set(hub.files["me/tiles"]) == set(files) | more


def test_a_card_of_the_folder_names_the_repository_and_one_on_the_hub_stays(hub, trained):
    (trained / "README.md").write_text('---\nlicense: mit\n---\nfrom_pretrained("path/to/this/folder")\n')
    push_model_folder(trained, options())
    assert hub.files["me/tiles"]["README.md"] == b'---\nlicense: mit\n---\nfrom_pretrained("me/tiles")\n'
    assert "path/to/this/folder" in (trained / "README.md").read_text()
    (trained / "README.md").unlink()
    hub.files["me/tiles"] = {"README.md": b"mine", "results.json": b"{}", "generator/old.safetensors": b""}
    with pytest.warns(UserWarning, match="me/tiles keeps the numbers of an earlier model"):
        push_model_folder(trained, options())
    assert hub.files["me/tiles"]["README.md"] == b"mine"
    assert "generator/old.safetensors" not in hub.files["me/tiles"], "shards of an earlier push would be loaded"


def test_another_model_leaves_nothing_of_the_last_one(hub, trained, make_generator, tmp_path):
    """Its records would be read as the new model's, and its discriminator be trained against a strange generator."""
    for name in RECORD_FILES:
        write_json(trained / name, {})
    push_model_folder(trained, options(hub_training_networks=True))
    by_hand = {"NOTES.md": b"", "classifier/config.json": b"{}", "classifier/diffusion_pytorch_model.safetensors": b""}
    hub.files["me/tiles"] |= by_hand
    DFMGANPipeline(make_generator(z_dim=8)).save_pretrained(tmp_path / "other")
    with pytest.warns(UserWarning, match="me/tiles keeps the numbers of an earlier model"):
        push_model_folder(tmp_path / "other", options())
    assert set(hub.files["me/tiles"]) == MODEL_FILES | set(by_hand)


def test_a_model_that_is_pushed_again_keeps_its_records(hub, trained, tmp_path):
    """A pipeline that was loaded from the Hub has none beside it."""
    write_json(trained / "results.json", {})
    push_model_folder(trained, options(hub_training_networks=True))
    again = DFMGANPipeline.from_pretrained(trained)
    for precision in (None, "fp16"):
        again.save_pretrained(tmp_path / "again", variant=precision)
    push_model_folder(tmp_path / "again", options())
    variant = "generator/diffusion_pytorch_model.fp16.safetensors"
    more = {"samples.png", "training_config.json", "results.json", variant}
    assert set(hub.files["me/tiles"]) == MODEL_FILES | more


def test_the_best_model_of_a_run_is_pushed(hub, make_generator, trained):
    best = trained / "best"
    DFMGANPipeline(make_generator()).save_pretrained(best)
    (best / "score.json").write_text('{"images_seen": 1200}')
    (trained / "samples" / "0000001000 (copy).png").write_bytes(b"copied by hand")
    record = json.loads((trained / "training_config.json").read_text())
    (best / "training_config.json").write_text(json.dumps({**record, "checkpoint_rule": "lowest KID"}))
    assert push_trained({trained: HubConfig(push_to_hub=True)}) == ["https://hub/user/trained/commit/1"]
    text = hub.files["user/trained"]["README.md"].decode()
    assert "- Checkpoint: the one after 1.2 kimg, by the lowest KID." in text
    assert hub.files["user/trained"]["samples.png"] == b"first"


def test_what_fails_does_not_keep_other_models_from_the_hub(hub, make_generator, tmp_path):
    parts = ("cut", "blow hole", "dent")
    for part in parts:
        DFMGANPipeline(make_generator()).save_pretrained(tmp_path / part)
    hub.refused = "me/run-cut"
    hub_options = options("me/run", hub_private_repo=True)
    with pytest.raises(HubError) as caught:
        push_trained({tmp_path / part: hub_options.for_part(part, "run") for part in parts})
    published, other, failed, again = str(caught.value).splitlines()
    assert (published, other) == tuple(f"Published: https://hub/me/run-{n}/commit/1" for n in ("blow-hole", "dent"))
    assert failed == (
        f"The model is in {tmp_path}/cut, but was not published. Nothing was published in me/run-cut: HF_HUB_OFFLINE "
        "is set, so that the Hub is not asked. Unset it."
    )
    assert again.endswith(f"--folder {tmp_path}/cut --push_to_hub --hub_model_id me/run-cut --hub_private_repo")


def test_a_training_is_told_before_it_starts(hub, tmp_path):
    prepare_push({tmp_path / "not there yet": options("me/first")})
    assert "me/first" in hub.files


def test_results_join_their_model(hub, trained, tmp_path):
    results = {"metrics": {"kid": {"kid": 0.05}}, "settings": {"real_file_names": ["customer.png"]}}
    results["options"] = {"data_dir": "/home/alice/data"}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "reference_results.json").write_text(json.dumps({"real cut": {"metrics": {"kid": {"kid": 0.2}}}}))
    push_results(str(trained), tmp_path, options())
    files = hub.files["me/tiles"]
    more = {"training_config.json", "samples.png", "results.json", "reference_results.json"}
    assert set(files) == MODEL_FILES | more
    assert json.loads(files["results.json"])["options"] == {"data_dir": "data"}
    assert b"customer.png" not in files["results.json"]
    assert "| KID x 1000, lower is closer | 50.00 | 200.00 |" in files["README.md"].decode()
    # The model's own references stand beside other numbers only if these are of the same photographs.
    of_others = {"real cut": {"metrics": {"kid": {"kid": 0.2}}, "settings": {"real_sha256": "1"}}}
    for folder, text, columns in ((tmp_path, "1", "| 50.00 | 200.00 |"), (tmp_path / "more", "2", "| 50.00 |\n")):
        write_json(folder / "results.json", {**results, "settings": {"real_sha256": text}})
        (tmp_path / "reference_results.json").unlink(missing_ok=True)
        write_json(trained / "reference_results.json", of_others)
        push_results(str(trained), folder, options(f"me/{text}"))
        assert f"| KID x 1000, lower is closer {columns}" in hub.files[f"me/{text}"]["README.md"].decode()
    write_json(tmp_path / "more/reference_results.json", of_others)
    with pytest.raises(CardError, match='reference "real cut" was measured against other photographs'):
        push_results(str(trained), tmp_path / "more", options("me/3"))
    hub.files["me/tiles"]["generator/diffusion_pytorch_model.safetensors"] = b"of an earlier training"
    with pytest.raises(CardError, match=r"me/tiles holds another generator .*: publish that one first"):
        push_results(str(trained), tmp_path, options())
    with pytest.raises(HubError, match="holds no model"):
        push_results("me/elsewhere", tmp_path, options("me/empty"))


@pytest.mark.parametrize(("published", "measured"), [("50KB", None), (None, "50KB"), ("50KB", "50KB"), (None, None)])
def test_results_of_a_generator_in_other_files_wait(hub, make_generator, trained, tmp_path, published, measured):
    """Files of different names cannot be compared, whatever they hold."""
    if published:
        pipe = DFMGANPipeline.from_pretrained(trained)
        shutil.rmtree(trained / "generator")
        pipe.save_pretrained(trained, max_shard_size=published)
    push_model_folder(trained, options())
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path / "model", max_shard_size=measured)
    write_json(tmp_path / "results.json", {"metrics": {"kid": {"kid": 0.05}}})
    if published == measured:
        push_results(str(tmp_path / "model"), tmp_path, options())
        assert "| 50.00 |" in hub.files["me/tiles"]["README.md"].decode()
        return
    with pytest.raises(CardError, match=r"me/tiles holds .* publish that one first, or measure the one that is"):
        push_results(str(tmp_path / "model"), tmp_path, options())


def test_an_export_is_pushed_whole_and_replaces_the_last_one(hub, make_generator, tmp_path):
    config = ExportConfig(tmp_path / "set", num_images=4, format="parquet", images_per_shard=3, min_mask_area=0)
    with pytest.raises(ExportError, match="no finished export"):
        push_to_hub(config.output_dir, "me/set")
    model = DFMGANPipeline(make_generator())
    model.save_pretrained(tmp_path / "model")
    write_json(tmp_path / "model/training_config.json", {"training_file_names": ["customer_17.png"]})
    generate_dataset(model, config, model_name=str(tmp_path / "model"))
    check_push(config, "me/set")
    hub.files["me/set"] = {"data/train-00002-of-00003.parquet": b"", "notes.md": b""}
    push_to_hub(config.output_dir, "me/set")
    shards = {f"data/train-0000{i}-of-00002.parquet" for i in range(2)}
    records = {f"generation/{name}" for name in ("settings.json", "summary.json", "contact_sheet.png")}
    assert set(hub.files["me/set"]) == {"README.md", "notes.md"} | shards | records
    assert hub.kinds["me/set"] == "dataset"
    assert b"customer_17" in (config.output_dir / "generation/settings.json").read_bytes()
    assert not any(b"customer_17" in content for content in hub.files["me/set"].values())


@pytest.mark.parametrize("private", [True, False, None])
def test_visibility_of_a_new_repository(hub, trained, private):
    push_model_folder(trained, options(), private=private)
    assert hub.private == {"me/tiles": private}
    push_model_folder(trained, options(hub_private_repo=True), private=private)
    assert hub.private == {"me/tiles": private is not False}


def test_only_errors_of_the_client_are_failed_transfers():
    with pytest.raises(RuntimeError, match="out of memory"), clear_errors("Not loaded", "me/tiles"):
        raise RuntimeError("out of memory")
    client: dict = {"__name__": "huggingface_hub.file_download"}
    exec("def xet_get():\n    raise RuntimeError('Network error')", client)
    said = r"Not loaded: the transfer failed \(Network error\). Run it again"
    with pytest.raises(HubError, match=said), clear_errors("Not loaded", "me/tiles"):
        client["xet_get"]()


def test_files_can_be_looked_at_before(trained, tmp_path, capsys):
    copy = tmp_path / "copy"
    publish(PublishConfig(trained, output_dir=copy))
    assert capsys.readouterr().out == f"Wrote {copy}\n"
    written = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert written == (MODEL_FILES | {"training_config.json"}) - {"README.md"}
    assert "/home/alice" not in (copy / "training_config.json").read_text()
    with pytest.raises(FileExistsError, match="exists already"):
        publish(PublishConfig(trained, output_dir=copy))
    with pytest.raises(ValueError, match="Nothing to do: give `push_to_hub`"):
        PublishConfig(trained)
    with pytest.raises(ValueError, match="`results` has no effect without `push_to_hub`"):
        PublishConfig(trained, output_dir=copy, results=tmp_path)
    PublishConfig(trained, output_dir=copy, results=tmp_path, hub=options())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_what_a_killed_push_left_is_removed_by_the_next(tmp_path, monkeypatch):
    """It may be a whole model, and nobody looks for it."""
    killed = (
        "import os, signal\n"
        "from dfmgan_hf.hub.push import scratch_folder\n"
        "with scratch_folder() as folder:\n"
        "    (folder / 'weights').write_bytes(b'x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", killed], env={**os.environ, "TMPDIR": str(tmp_path)})
    (litter,) = tmp_path.iterdir()
    assert (litter / "weights").exists()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as first, scratch_folder() as second:
        assert set(tmp_path.iterdir()) == {first, second}
    assert list(tmp_path.iterdir()) == []
