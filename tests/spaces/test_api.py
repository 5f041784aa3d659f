"""The named endpoints over HTTP: what they give, what they refuse, and that the server lives."""

from __future__ import annotations

import json
import random
import time
import zipfile

import httpx
import numpy as np
import pytest
from PIL import Image

from dfmgan_hf import DFMGANPipeline

gradio_client = pytest.importorskip("gradio_client")

REQUEST_SECONDS = 300


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    downloads = str(tmp_path_factory.mktemp("downloads"))
    return gradio_client.Client(server.url, verbose=False, download_files=downloads)


def _pixels(gallery) -> list[np.ndarray]:
    images = [Image.open(entry["image"]) for entry in gallery]
    assert {image.format for image in images} == {"PNG"}
    return [np.asarray(image) for image in images]


@pytest.mark.parametrize("model", ["Blobs", "Coloured blobs"])
def test_draw_gives_the_pipelines_own_pixels(client, model_folders, model):
    images, masks, defect_free, facts = client.predict(
        model=model, num_images=3, seed=7, truncation_psi=0.8, mask_threshold=0.2, api_name="/draw"
    )
    expected = DFMGANPipeline.from_pretrained(model_folders[model])(
        seeds=[7, 8, 9], truncation_psi=0.8, mask_threshold=0.2
    )
    for got, wanted in (
        (images, expected.images),
        (masks, expected.masks),
        (defect_free, expected.defect_free_images),
    ):
        assert all((a == np.asarray(b)).all() for a, b in zip(_pixels(got), wanted, strict=True))
    assert {value for mask in _pixels(masks) for value in np.unique(mask)} == {0, 255}
    assert [fact["part_seed"] for fact in facts] == [7, 8, 9]
    assert facts[0]["defect_area_percent"] == pytest.approx(100 * np.mean(_pixels(masks)[0] == 255))


def test_defaults_are_the_pages(client):
    images, _, _, facts = client.predict(api_name="/draw")
    assert len(images) == len(facts) == 4


def test_variations_hold_one_thing(client):
    _, masks, twins, facts = client.predict("Blobs", 3, 5, 40, 1.0, 0.0, api_name="/same_part")
    assert [(fact["part_seed"], fact["defect_seed"]) for fact in facts] == [(5, 40), (5, 41), (5, 42)]
    assert len({twin.tobytes() for twin in _pixels(twins)}) == 1
    assert len({mask.tobytes() for mask in _pixels(masks)}) == 3
    _, _, twins, facts = client.predict("Blobs", 3, 5, 40, 1.0, 0.0, api_name="/same_defect")
    assert [(fact["part_seed"], fact["defect_seed"]) for fact in facts] == [(40, 5), (41, 5), (42, 5)]
    assert len({twin.tobytes() for twin in _pixels(twins)}) == 3


def test_walk_gives_an_animation(client):
    path = client.predict("Blobs", "defect", 1, 2, 1.0, 0.0, api_name="/walk")
    with Image.open(path) as animation:
        assert animation.format == "WEBP"
        assert animation.n_frames > 20


def test_export_gives_a_zip_after_saying_that_it_works(client):
    job = client.submit("Blobs", 6, 0, "Image folder", 1.0, 0.0, api_name="/export")
    path = job.result(timeout=REQUEST_SECONDS)
    assert job.outputs()[:6] == [None] * 6
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert sum(name.startswith("blobs/masks/") for name in archive.namelist()) == 6


def test_models_are_the_operators(client):
    assert client.predict(api_name="/models") == [
        {"name": "Blobs", "resolution": 64, "aspect": [1, 1], "image_channels": 1},
        {"name": "Coloured blobs", "resolution": 64, "aspect": [1, 1], "image_channels": 3},
    ]


