"""What holds for all tests."""

import hypothesis
import pytest
import torch

# How long an example takes says more about the machine's other work than about the code.
hypothesis.settings.register_profile("sgloc", deadline=None)
hypothesis.settings.load_profile("sgloc")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Small tensors gain nothing from more, and tests share the machine.
    torch.set_num_threads(1)
