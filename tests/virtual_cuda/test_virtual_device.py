"""Run the tests of `on_device.py` on the virtual device, in a separate process."""

from pathlib import Path

from tests.virtual_cuda.start import finish, start


def test_what_is_computed_on_the_device_is_what_a_cpu_computes() -> None:
    tests = Path(__file__).with_name("on_device.py")
    finish(start("-m", "tests.virtual_cuda.run_tests", str(tests), TORCH_ALLOW_TF32_CUBLAS_OVERRIDE="1"))
