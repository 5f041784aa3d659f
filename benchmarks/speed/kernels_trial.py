"""Scratch: the fused synthesis on a GPU, correctness and time, in under a minute.

    PYTHONPATH=. python benchmarks/speed/kernels_trial.py [seconds]
"""

from __future__ import annotations

import statistics
import sys
import time
import traceback

import torch
import torch.nn.functional as F

START = time.monotonic()
LIMIT = float(sys.argv[1]) if len(sys.argv) > 1 else 45.0

from dfmgan_hf.models import fused, operators  # noqa: E402
from dfmgan_hf.models.dfmgan import DFMGANGenerator  # noqa: E402
from dfmgan_hf.models.stylegan2 import hold_weights  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = {"resolution": 256, "residual_resolution": 64}
BATCH, SMALL = 64, 16
if DEVICE == "cpu":  # to try the script, in the interpreter
    SIZES, BATCH, SMALL = {"resolution": 32, "residual_resolution": 8, "channel_base": 512}, 4, 2


def say(*words):
    print(f"[{time.monotonic() - START:5.1f}s]", *words, flush=True)


def part(function):
    if time.monotonic() - START > LIMIT:
        say(function.__name__, "left out: no time")
        return
    try:
        function()
    except Exception:
        say(function.__name__, "FAILED", traceback.format_exc(limit=-6))


def milliseconds(call, repeats=7, inner=1):
    call()
    if DEVICE == "cpu":
        return 1.0
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin.record()
        for _ in range(inner):
            call()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / inner)
    return statistics.median(times)


torch.set_grad_enabled(False)
torch.manual_seed(0)
network = DFMGANGenerator(**SIZES).eval().requires_grad_(False)
for name, parameter in network.named_parameters():
    if name.endswith("noise_strength"):
        parameter.fill_(0.1)
network = network.to(DEVICE).to(memory_format=torch.channels_last)
z = torch.randn(2, BATCH, 512, device=DEVICE)


APPLIES, SERVE = fused.applies, operators.serve
if DEVICE == "cpu":
    APPLIES = lambda *_: True  # noqa: E731


def set_dtype(dtype, fuse=True):
    fused.applies = APPLIES if fuse else lambda *_: False
    operators.serve = SERVE if fuse else lambda *_: False
    network.set_mixed_precision(dtype, len(network.synthesis.resolutions))


def draw(z):
    return network(*z, noise_mode="const", return_defect_free=True, return_dict=False)


def correctness(dtypes=(torch.float16,)):
    set_dtype(None, fuse=False)
    plain = draw(z[:, :SMALL].contiguous())
    for dtype in dtypes:
        set_dtype(dtype)
        for count in (SMALL, BATCH):
            if count == BATCH and dtype != torch.float16:
                continue
            ours = draw(z[:, :count].contiguous())
            rows = [(a[:SMALL] - b).abs() for a, b in zip(ours, plain)]
            text = ", ".join(f"{float(d.mean()):.2g}/{float(d.max()):.2g}" for d in rows)
            say(f"fused {dtype} batch {count} to plain float32, image, mask, twin, mean/max: {text}")
    scale = float(plain[0].abs().mean()), float(plain[0].abs().max()), float((plain[1] >= 0).float().mean())
    say("image's magnitude mean, max, share of the mask:", *scale)


def whole(dtypes=(torch.float16,)):
    for dtype in dtypes:
        set_dtype(dtype)
        for count in (BATCH, 1):
            part_z = z[:, :count].contiguous()
            if DEVICE == "cuda":
                torch.cuda.reset_peak_memory_stats()
            eager = milliseconds(lambda: draw(part_z))
            peak = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else 0
            graph_ms = float("nan")
            if DEVICE == "cuda":
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    draw(part_z)
                graph_ms = milliseconds(graph.replay)
                del graph
            say(f"{dtype} batch {count}: fused eager {eager:.2f} ms, graph {graph_ms:.2f} ms = "
                f"{count / graph_ms * 1e3:.0f}/s, peak {peak:.2f} GiB")


def plain():
    set_dtype(torch.float16, fuse=False)
    ms = milliseconds(lambda: draw(z), 2)
    say(f"plain float16 batch {BATCH}: {ms:.1f} ms")


def profile():
    set_dtype(torch.float16)
    draw(z)
    with torch.profiler.profile() as record:
        draw(z)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    rows = [e for e in record.events() if e.device_type == torch.autograd.DeviceType.CUDA and e.time_range.elapsed_us() > 20]
    for row in sorted(rows, key=lambda e: e.time_range.start):
        say(f"  {row.time_range.elapsed_us():9.0f} us  {row.name[:100]}")
    say("all kernels, ms:", sum(row.time_range.elapsed_us() for row in rows) / 1e3)


