"""What goes wrong on the way: each time a clear error, or another attempt, and never half a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import actions
from .client import ActionFailed
from .repositories import READ_TOKEN
from .server import Fault

LARGE_FILES = "/objects/"
WRONG_TOKEN = "hf_mistyped"
ALWAYS = 1000


def test_missing_repository(client, new_name):
    name = new_name()
    message = rf"HubError OSError.*{name} is no folder here, .* there is no repository {name} on the Hub"
    with pytest.raises(ActionFailed, match=message):
        client(actions.pull, name)


def test_missing_revision(client, new_name):
    name = new_name()
    client(actions.push, name)
    with pytest.raises(ActionFailed, match=r"HubError.*it has no revision 'v3'. Give a branch, a tag or a commit"):
        client(actions.pull, name, revision="v3")


def test_missing_variant(client, new_name):
    name = new_name()
    client(actions.push, name)
    with pytest.raises(ActionFailed, match=r"ValueError.*variant=fp16"):
        client(actions.pull, name, variant="fp16")


def test_a_repository_without_a_model(hub, client, new_name):
    name = new_name()
    hub.put(name, {"notes.txt": b""})
    with pytest.raises(ActionFailed, match=r"(?s)HubError.*a file is missing in it.*model_index.json"):
        client(actions.pull, name)


def test_a_name_that_cannot_be(client):
    with pytest.raises(ActionFailed, match=r"(HubError|ValueError).*--model"):
        client(actions.pull, "me/--model")


def test_wrong_token_cannot_pull(client, new_name, cache):
    name = new_name()
    client(actions.push, name)
    with pytest.raises(
        ActionFailed, match=r"HubError.*the Hub does not accept the token. Log in with `hf auth login`"
    ):
        client(actions.pull, name, token=WRONG_TOKEN, cache_dir=cache)


def test_private_repository(hub, client, new_name, cache):
    name = new_name()
    expected = client(actions.push, name, private=True)
    assert hub.repository(name).private
    assert client(actions.pull, name, cache_dir=cache) == expected
    with pytest.raises(ActionFailed, match=r"HubError.*or it is private and you may not see it"):
        client(actions.pull, name, token="", cache_dir=f"{cache}2")


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (WRONG_TOKEN, "the Hub does not accept the token"),
        ("", "the Hub does not accept the token"),
        (READ_TOKEN, "the token has no right to do this"),
    ],
)
def test_wrong_token_cannot_push(hub, client, new_name, token, message):
    name = new_name()
    with pytest.raises(ActionFailed, match=rf"HubError.*{name} cannot be written to: {message}"):
        client(actions.push, name, token=token)
    assert ("model", name) not in hub.repositories.of


def test_a_training_is_told_before_it_starts(hub, client, new_name, trained_folder):
    with pytest.raises(ActionFailed, match=r"HubError.*does not accept the token"):
        client(actions.prepare, str(trained_folder), hub_model_id=new_name(), token=WRONG_TOKEN)
    client(
        actions.prepare, str(trained_folder.with_name("not there yet")), hub_model_id="me/first", hub_private_repo=True
    )
    assert hub.repository("me/first").private
    client(actions.prepare, str(trained_folder.with_name("second")))
    assert not hub.repository("user/second").private
    # A token that may read is let through when a repository that exists is opened.
    with pytest.raises(ActionFailed, match=r"HubError.*user/second cannot be written to: the token has no right"):
        client(actions.prepare, str(trained_folder), hub_model_id="user/second", token=READ_TOKEN)
    with pytest.raises(ActionFailed, match=r"CardError.*no file missing.json"):
        client(actions.prepare, str(trained_folder), hub_card=Path("missing.json"))


def test_upload_that_breaks_is_tried_again(hub, client, new_name):
    name = new_name()
    hub.faults.append(Fault("PUT", LARGE_FILES, 1000, times=2))
    expected = client(actions.push, name, seed=11)
    assert len([1 for method, path in hub.requests if method == "PUT"]) == 3
    assert client(actions.pull, name) == expected


def test_commit_that_breaks_is_tried_again(hub, client, new_name):
    name = new_name()
    hub.faults.append(Fault("POST", "/commit/", 100, times=2))
    expected = client(actions.push, name, seed=12)
    assert len(hub.repository(name).messages["main"]) == 2
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
    hub.requests.clear()
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


def test_a_truncated_file_in_the_cache_does_not_load(client, new_name, cache):
    name = new_name()
    client(actions.push, name, seed=16)
    client(actions.pull, name, cache_dir=cache)
    weights = next(Path(cache).rglob("*.safetensors"))
    weights.resolve().write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ActionFailed, match=r"OSError.*diffusion_pytorch_model.safetensors"):
        client(actions.pull, name, cache_dir=cache, local_files_only=True)