def test_endpoints_and_their_types_are_documented_and_no_others(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/draw", "/same_part", "/same_defect", "/walk", "/export", "/models"}
    types = {p["parameter_name"]: p["python_type"]["type"] for p in endpoints["/draw"]["parameters"]}
    assert types.pop("model").startswith("Literal['Blobs', 'Coloured blobs']")
    assert types == {"num_images": "int", "seed": "int", "truncation_psi": "float", "mask_threshold": "float"}
    assert all(p["parameter_has_default"] for p in endpoints["/draw"]["parameters"])
    assert client.view_api(return_format="dict")["unnamed_endpoints"] == {}


GOOD = {"model": "Blobs", "num_images": 1, "seed": 0, "truncation_psi": 1.0, "mask_threshold": 0.0}
REFUSED = [
    ({"num_images": 0}, "How many must be a whole number from 1 to 24, but is 0"),
    ({"num_images": 25}, "but is 25"),
    ({"num_images": 10**9}, "How many"),
    ({"num_images": 10**300}, "a number of 997 bits"),
    ({"num_images": 1.5}, "but is 1.5"),
    ({"num_images": "3"}, "but is '3'"),
    ({"num_images": True}, "but is True"),
    ({"num_images": None}, "but is empty"),
    ({"num_images": [1]}, "How many"),
    ({"seed": -1}, "Seed must be a whole number from 0 to 4,294,967,295, but is -1"),
    ({"seed": 2**32}, "Seed"),
    ({"seed": "sieben 🔩 ⁷"}, "sieben 🔩 ⁷"),
    ({"seed": {"a": 1}}, "Seed"),
    ({"truncation_psi": 1.6}, "Variety (truncation) must be a number from 0 to 1.5, but is 1.6"),
    ({"truncation_psi": -0.1}, "Variety"),
    ({"mask_threshold": 11}, "Mask threshold must be a number from -10 to 10, but is 11"),
    ({"mask_threshold": "low"}, "Mask threshold"),
    ({"model": "org/someone-elses-model"}, "Model must be one of Blobs, Coloured blobs"),
    ({"model": "../../etc"}, "Model"),
    ({"model": None}, "Model must be one of Blobs, Coloured blobs, but is empty"),
    ({"model": ["Blobs"]}, "Model"),
    ({"model": "Б" * 10_000}, "..."),
]


@pytest.mark.parametrize(("wrong", "message"), REFUSED)
def test_wrong_values_are_refused_in_words(client, wrong, message):
    with pytest.raises(gradio_client.exceptions.AppError) as refused:
        client.predict(**{**GOOD, **wrong}, api_name="/draw")
    assert message in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("endpoint", "values", "message"),
    [
        ("/export", ("Blobs", 201, 0, "MVTec AD", 1.0, 0.0), "from 1 to 200"),
        (
            "/export",
            ("Blobs", 2, 0, "tar", 1.0, 0.0),
            "Layout must be one of MVTec AD, anomalib, Image folder, COCO, YOLO, Parquet",
        ),
        ("/export", ("Blobs", 200, 0, "MVTec AD", 1.0, 10.0), "drew no defect at this threshold"),
        ("/walk", ("Blobs", "colour", 1, 2, 1.0, 0.0), "What changes must be one of defect, part"),
        ("/walk", ("Blobs", "part", 1, -2, 1.0, 0.0), "To seed"),
        ("/walk", ("Blobs", "part", 3, 3, 1.0, 0.0), "Both ends have the same part"),
        ("/same_part", ("Blobs", 2, 1, -2, 1.0, 0.0), "First defect seed"),
    ],
)
def test_every_endpoint_has_bounds(client, endpoint, values, message):
    with pytest.raises(gradio_client.exceptions.AppError, match=message):
        client.predict(*values, api_name=endpoint)