def tiles():
    """The two kernels at the largest resolution, by tile."""
    r, c, n = (256, 64, BATCH) if DEVICE == "cuda" else (16, 16, 2)

    def maps(n, size):
        x = torch.randn(n, c, size, size, device=DEVICE, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
        d, noise = torch.rand(n, c, device=DEVICE), torch.randn(r, r, device=DEVICE)
        return operators.Convolved(x, d, torch.randn(c, device=DEVICE), torch.tensor(0.1, device=DEVICE), noise)

    made, saved = maps(n, r + 1), operators._filtered_tile
    x = made.x
    style = torch.rand(n, c, device=DEVICE)
    moved = n * c * ((r + 1) ** 2 + r**2) * 2
    plain_ms = milliseconds(lambda: F.leaky_relu_(x, 1.0))
    say(f"filtered, {moved / 1e9:.2f} GB; reading and writing in place takes {plain_ms:.3f} ms ({x.numel() * 4 / plain_ms / 1e6:.0f} GB/s)")
    for tile in ((4, 16, 64, 4), (4, 16, 64, 8), (4, 8, 64, 4), (8, 16, 64, 8), (4, 32, 32, 8)):
        if time.monotonic() - START > LIMIT:
            break
        operators._filtered_tile = lambda *_: tile
        ms = milliseconds(lambda: operators.filtered_epilogue(made, style, 256.0, torch.float16))
        say(f"  rows {tile[0]}, columns {tile[1]}, channels {tile[2]}, warps {tile[3]}: {ms:.3f} ms, {moved / ms / 1e6:.0f} GB/s")
    operators._filtered_tile = saved
    del made, x

    saved = operators._pointwise_tile
    for name, c, r, all_tiles in (
        ("last", 64, 256, ((32, 64, 4), (16, 64, 4), (32, 64, 8), (64, 64, 8))),
        ("scaled", 128, 128, ((16, 128, 4), (8, 128, 4), (16, 128, 8))),
    ):
        if DEVICE == "cpu":
            c, r = 16, 16
        features, residual = maps(n, r), maps(n, r)
        style = torch.rand(n, c, device=DEVICE)
        to_rgb = operators.Reading(style, torch.randn(3, c, 1, 1, device=DEVICE), torch.randn(3, device=DEVICE))
        image, mask = torch.randn(n, 3, r // 2, r // 2, device=DEVICE), torch.randn(n, 1, r // 2, r // 2, device=DEVICE)
        moved = n * r * r * (c * 2 * (2 if name == "last" else 4) + 16 + 4)
        more = {} if name == "last" else {"style": style, "defect_style": style}
        for tile in all_tiles:
            if time.monotonic() - START > LIMIT:
                break
            operators._pointwise_tile = lambda *_: tile
            ms = milliseconds(
                lambda: operators.pointwise_epilogue(
                    features, to_rgb, image, 256.0, torch.float16, residual=residual, mask=mask, **more
                )
            )
            say(f"  {name}: columns {tile[0]}, warps {tile[2]}: {ms:.3f} ms, {moved / ms / 1e6:.0f} GB/s")
    operators._pointwise_tile = saved


def layouts():
    """Convolutions by layout."""
    for r, c_in, c_out, up in ((256, 64, 64, 0), (128, 128, 64, 1), (128, 128, 128, 0), (64, 256, 128, 1), (64, 256, 256, 0), (32, 512, 256, 1)):
        if time.monotonic() - START > LIMIT or DEVICE == "cpu":
            break
        text = []
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(BATCH, c_in, r, r, device=DEVICE, dtype=torch.float16).contiguous(memory_format=layout)
            w = torch.randn((c_in, c_out, 3, 3) if up else (c_out, c_in, 3, 3), device=DEVICE, dtype=torch.float16)
            w = w.contiguous(memory_format=layout)
            call = (lambda: F.conv_transpose2d(x, w, stride=2)) if up else (lambda: F.conv2d(x, w, padding=1))
            text.append(f"{milliseconds(call):.3f} ms")
        say(f"  {'up ' if up else ''}{c_in} -> {c_out} at {r}: NCHW, channels last {', '.join(text)}")


def training_operators():
    from dfmgan_hf.models import layers

    n, c, r = (16, 64, 256) if DEVICE == "cuda" else (1, 8, 8)
    operators.serve = lambda x: False
    x = torch.randn(n, c, r, r, device=DEVICE, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
    y = x.clone()
    for name, ours, plain in (
        ("filter", lambda: torch.ops.dfmgan_hf.filter2d(x, 2, 1, 1.0), lambda: layers.fir_filter2d(x, padding=2)),
        ("downsample", lambda: torch.ops.dfmgan_hf.filter2d(x, 1, 2, 1.0), lambda: layers.downsample2d(x)),
        ("upsample", lambda: torch.ops.dfmgan_hf.upsample2d(x[:, :, : r // 2, : r // 2], 4.0), lambda: layers.upsample2d(x[:, :, : r // 2, : r // 2])),
        ("activation", lambda: torch.ops.dfmgan_hf.clamped_leaky_relu_(y, 256.0), lambda: layers.activate(y, 256.0)),
        ("its gradient", lambda: torch.ops.dfmgan_hf.clamped_leaky_relu_gradient(x, y, 256.0),
         lambda: layers._ClampedLeakyReLUGradient.apply(x, y, 256.0)),
    ):
        a, b = ours(), plain()
        error = "" if a is None else f", apart {float((a - b).abs().max()):.2g}"
        say(f"  {name} of {n} x {c} x {r} x {r}: {milliseconds(ours):.3f} ms, plain {milliseconds(plain):.3f} ms{error}")
    operators.serve = SERVE


def bfloat16():
    whole((torch.bfloat16,))


def other_types():
    correctness((torch.bfloat16,))


if DEVICE == "cuda":
    import triton

    say(torch.cuda.get_device_name(), torch.__version__, triton.__version__, "kernels run:", operators.kernels_run())
for function in (correctness, whole, profile, tiles, layouts, training_operators, plain, bfloat16, other_types):
    with hold_weights(network):
        part(function)
say("end")
