"""The real client against a Hub on this machine: whole pushes and pulls, and connections that break midway."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard

from tests.hub import actions
from tests.hub.client import ActionFailed
from tests.hub.repositories import READ_TOKEN
from tests.hub.server import Fault

WEIGHTS = "generator/diffusion_pytorch_model.safetensors"
LARGE_FILES = "/objects/"
ALWAYS = 1000


def test_push_and_pull(hub, client, new_name, cache):
    name = new_name()
    expected = client(actions.push, name, facts={"product": "nuts", "license": "apache-2.0"})
    assert set(hub.files(name)) == {"README.md", "model_index.json", "generator/config.json", WEIGHTS}
    assert hub.repository(name).messages == ["initial commit", "Upload DFMGAN pipeline"]
    card = ModelCard(hub.files(name)["README.md"].decode())
    assert card.data.license == "apache-2.0"
    assert f'from_pretrained("{name}")' in card.text
    assert client(actions.pull, name, cache_dir=cache) == expected
    hub.requests.clear()
    assert client(actions.pull, name, cache_dir=cache, local_files_only=True) == expected
    assert hub.requests == []


def test_a_second_push_leaves_no_shards_of_the_first(hub, client, new_name):
    """Their index would be loaded before the single file that follows."""
    name = new_name()
    client(actions.push, name, seed=2, variant="fp16", max_shard_size="50KB")
    assert f"{WEIGHTS}.index.json" in hub.files(name)
    expected = client(actions.push, name, seed=3)
    assert {n for n in hub.files(name) if n.startswith("generator/")} == {"generator/config.json", WEIGHTS}
    assert client(actions.pull, name) == expected


def test_a_repository_with_a_pickle_is_not_loaded(hub, client, new_name):
    name = new_name()
    client(actions.push, name)
    hub.repository(name).commit({**hub.files(name), "generator/extra.pt": b"\x80\x04harm."}, "put")
    hub.requests.clear()
    with pytest.raises(ActionFailed, match=r"OSError.*holds pickles"):
        client(actions.pull, name)
    assert not any(path.endswith(".pt") for _, path in hub.requests)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_mistyped", "the Hub does not accept the token"),
        ("", "the Hub does not accept the token"),
        (READ_TOKEN, "the token has no right to do this"),
    ],
)
def test_wrong_token_cannot_push(hub, client, new_name, token, message):
    name = new_name()
    with pytest.raises(ActionFailed, match=rf"HubError.*{name} cannot be written to: {message}"):
        client(actions.push, name, token=token)
    assert ("model", name) not in hub.repositories.of


@pytest.mark.parametrize("fault", [("PUT", LARGE_FILES), ("POST", "/commit/")])
def test_push_that_breaks_is_tried_again(hub, client, new_name, fault):
    name = new_name()
    hub.faults.append(Fault(*fault, 100, times=2))
    expected = client(actions.push, name, seed=11)
    assert len(hub.repository(name).messages) == 2
    assert client(actions.pull, name) == expected


@pytest.mark.parametrize("fault", [("PUT", LARGE_FILES), ("POST", "/commit/")])
def test_push_that_keeps_breaking_leaves_the_old_model(hub, client, new_name, cache, fault):
    name = new_name()
    expected = client(actions.push, name, seed=13)
    before = dict(hub.files(name))
    hub.faults.append(Fault(*fault, 1000, times=ALWAYS))
    with pytest.raises(
        ActionFailed, match=rf"HubError.*Nothing was published in {name}: the connection .*Run it again"
    ):
        client(actions.push, name, seed=17)
    assert hub.files(name) == before
    hub.faults.clear()
    assert client(actions.pull, name, cache_dir=cache) == expected


def test_download_that_breaks_goes_on_where_it_was(hub, client, new_name, cache):
    name = new_name()
    expected = client(actions.push, name, seed=14)
    hub.faults.append(Fault("GET", LARGE_FILES, 1000, times=2))
    assert client(actions.pull, name, cache_dir=cache) == expected
    assert hub.resumed == [1000, 2000]


def test_download_that_keeps_breaking_leaves_nothing_that_loads(hub, client, new_name, cache):
    name = new_name()
    expected = client(actions.push, name, seed=15)
    hub.faults.append(Fault("GET", LARGE_FILES, 1000, times=1))
    hub.faults.append(Fault("GET", LARGE_FILES, 0, times=ALWAYS))
    with pytest.raises(ActionFailed, match=r"HubError.*the connection to the Hub failed .* Run it again"):
        client(actions.pull, name, cache_dir=cache)
    with pytest.raises(ActionFailed, match=r"OSError.*1 file\(s\) are missing"):
        client(actions.pull, name, cache_dir=cache, local_files_only=True)
    hub.faults.clear()
    assert client(actions.pull, name, cache_dir=cache) == expected
