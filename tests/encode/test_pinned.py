"""Page-locked frames over the stand-in driver."""

from tests.nvenc_standin.process import Standin

CHILDREN = "tests.encode.nvenc.nvenc_children"


def test_frames_are_page_locked_once_and_serve_every_job(standin: Standin) -> None:
    found = standin.ask(CHILDREN, "pinned_pools", shapes=[[6, 8]] * 4)
    assert found["pinned"] == [True] * 4
    assert found["same"] == [True] * 3
    assert found["distinct"] == [3] * 4
    assert found["allocated"] == 3


def test_another_shape_frees_what_lies_idle(standin: Standin) -> None:
    found = standin.ask(CHILDREN, "pinned_pools", shapes=[[6, 8], [12, 16], [6, 8]])
    assert found["allocated"] == 9
    assert standin.total("pinned_frees") == 9


def test_the_environment_is_as_before(standin: Standin) -> None:
    assert standin.ask(CHILDREN, "pinned_pools", shapes=[[6, 8]])["visible"] is None


def test_where_pages_cannot_be_locked_the_pool_is_plain(standin: Standin) -> None:
    knobs = {"fail": "cuMemHostAlloc@2=2"}
    assert standin.ask(CHILDREN, "plain_pool_after_a_failure", knobs=knobs) == {"pinned": False}


def test_a_device_that_is_not_there_is_named(standin: Standin) -> None:
    assert standin.ask(CHILDREN, "gpu_out_of_sight", uuid="GPU-none") == "GPU-none is not visible to this process"


def test_a_driver_that_refuses_is_named(standin: Standin) -> None:
    words = standin.ask(CHILDREN, "gpu_out_of_sight", knobs={"gpus": 0}, uuid="GPU-none")
    assert words == "cuInit: CUDA_ERROR_NO_DEVICE (100)"


def test_only_devices_that_encode_are_in_sight(standin: Standin) -> None:
    found = standin.ask(CHILDREN, "second_of_two", knobs={"gpus": 2})
    assert found["index"] == 0
