"""Every kind of file is shown as it is, within a level of what it holds, or refused by name."""

import numpy as np
import pytest

from renderer.errors import DecodeFailed, ImageTooLarge, JobError, UnsupportedFormat
from renderer.pictures.decode import decode, read_size
from renderer.pictures.formats import DECODERS
from renderer.pictures.header import read_header
from tests.pictures.matrix import HEIGHT, WIDTH, Sample
from tests.pictures.oddities import samples

SAMPLES = list(samples())


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.shows is not None], ids=lambda sample: sample.name)
def test_a_file_shows_what_it_holds(sample: Sample) -> None:
    assert sample.shows is not None
    picture = decode(sample.data, background=(0, 0, 0), max_pixels=10**7)
    found = picture.pixels[..., ::-1].astype(float)
    assert found.shape == sample.shows.shape
    difference = np.abs(found - sample.shows)
    assert difference.mean() <= 1
    # Radiance's shared exponent leaves a dim channel few steps beside a bright one; the others are lossy.
    is_lossy = sample.name.startswith(("hdr", "avif", "heic")) or sample.name.endswith("lossy")
    assert difference.max() <= (9 if is_lossy else 2)
    assert read_size(sample.data, 10**7) == picture.size


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.shows is None], ids=lambda sample: sample.name)
def test_a_file_that_nobody_reads_right_is_refused_by_name(sample: Sample) -> None:
    with pytest.raises(JobError) as caught:
        decode(sample.data, background=(0, 0, 0), max_pixels=10**7)
    assert type(caught.value) is (UnsupportedFormat if sample.refusal else DecodeFailed)
    assert sample.refusal in caught.value.message


@pytest.mark.parametrize("name", DECODERS)
def test_the_limit_on_pixels_is_checked_from_the_header(name: str) -> None:
    sample = next(
        sample for sample in SAMPLES if sample.shows is not None and read_header(sample.data, 10**8).format == name
    )
    with pytest.raises(ImageTooLarge):
        decode(sample.data, background=(0, 0, 0), max_pixels=WIDTH * HEIGHT - 1000)
