"""Every kind of file is shown as it is, within a level of what it holds, or refused by name."""

import numpy as np
import pytest

from renderer.errors import DecodeFailed, ImageTooLarge, JobError, UnsupportedFormat
from renderer.pictures.decode import decode, read_size
from renderer.pictures.formats import DECODERS
from renderer.pictures.header import read_header
from tests.pictures.matrix import HEIGHT, WIDTH, Sample
from tests.pictures.oddities import FAMILIES, of, samples


@pytest.mark.parametrize("family", FAMILIES)
def test_every_file_shows_what_it_holds_or_is_refused_by_name(family: str) -> None:
    found = {sample.name: fault_of(sample) for sample in of(family)}
    assert {name: fault for name, fault in found.items() if fault} == {}


def fault_of(sample: Sample) -> str:
    """Say what is wrong with how a file is shown or refused, or nothing."""
    try:
        picture = decode(sample.data, background=(0, 0, 0), max_pixels=10**7)
    except JobError as error:
        expected = UnsupportedFormat if sample.refusal else DecodeFailed
        is_right = sample.shows is None and type(error) is expected and sample.refusal in error.message
        return "" if is_right else f"is refused: {error!r}"
    if sample.shows is None:
        return "is shown"
    found = picture.pixels[..., ::-1].astype(float)
    if found.shape != sample.shows.shape or read_size(sample.data, 10**7) != picture.size:
        return f"has the shape {found.shape} and the size {read_size(sample.data, 10**7)}"
    difference = np.abs(found - sample.shows)
    # Radiance's shared exponent leaves a dim channel few steps beside a bright one; the others are lossy.
    is_lossy = sample.name.startswith(("hdr", "avif", "heic")) or sample.name.endswith("lossy")
    is_near = difference.mean() <= 1 and difference.max() <= (9 if is_lossy else 2)
    return "" if is_near else f"differs by {difference.mean():.2f} at the mean, {difference.max():.0f} at most"


@pytest.mark.parametrize("name", DECODERS)
def test_the_limit_on_pixels_is_checked_from_the_header(name: str) -> None:
    sample = next(
        sample for sample in samples() if sample.shows is not None and read_header(sample.data, 10**8).format == name
    )
    with pytest.raises(ImageTooLarge):
        decode(sample.data, background=(0, 0, 0), max_pixels=WIDTH * HEIGHT - 1000)
