from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renderer.geometry import Canvas, Size, place
from renderer.pictures.compose import Framing, compose, needed_size
from renderer.pictures.decode import Picture, decode

Array = npt.NDArray[Any]

SIZES = [(1, 1), (2, 2), (15, 17), (641, 481), (1600, 901), (4096, 2160), (5120, 2880), (901, 1600)]
LUMA = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709-6, 3.2


def expected_nv12(rgb: Array) -> tuple[Array, Array]:
    """BT.709 limited range with left-sited chroma, in float64 and loops of whole planes; no OpenCV."""
    colour = rgb.astype(float) / 255
    luma = colour @ LUMA
    planes = np.stack([(colour[..., 2] - luma) / 1.8556, (colour[..., 0] - luma) / 1.5748], -1)
    rows = (planes[0::2] + planes[1::2]) / 2
    padded = np.pad(rows, ((0, 0), (1, 0), (0, 0)), mode="edge")
    chroma = (padded[:, 0:-1:2] + 2 * padded[:, 1::2] + padded[:, 2::2]) / 4
    return 16 + 219 * luma, 128 + 224 * chroma


def shown(frame: Array) -> Array:
    """Decode as a player does, chroma repeated: RGB of float64."""
    rows = frame.shape[0] * 2 // 3
    luma = (frame[:rows].astype(float) - 16) / 219
    chroma = (frame[rows:].reshape(rows // 2, -1, 2).astype(float) - 128) / 224
    blue, red = (chroma.repeat(2, 0).repeat(2, 1)[..., index] for index in (0, 1))
    r, b = luma + 1.5748 * red, luma + 1.8556 * blue
    return np.clip(255 * np.stack([r, (luma - 0.2126 * r - 0.0722 * b) / 0.7152, b], -1), 0, 255)


def picture_of(rgb: Array, size: Size | None = None, reduction: int = 1) -> Picture:
    return Picture(np.ascontiguousarray(rgb[..., ::-1]), size or Size(rgb.shape[1], rgb.shape[0]), reduction)


def composed(picture: Picture, look: Framing) -> Array:
    frame = np.full(look.canvas.nv12_shape, 7, np.uint8)
    compose(picture, look, frame)
    return frame


def noise(width: int, height: int) -> Array:
    return np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(size: Size, rgb: tuple[int, int, int]) -> Picture:
    return picture_of(np.full((size.height, size.width, 3), rgb, np.uint8))


# Colour.


def test_known_colours_come_back_within_2_of_255() -> None:
    steps = [0, 1, 2, 16, 51, 100, 127, 128, 180, 204, 235, 254, 255]
    colours = np.array(np.meshgrid(steps, steps, steps)).reshape(3, -1).T.astype(np.uint8)
    columns = 40
    colours = np.resize(colours, (-(-len(colours) // columns) * columns, 3)).reshape(-1, columns, 3)
    patches = colours.repeat(8, 0).repeat(8, 1)
    frame = composed(picture_of(patches), Framing(Canvas(patches.shape[1], patches.shape[0])))
    middle = shown(frame)[4::8, 4::8]
    assert np.abs(middle - colours).max() <= 2


def test_black_and_white_are_16_and_235_with_neutral_chroma() -> None:
    for level, luma in ((0, 16), (255, 235)):
        frame = composed(flat(Size(8, 8), (level,) * 3), Framing(Canvas(8, 8)))
        assert (frame[:8] == luma).all()
        assert (frame[8:] == 128).all()


def test_primaries_reach_the_ends_of_the_range_and_no_further() -> None:
    for rgb, chroma in (
        ((0, 0, 255), (240, 118)),
        ((255, 255, 0), (16, 138)),
        ((255, 0, 0), (102, 240)),
        ((0, 255, 255), (154, 16)),
    ):
        frame = composed(flat(Size(4, 4), rgb), Framing(Canvas(4, 4)))
        assert tuple(frame[4, :2]) == chroma, rgb


def test_every_sample_is_within_one_of_the_exact_conversion() -> None:
    for width, height in ((2, 2), (4, 6), (64, 34), (322, 242)):
        rgb = noise(width, height)
        frame = composed(picture_of(rgb), Framing(Canvas(width, height)))
        luma, chroma = expected_nv12(rgb)
        assert np.abs(frame[:height] - luma).max() <= 1
        # Two roundings of 8-bit halves come before the matrix.
        assert np.abs(frame[height:].reshape(chroma.shape) - chroma).max() <= 1.6


def test_an_edge_bleeds_no_further_than_the_filter_reaches() -> None:
    for edge in (16, 17):
        rgb = np.zeros((8, 32, 3), np.uint8)
        rgb[:, edge:] = (255, 0, 0)
        frame = composed(picture_of(rgb), Framing(Canvas(32, 8)))
        red = frame[8, 1::2].astype(int)
        assert (frame[:8, :edge] == 16).all()
        assert (frame[:8, edge:] == 63).all()
        assert (red[: (edge - 1) // 2] == 128).all()
        assert (red[edge // 2 + 1 :] == 240).all()
        between = {16: [212], 17: [156]}[edge]  # 3/4 and 1/4 of the way from 128 to 240
        assert red[8:9].tolist() == between


def test_the_frame_is_written_in_place_and_wholly() -> None:
    frame = np.full((12, 8), 7, np.uint8)
    before = frame.ctypes.data
    compose(flat(Size(8, 8), (255, 255, 255)), Framing(Canvas(8, 8)), frame)
    assert frame.ctypes.data == before
    assert not (frame == 7).any()


@pytest.mark.parametrize(
    "frame", [np.zeros((8, 8), np.uint8), np.zeros((12, 8), np.uint16), np.zeros((12, 16), np.uint8)[:, ::2]]
)
def test_a_frame_that_does_not_fit_is_refused(frame: Array) -> None:
    with pytest.raises(ValueError, match="expected a frame"):
        compose(flat(Size(8, 8), (0, 0, 0)), Framing(Canvas(8, 8)), frame)


# Placement.

BACKGROUND = (0, 0, 255)
BAR_LUMA = 32  # of that blue: 16 + 219 * 0.0722


@pytest.mark.parametrize("mode", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("upscale", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_bars_are_where_geometry_says_to_the_pixel(size: tuple[int, int], mode: Any, upscale: bool) -> None:
    for canvas in (Canvas(320, 180), Canvas(182, 322), Canvas(2, 2), Canvas(642, 482)):
        still = Size(*size)
        frame = composed(flat(still, (255, 255, 255)), Framing(canvas, mode, upscale, BACKGROUND))
        where = place(still, canvas, mode, upscale=upscale)
        expected = np.full((canvas.height, canvas.width), BAR_LUMA, np.uint8)
        right, bottom = where.x + where.size.width, where.y + where.size.height
        right += where.x == 0 and right == canvas.width - 1
        bottom += where.y == 0 and bottom == canvas.height - 1
        expected[where.y : bottom, where.x : right] = 235
        assert np.array_equal(frame[: canvas.height], expected)


def test_chroma_of_even_bars_is_the_bars_own() -> None:
    look = Framing(Canvas(64, 64), background=BACKGROUND)
    frame = composed(flat(Size(64, 32), (255, 255, 255)), look)
    chroma = frame[64:].reshape(32, 32, 2)
    assert (chroma[:8] == (240, 118)).all()
    assert (chroma[8:24] == 128).all()
    assert (chroma[24:] == (240, 118)).all()


@pytest.mark.parametrize(("width", "height"), [(15, 17), (15, 16), (16, 17), (1, 1), (641, 481)])
def test_an_odd_picture_keeps_every_pixel_and_repeats_its_last(width: int, height: int) -> None:
    rgb = noise(width, height)
    canvas = Canvas(width + width % 2, height + height % 2)
    repeated = np.pad(rgb, ((0, canvas.height - height), (0, canvas.width - width), (0, 0)), mode="edge")
    assert np.array_equal(composed(picture_of(rgb), Framing(canvas)), composed(picture_of(repeated), Framing(canvas)))


def test_crop_takes_the_middle() -> None:
    rgb = noise(64, 32)
    expected = composed(picture_of(rgb[:, 16:48]), Framing(Canvas(32, 32)))
    assert np.array_equal(composed(picture_of(rgb), Framing(Canvas(32, 32), "crop")), expected)


def test_one_frame_after_another_leaves_nothing_of_the_one_before() -> None:
    look = Framing(Canvas(64, 48))
    small, large = picture_of(noise(20, 10)), picture_of(noise(100, 80))
    fresh = composed(small, look)
    composed(large, look)
    assert np.array_equal(composed(small, look), fresh)


# Scaling.


def test_shrinking_averages_and_does_not_alias() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[:, ::2] = 255
    frame = composed(picture_of(rgb), Framing(Canvas(16, 16)))
    assert np.ptp(frame[:16]) == 0
    assert abs(int(frame[0, 0]) - 126) <= 1


def test_enlarging_is_lanczos() -> None:
    rgb = noise(20, 12)
    frame = composed(picture_of(rgb), Framing(Canvas(60, 36)))
    large = cv2.resize(rgb, (60, 36), interpolation=cv2.INTER_LANCZOS4)
    assert np.array_equal(frame, composed(picture_of(large), Framing(Canvas(60, 36))))


def test_each_axis_is_scaled_by_its_own_rule() -> None:
    rgb = np.zeros((8, 64, 3), np.uint8)
    rgb[:, ::2] = 255
    frame = composed(picture_of(rgb), Framing(Canvas(16, 32), "stretch"))
    assert np.ptp(frame[:32]) == 0  # across: averaged, as a Lanczos kernel of 8 columns would not
    rgb = np.zeros((8, 64, 3), np.uint8)
    rgb[4:] = 255
    frame = composed(picture_of(rgb), Framing(Canvas(16, 32), "stretch"))
    assert frame[:32].min() == 16
    assert frame[:32].max() == 235
    assert len(np.unique(frame[12:20, 0])) > 2  # down: a ramp, as repeated rows would not


def test_a_scaled_photograph_keeps_its_mean() -> None:
    skimage = pytest.importorskip("skimage")
    data = (Path(skimage.__file__).parent / "data" / "coffee.png").read_bytes()
    picture = decode(data, background=(0, 0, 0), max_pixels=10**7)
    mean = picture.pixels.reshape(-1, 3).mean(0)[::-1]
    for canvas in (Canvas(300, 200), Canvas(1200, 800), Canvas(300, 800)):
        frame = composed(picture, Framing(canvas, "stretch"))
        assert np.abs(shown(frame).reshape(-1, 3).mean(0) - mean).max() < 1.5


def test_nearest_keeps_every_pixel_a_square_of_its_own_colour() -> None:
    rgb = noise(20, 12)
    squares = picture_of(rgb.repeat(3, 0).repeat(3, 1))
    frame = composed(picture_of(rgb), Framing(Canvas(60, 36), scaling="nearest"))
    assert np.array_equal(frame, composed(squares, Framing(Canvas(60, 36))))


def test_nearest_takes_the_pixel_under_the_middle_and_no_mixture() -> None:
    rgb = noise(37, 23)
    for canvas in (Canvas(20, 50), Canvas(58, 10), Canvas(74, 46)):
        rows = ((np.arange(canvas.height) + 0.5) * 23 / canvas.height).astype(int)
        columns = ((np.arange(canvas.width) + 0.5) * 37 / canvas.width).astype(int)
        taken = picture_of(rgb[rows][:, columns])
        frame = composed(picture_of(rgb), Framing(canvas, "stretch", scaling="nearest"))
        assert np.array_equal(frame, composed(taken, Framing(canvas)))


def area_mean(rgb: Array, columns: int) -> Array:
    """The mean of what each output column covers, in float64."""
    edges = np.linspace(0, rgb.shape[1], columns + 1)
    sums = np.concatenate([np.zeros((rgb.shape[0], 1, 3)), np.cumsum(rgb.astype(float), 1)], 1)
    at = [
        np.interp(edges, np.arange(sums.shape[1]), line) for line in np.moveaxis(sums, 1, 2).reshape(-1, sums.shape[1])
    ]
    means = np.diff(at, axis=1) / (rgb.shape[1] / columns)
    return np.moveaxis(means.reshape(rgb.shape[0], 3, columns), 1, 2)


@pytest.mark.parametrize("size", [(20, 12), (60, 44), (96, 10), (26, 90)])
def test_area_is_the_mean_of_what_is_covered_in_both_directions(size: tuple[int, int]) -> None:
    rgb = noise(37, 23)
    canvas = Canvas(*size)
    means = area_mean(area_mean(rgb, canvas.width).swapaxes(0, 1), canvas.height).swapaxes(0, 1)
    frame = composed(picture_of(rgb), Framing(canvas, "stretch", scaling="area"))
    luma, _ = expected_nv12(means)
    assert np.abs(frame[: canvas.height] - luma).max() <= 1.7  # two roundings to 8 bits come before the matrix


def test_lanczos_shrinks_sharper_than_area_and_does_not_alias() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[:, ::2] = 255
    frame = composed(picture_of(rgb), Framing(Canvas(16, 16), scaling="lanczos"))
    assert np.ptp(frame[:16, 2:-2].astype(int)) <= 6
    edge = np.zeros((64, 64, 3), np.uint8)
    edge[:, 30:] = 255
    by_area, by_lanczos = (
        composed(picture_of(edge), Framing(Canvas(16, 16), scaling=scaling)) for scaling in ("area", "lanczos")
    )
    assert by_area[0, :7].max() == 16
    assert 16 in by_lanczos[0, :7]  # it rings, as a sharp kernel does
    assert by_lanczos[0, 8:].min() >= 230
    assert not np.array_equal(by_lanczos, by_area)


@pytest.mark.parametrize("scaling", ["auto", "lanczos", "area", "nearest"])
def test_a_still_as_large_as_the_canvas_is_not_touched_by_any_scaling(scaling: Any) -> None:
    rgb = noise(64, 48)
    look = Framing(Canvas(64, 48), scaling=scaling)
    assert np.array_equal(composed(picture_of(rgb), look), composed(picture_of(rgb), Framing(Canvas(64, 48))))


@pytest.mark.parametrize(("scaling", "reduction"), [("auto", 4), ("area", 4), ("lanczos", 1), ("nearest", 1)])
def test_a_jpeg_is_read_at_a_smaller_scale_only_for_scaling_that_takes_means(scaling: Any, reduction: int) -> None:
    data = cv2.imencode(".jpg", noise(400, 320))[1].tobytes()
    needed = needed_size(Framing(Canvas(100, 80), scaling=scaling))
    assert decode(data, background=(0, 0, 0), max_pixels=10**7, needed=needed).reduction == reduction


# Pictures read at a reduced scale.


@pytest.mark.parametrize("mode", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("upscale", [True, False])
def test_a_reduced_picture_lands_where_the_full_one_does(mode: Any, upscale: bool) -> None:
    rows, columns = np.mgrid[:1201, :1603]
    rgb = np.stack([columns * 255 / 1602, rows * 255 / 1200, (columns + rows) % 1000 / 4], -1).astype(np.uint8)
    data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    for canvas, reduction in (
        (Canvas(400, 300), 4),
        (Canvas(300, 400), 2),
        (Canvas(200, 150), 8),
        (Canvas(1000, 100), 1),
    ):
        look = Framing(canvas, mode, upscale)
        full = decode(data, background=(0, 0, 0), max_pixels=10**7)
        reduced = decode(data, background=(0, 0, 0), max_pixels=10**7, needed=needed_size(look))
        assert reduced.reduction == reduction if mode == "stretch" else reduced.reduction in (1, 2, 4, 8)
        one, other = (
            composed(full, look)[: canvas.height].astype(int),
            composed(reduced, look)[: canvas.height].astype(int),
        )
        assert np.abs(one - other).mean() < 1.5


@pytest.mark.parametrize("canvas", [Canvas(700, 524), Canvas(540, 406), Canvas(432, 324), Canvas(404, 302)])
def test_a_reduced_picture_is_as_sharp_as_the_mean_of_all_its_pixels(canvas: Canvas) -> None:
    rgb = cv2.GaussianBlur(noise(1600, 1200), (0, 0), 1.5)
    rgb = cv2.normalize(rgb, None, 0, 255, cv2.NORM_MINMAX)
    data = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    look = Framing(canvas, "stretch")
    of_all = composed(decode(data, background=(0, 0, 0), max_pixels=10**7), look)[: canvas.height].astype(float)
    reduced = decode(data, background=(0, 0, 0), max_pixels=10**7, needed=needed_size(look))
    found = composed(reduced, look)[: canvas.height]
    twice_mean = composed(reduced, Framing(canvas, "stretch", scaling="area"))[: canvas.height]
    assert reduced.reduction == 2
    assert np.std(found - of_all) < 0.9 * np.std(twice_mean - of_all)
    assert np.std(found) == pytest.approx(np.std(of_all), rel=0.06)
    assert abs(found.mean() - of_all.mean()) < 0.2


def test_an_edge_of_a_reduced_picture_stays_an_edge() -> None:
    rgb = np.full((1200, 1600, 3), 64, np.uint8)
    rgb[:, 801:] = 192
    look = Framing(Canvas(432, 324), "stretch")
    row = composed(picture_of(rgb[::2, ::2], Size(1600, 1200), 2), look)[100].astype(int)
    levels = 16 + 219 * np.array([64, 192]) / 255
    assert row.min() > levels[0] - 3
    assert row.max() < levels[1] + 3
    assert np.count_nonzero((row > levels[0] + 3) & (row < levels[1] - 3)) <= 2


@pytest.mark.parametrize(
    ("still", "look", "expected"),
    [
        (Size(4000, 3000), Framing(Canvas(1920, 1080)), Size(1440, 1080)),
        (Size(4000, 3000), Framing(Canvas(1920, 1080), "crop"), Size(1920, 1440)),
        (Size(4000, 3000), Framing(Canvas(1920, 1080), "stretch"), Size(1920, 1080)),
        (Size(400, 300), Framing(Canvas(1920, 1080)), Size(400, 300)),
        (Size(400, 3000), Framing(Canvas(1920, 1080), "stretch"), Size(400, 1080)),
        (Size(1919, 1079), Framing(Canvas(1920, 1080)), Size(1919, 1079)),
        (Size(4000, 3000), Framing(Canvas(1920, 1080), "crop", upscale=False), Size(1920, 1440)),
    ],
)
def test_what_is_needed_is_what_the_canvas_can_show(still: Size, look: Framing, expected: Size) -> None:
    assert needed_size(look)(still) == expected


stills = st.builds(Size, st.integers(1, 70), st.integers(1, 70))
canvases = st.builds(lambda columns, rows: Canvas(2 * columns, 2 * rows), st.integers(1, 35), st.integers(1, 35))


@given(stills, canvases, st.sampled_from(["pad", "crop", "stretch"]), st.booleans(), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_any_flat_picture_on_any_canvas_of_its_colour_is_flat(
    still: Size, canvas: Canvas, mode: Any, upscale: bool, level: int
) -> None:
    rgb = (level, 255 - level, level // 2)
    frame = composed(flat(still, rgb), Framing(canvas, mode, upscale, rgb))
    assert np.ptp(frame[: canvas.height]) == 0
    chroma = frame[canvas.height :].reshape(-1, 2)
    assert np.ptp(chroma[:, 0]) == 0
    assert np.ptp(chroma[:, 1]) == 0
    assert np.abs(shown(frame)[0, 0] - rgb).max() <= 2