def _call(server, endpoint: str, body: bytes) -> tuple[int, str]:
    """Send a raw body to an endpoint; returns the status and, if it was queued, what came of it."""
    with httpx.Client(base_url=f"{server.url}/gradio_api", timeout=REQUEST_SECONDS) as http:
        answer = http.post(f"/call/{endpoint}", content=body, headers={"Content-Type": "application/json"})
        if answer.status_code != 200:
            return answer.status_code, answer.text
        return 200, http.get(f"/call/{endpoint}/{answer.json()['event_id']}").text


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_not_a_number_is_refused(server, number):
    # JSON has no NaN, and neither has any client of ours; Python's parser takes it all the same.
    status, text = _call(server, "draw", f'{{"data": ["Blobs", 1, 0, {number}, 0]}}'.encode())
    assert status == 200
    assert "event: error" in text
    assert "Variety (truncation) must be a number" in text


def _malformed(rng: random.Random) -> bytes:
    """A body that no client would send."""
    junk = [None, True, -1, 1e308, "", "\u0000", "ﷺ" * 50, [], {}, [[[]]], {"path": "/etc/passwd"}, "{{7*7}}", "'; --"]
    junk.append({"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}, "url": "file:///etc/passwd"})
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(200)))
    if kind == 1:
        return json.dumps({"data": [rng.choice(junk) for _ in range(rng.randrange(12))]}).encode()
    if kind == 2:
        return json.dumps({"data": rng.choice(junk), "event_data": rng.choice(junk)}).encode()
    if kind == 3:
        return json.dumps({"data": ["Blobs", *(rng.choice(junk) for _ in range(4))]}).encode()
    return json.dumps(rng.choice(junk)).encode()[: rng.randrange(1, 40)]


def test_a_hundred_malformed_requests_are_refused_and_the_server_lives(server, client):
    rng = random.Random(0)
    for _ in range(100):
        body = _malformed(rng)
        status, text = _call(server, rng.choice(["draw", "walk", "export", "same_part"]), body)
        assert status in (400, 404, 422) or (status == 200 and "event: error" in text), (status, text[:300], body)
        assert "root:" not in text
    assert len(client.predict(**GOOD, api_name="/draw")[0]) == 1


def test_files_of_the_machine_are_not_served(server, model_folders):
    for path in ("/etc/passwd", str(model_folders["Blobs"] / "model_index.json"), str(server.log)):
        answer = httpx.get(f"{server.url}/gradio_api/file={path}")
        assert answer.status_code in (403, 404), path


def test_cancelling_an_export_frees_its_place_and_leaves_no_files(server, client):
    before = server.files()
    job = client.submit("Blobs", 200, 0, "MVTec AD", 1.0, 0.0, api_name="/export")
    _wait_until(lambda: len(job.outputs()) > 2)
    job.cancel()
    # Had it gone on to its end, there would be a new ZIP.
    _wait_until(lambda: server.files() <= before)
    assert client.predict("Blobs", 1, 0, "MVTec AD", 1.0, 0.0, api_name="/export").endswith(".zip")


def test_a_client_that_disconnects_frees_its_place(server, client):
    """A long export whose client goes away in the middle stops; one that waits behind it leaves the queue."""
    before = server.files()
    with httpx.Client(base_url=f"{server.url}/gradio_api", timeout=REQUEST_SECONDS) as http:
        body = {"data": ["Blobs", 200, 0, "MVTec AD", 1.0, 0.0]}
        running = http.post("/call/export", json=body).json()["event_id"]
        waiting = http.post("/call/export", json=body).json()["event_id"]
        with http.stream("GET", f"/call/export/{waiting}"), http.stream("GET", f"/call/export/{running}") as stream:
            lines = stream.iter_lines()
            assert any("generating" in line for line in lines)
            assert http.get("/queue/status").json()["queue_size"] == 1
    _wait_until(lambda: server.files() <= before)
    _wait_until(lambda: httpx.get(f"{server.url}/gradio_api/queue/status").json()["queue_size"] == 0)
    assert client.predict("Blobs", 1, 0, "MVTec AD", 1.0, 0.0, api_name="/export").endswith(".zip")


def _wait_until(holds, seconds: float = REQUEST_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.1)
