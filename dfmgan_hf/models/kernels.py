"""Triton kernels: what precedes and follows a convolution, in one pass over its map.

Imported only where a kernel is launched: Triton comes with torch for CUDA. Maps are channels last, so that a row of a
tile is one pixel's channels and what sums over channels (ToRGB, ToMask) needs no second pass. Sums are in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

LEAKY_SLOPE = tl.constexpr(0.2)
ACTIVATION_GAIN = tl.constexpr(2.0**0.5)


@triton.jit
def clamp(x, limit: tl.constexpr):
    """Clamp to +-`limit`, unless it is None; NaN stays, as in torch."""
    if limit is not None:
        x = tl.clamp(x, -limit, limit, propagate_nan=tl.PropagateNan.ALL)
    return x


@triton.jit
def load_vector(pointer, columns, inside):
    return tl.load(pointer + columns, mask=inside, other=0.0).to(tl.float32)[None, :]


@triton.jit
def load_noise(pointer, offset, strength, pixels, inside):
    """Noise of `pixels`, from `offset` on, times its strength; zeros if there is none."""
    noise = tl.zeros(pixels.shape, tl.float32)
    if pointer is not None:
        noise = tl.load(pointer + offset + pixels, mask=inside, other=0.0).to(tl.float32)
        noise *= tl.load(strength).to(tl.float32)
    return noise


@triton.jit
def activate(x, demodulation, noise, bias, limit: tl.constexpr):
    """Demodulation, noise, bias, leaky ReLU with its gain, and clamp of a tile (pixels, channels)."""
    x = x * demodulation + (noise[:, None] + bias) * ACTIVATION_GAIN
    return clamp(tl.where(x > 0, x, x * LEAKY_SLOPE), limit)


@triton.jit
def load_upsampled(x, step, y, column, height, width, inside):
    """Pixels of a (height/2, width/2) map upsampled with [1, 3, 3, 1] and gain 4: the polyphase form of `upsample2d`.

    A pixel lies `step` numbers behind the one before it.
    """
    low_height, low_width = height // 2, width // 2
    near_y, near_x = y // 2, column // 2
    far_y, far_x = near_y + y % 2 * 2 - 1, near_x + column % 2 * 2 - 1
    in_y, in_x = (far_y >= 0) & (far_y < low_height) & inside, (far_x >= 0) & (far_x < low_width) & inside
    corner = tl.load(x + (near_y * low_width + near_x) * step, mask=inside, other=0.0).to(tl.float32)
    beside = tl.load(x + (near_y * low_width + far_x) * step, mask=in_x, other=0.0).to(tl.float32)
    below = tl.load(x + (far_y * low_width + near_x) * step, mask=in_y, other=0.0).to(tl.float32)
    across = tl.load(x + (far_y * low_width + far_x) * step, mask=in_x & in_y, other=0.0).to(tl.float32)
    return (9.0 * corner + 3.0 * (beside + below) + across) * 0.0625


@triton.jit
def filter_row(x, y, columns, channels, height, width, num_channels, in_channels):
    """Filter row `y` of a map (height, width, num_channels) with [1, 3, 3, 1] from each of `columns` on."""
    row = x + y * width * num_channels + channels[None, :]
    in_row = (y >= 0) & (y < height) & in_channels[None, :]
    total = tl.zeros((columns.shape[0], channels.shape[0]), tl.float32)
    for j in tl.static_range(4):
        column = (columns + j)[:, None]
        inside = in_row & (column >= 0) & (column < width)
        value = tl.load(row + column * num_channels, mask=inside, other=0.0).to(tl.float32)
        total += value * (3.0 if j == 1 or j == 2 else 1.0)
    return total


@triton.jit
def locate(height, width, num_channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr):
    """Return the sample of the program's tile, its top row, its columns and its channels."""
    number = tl.program_id(0)
    channels = number % tl.cdiv(num_channels, CHANNELS) * CHANNELS + tl.arange(0, CHANNELS)
    number //= tl.cdiv(num_channels, CHANNELS)
    columns = number % tl.cdiv(width, COLUMNS) * COLUMNS + tl.arange(0, COLUMNS)
    number //= tl.cdiv(width, COLUMNS)
    top = number % tl.cdiv(height, ROWS) * ROWS
    return (number // tl.cdiv(height, ROWS)).to(tl.int64), top, columns, channels


@triton.jit
def filter_kernel(
    x,
    out,
    in_height,
    in_width,
    height,
    width,
    num_channels,
    padding,
    gain,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """`filter2d`. The filter is separable: every row is filtered once, and kept while rows of the output need it."""
    sample, top, columns, channels = locate(height, width, num_channels, ROWS, COLUMNS, CHANNELS)
    in_channels = channels < num_channels
    x += sample * in_height * in_width * num_channels
    out += sample * height * width * num_channels
    starts, y = columns * STRIDE - padding, top * STRIDE - padding
    first = filter_row(x, y, starts, channels, in_height, in_width, num_channels, in_channels)
    second = filter_row(x, y + 1, starts, channels, in_height, in_width, num_channels, in_channels)
    third = filter_row(x, y + 2, starts, channels, in_height, in_width, num_channels, in_channels)
    for i in tl.static_range(ROWS):
        fourth = filter_row(x, y + i * STRIDE + 3, starts, channels, in_height, in_width, num_channels, in_channels)
        value = (first + 3.0 * (second + third) + fourth) * (gain / 64.0)
        place = ((top + i) * width + columns)[:, None] * num_channels + channels[None, :]
        inside = (columns < width)[:, None] & in_channels[None, :] & (top + i < height)
        tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)
        if STRIDE == 1:
            first, second, third = second, third, fourth
        else:
            first, second = third, fourth
            if i + 1 < ROWS:
                third = filter_row(x, y + i * 2 + 4, starts, channels, in_height, in_width, num_channels, in_channels)


@triton.jit
def upsample_kernel(x, onto, out, height, width, num_channels, gain, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr):
    """`upsample2d`, a piece of a row of the output, perhaps added to another map."""
    sample, y, columns, channels = locate(height, width, num_channels, 1, COLUMNS, CHANNELS)
    inside = (columns < width)[:, None] & (channels < num_channels)[None, :]
    x += sample * (height // 2) * (width // 2) * num_channels
    out += sample * height * width * num_channels
    value = load_upsampled(x + channels[None, :], num_channels, y, columns[:, None], height, width, inside)
    place = (y * width + columns)[:, None] * num_channels + channels[None, :]
    value *= gain * 0.25
    if onto is not None:
        onto += sample * height * width * num_channels
        value += tl.load(onto + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def clamped_leaky_relu_kernel(x, size, limit: tl.constexpr, SIZE: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    value = tl.load(x + places, mask=places < size).to(tl.float32)
    value = clamp(tl.where(value > 0, value, value * LEAKY_SLOPE), limit)
    tl.store(x + places, value.to(x.dtype.element_ty), mask=places < size)


@triton.jit
def clamped_leaky_relu_gradient_kernel(gradient, y, out, size, limit: tl.constexpr, SIZE: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    slope = tl.load(gradient + places, mask=places < size).to(tl.float32)
    value = tl.load(y + places, mask=places < size).to(tl.float32)
    slope = tl.where(value > 0, slope, slope * LEAKY_SLOPE)
    slope = tl.where((value > -limit) & (value < limit), slope, 0.0)
    tl.store(out + places, slope.to(out.dtype.element_ty), mask=places < size)


@triton.jit
def styled_activation_kernel(
    x,
    factor,
    shift,
    noise,
    out,
    size,
    num_channels,
    factor_stride,
    limit: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """`styled_activation` of PIXELS pixels of a map of `size`, with all their channels."""
    sample, first = (tl.program_id(0) // tl.cdiv(size, PIXELS)).to(tl.int64), tl.program_id(0) % tl.cdiv(size, PIXELS)
    pixels, channels = first * PIXELS + tl.arange(0, PIXELS), tl.arange(0, CHANNELS)
    in_map, in_channels = pixels < size, channels < num_channels
    inside = in_map[:, None] & in_channels[None, :]
    place = (sample * size + pixels[:, None]) * num_channels + channels[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if factor is not None:
        value *= load_vector(factor + sample * factor_stride, channels, in_channels)
    value += load_vector(shift, channels, in_channels)
    if noise is not None:
        value += tl.load(noise + sample * size + pixels, mask=in_map, other=0.0).to(tl.float32)[:, None]
    value = clamp(tl.where(value > 0, value, value * LEAKY_SLOPE), limit)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def styled_gradient_kernel(
    gradient,
    y,
    x,
    factor,
    out,
    products,
    sums,
    pixel_sums,
    size,
    num_channels,
    factor_stride,
    limit: tl.constexpr,
    STEPS: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """`styled_gradient` of STEPS x PIXELS pixels, whose sums it leaves for the next pass. What is None is left out."""
    parts = tl.cdiv(size, STEPS * PIXELS)
    sample, part = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts
    channels = tl.arange(0, CHANNELS)
    in_channels = channels < num_channels
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    product = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for i in range(STEPS):
        pixels = (part * STEPS + i) * PIXELS + tl.arange(0, PIXELS)
        inside = (pixels < size)[:, None] & in_channels[None, :]
        place = (sample * size + pixels[:, None]) * num_channels + channels[None, :]
        slope = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        if y is not None:
            value = tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
            slope = tl.where(value > 0, slope, slope * LEAKY_SLOPE)
            slope = tl.where((value > -limit) & (value < limit), slope, 0.0)
        if out is not None:
            scaled = slope
            if factor is not None:
                scaled *= load_vector(factor + sample * factor_stride, channels, in_channels)
            tl.store(out + place, scaled.to(out.dtype.element_ty), mask=inside)
        if products is not None:
            product += slope * tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        if sums is not None:
            total += slope
        if pixel_sums is not None:
            pixel_sum = tl.sum(slope, axis=1).to(pixel_sums.dtype.element_ty)
            tl.store(pixel_sums + sample * size + pixels, pixel_sum, mask=pixels < size)
    place = tl.program_id(0).to(tl.int64) * num_channels + channels
    if products is not None:
        tl.store(products + place, tl.sum(product, axis=0), mask=in_channels)
    if sums is not None:
        tl.store(sums + place, tl.sum(total, axis=0), mask=in_channels)


@triton.jit(do_not_specialize=["samples"])
def filtered_kernel(
    x,
    demodulation,
    noise,
    strength,
    bias,
    style,
    out,
    samples,
    height,
    width,
    num_channels,
    demodulation_stride,
    noise_stride,
    style_stride,
    limit: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """`filtered_epilogue` of (height + 1, width + 1) maps: one sample's ROWS x COLUMNS pixels of CHANNELS channels."""
    number, top, columns, channels = locate(height, width, num_channels, ROWS, COLUMNS, CHANNELS)
    sample = number % samples
    in_channels, in_columns = channels < num_channels, columns < width
    x += number * (height + 1) * (width + 1) * num_channels
    out += number * height * width * num_channels
    factor = load_vector(demodulation + sample * demodulation_stride, channels, in_channels) * 0.0625
    next_style = load_vector(style + sample * style_stride, channels, in_channels)
    shift = load_vector(bias, channels, in_channels)

    first = filter_row(x, top - 1, columns - 1, channels, height + 1, width + 1, num_channels, in_channels)
    second = filter_row(x, top, columns - 1, channels, height + 1, width + 1, num_channels, in_channels)
    third = filter_row(x, top + 1, columns - 1, channels, height + 1, width + 1, num_channels, in_channels)
    for i in tl.static_range(ROWS):
        y = top + i
        fourth = filter_row(x, y + 2, columns - 1, channels, height + 1, width + 1, num_channels, in_channels)
        in_row = in_columns & (y < height)
        pixel_noise = load_noise(noise, sample * noise_stride, strength, y * width + columns, in_row)
        value = activate(first + 3.0 * (second + third) + fourth, factor, pixel_noise, shift, limit)
        place = (y * width + columns)[:, None] * num_channels + channels[None, :]
        tl.store(out + place, (value * next_style).to(out.dtype.element_ty), mask=in_row[:, None] & in_channels)
        first, second, third = second, third, fourth


@triton.jit(do_not_specialize=["samples", "x_samples", "image_samples"])
def pointwise_kernel(
    x,
    demodulation,
    noise,
    strength,
    bias,
    residual,
    residual_demodulation,
    residual_noise,
    residual_strength,
    residual_bias,
    mask_style,
    mask_weight,
    mask_bias,
    low_mask,
    rgb_style,
    rgb_weight,
    rgb_bias,
    low_image,
    style,
    defect_style,
    image,
    mask,
    scaled,
    defect_scaled,
    samples,
    x_samples,
    image_samples,
    height,
    width,
    num_channels,
    demodulation_stride,
    noise_stride,
    residual_demodulation_stride,
    residual_noise_stride,
    mask_style_stride,
    rgb_style_stride,
    style_stride,
    defect_style_stride,
    threshold,
    limit: tl.constexpr,
    IMAGE_CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """`pointwise_epilogue` of COLUMNS pixels of a row, with all their channels. What is None is left out.

    Programs from `samples` on draw the twins: the same styles and noise, no residual.
    """
    number, y, columns, channels = locate(height, width, num_channels, 1, COLUMNS, CHANNELS)
    sample, size = number % samples, height * width
    in_channels, in_row = channels < num_channels, columns < width
    inside = in_row[:, None] & in_channels[None, :]
    pixels = y * width + columns
    place = pixels[:, None] * num_channels + channels[None, :]

    value = tl.load(x + number % x_samples * size * num_channels + place, mask=inside, other=0.0).to(tl.float32)
    factor = load_vector(demodulation + sample * demodulation_stride, channels, in_channels)
    shift = load_vector(bias, channels, in_channels)
    pixel_noise = load_noise(noise, sample * noise_stride, strength, pixels, in_row)
    value = activate(value, factor, pixel_noise, shift, limit)

    gated = number < samples
    if residual is not None:  # noqa: SIM102 - this is decided when the kernel is compiled, the next when it runs
        if gated:
            other = tl.load(residual + sample * size * num_channels + place, mask=inside, other=0.0).to(tl.float32)
            factor = load_vector(residual_demodulation + sample * residual_demodulation_stride, channels, in_channels)
            shift = load_vector(residual_bias, channels, in_channels)
            start = sample * residual_noise_stride
            pixel_noise = load_noise(residual_noise, start, residual_strength, pixels, in_row)
            other = activate(other, factor, pixel_noise, shift, limit)
            if low_mask is None:
                weight = load_vector(mask_style + sample * mask_style_stride, channels, in_channels)
                weight *= load_vector(mask_weight, channels, in_channels)
                logits = clamp(tl.sum(other * weight, axis=1) + tl.load(mask_bias).to(tl.float32), limit)
            else:
                logits = load_upsampled(low_mask + sample * (size // 4), 1, y, columns, height, width, in_row)
            tl.store(mask + sample * size + pixels, logits, mask=in_row)
            value += tl.where((logits >= threshold)[:, None], other, 0.0)

    to_rgb = load_vector(rgb_style + sample * rgb_style_stride, channels, in_channels)
    for k in tl.static_range(IMAGE_CHANNELS):
        weight = to_rgb * load_vector(rgb_weight + k * num_channels, channels, in_channels)
        rgb = clamp(tl.sum(value * weight, axis=1) + tl.load(rgb_bias + k).to(tl.float32), limit)
        if low_image is not None:
            plane = low_image + (number % image_samples * IMAGE_CHANNELS + k) * (size // 4)
            rgb += load_upsampled(plane, 1, y, columns, height, width, in_row)
        tl.store(image + (number * IMAGE_CHANNELS + k) * size + pixels, rgb, mask=in_row)

    if scaled is not None:
        result = value * load_vector(style + sample * style_stride, channels, in_channels)
        tl.store(scaled + number * size * num_channels + place, result.to(scaled.dtype.element_ty), mask=inside)
    if defect_scaled is not None:
        result = value * load_vector(defect_style + sample * defect_style_stride, channels, in_channels)
        place += sample * size * num_channels
        tl.store(defect_scaled + place, result.to(defect_scaled.dtype.element_ty), mask=inside & gated)
