"""Warnings about pictures that are shown otherwise than their owner may expect: smaller, scaled up, or in part."""

from collections.abc import Collection, Mapping
from typing import Final

from protocol.schema import ResultWarning
from renderer.geometry import Canvas, Size
from renderer.pictures.formats import More
from renderer.pictures.measure import Measured

_IN_PART: Final[Mapping[More, tuple[str, str]]] = {
    "frames": ("image_animated", "this image is an animation, of which only the first frame is shown"),
    "pages": ("image_paged", "this image has several pages, of which only the first is shown"),
    "pictures": ("image_multiple", "this file holds several pictures, of which only the main one is shown"),
}


def reduced(found: Measured, canvas: Canvas) -> list[ResultWarning]:
    """Say that the canvas has fewer pixels than the image that it follows."""
    if canvas.pixels >= found.size.pixels:
        return []
    which = "the first image" if found.image == 0 else "this image"
    words = (
        f"the video is {canvas}, not {found.size} as {which}: the largest of this shape that H.264's levels, "
        "the encoder and the server's limit for a side allow; width and height choose another size"
    )
    return [ResultWarning(type="canvas_reduced", message=words, loc=("images", found.image, "url"))]


def enlarged(sizes: Mapping[int, Size], canvas: Canvas) -> list[ResultWarning]:
    """Name the images that are scaled up much, by their places in the request."""
    if not sizes:
        return []
    first = min(sizes)
    words = f"this image of {sizes[first]} is scaled up more than twice for a video of {canvas}{_others(sizes)}"
    return [ResultWarning(type="image_enlarged", message=words, loc=("images", first, "url"))]


def shown_in_part(found: Mapping[int, More]) -> list[ResultWarning]:
    """Name the files that hold more than the one picture that is shown."""
    warnings = []
    for more, (kind, words) in _IN_PART.items():
        if images := [image for image in found if found[image] == more]:
            loc = ("images", min(images), "url")
            warnings.append(ResultWarning(type=kind, message=words + _others(images), loc=loc))
    return warnings


def _others(images: Collection[int]) -> str:
    """Return the end of a sentence about the first image that counts the others."""
    return {1: "", 2: "; so is 1 more image"}.get(len(images), f"; so are {len(images) - 1} more images")
