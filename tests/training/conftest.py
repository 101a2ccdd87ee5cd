"""One thread for PyTorch: trainings in tests are small, and threads that wait for each other on busy cores crawl."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
